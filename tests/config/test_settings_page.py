"""Each key has a row, a default and a line in docs/settings.md, and what is forgotten is said."""

from conftest import ROOT

from fed_ist.config.run_config import ROWS
from fed_ist.config.table import forgotten, settings_page
from fed_ist.config.toml import read_defaults

DEFAULTS = read_defaults(ROOT / "pyproject.toml")


def test_each_key_has_a_row_and_a_default():
    assert forgotten(DEFAULTS) == []


def test_a_key_without_its_row_or_without_its_default_is_told_with_what_to_do():
    keys = [key for key in ROWS if key != "mask-ratio"]
    assert forgotten(dict.fromkeys([*keys, "colour"], 0)) == [
        "'colour' stands in [tool.flwr.app.config] of pyproject.toml, and "
        "fed_ist/config/run_config.py has no row for it: write one.",
        "'mask-ratio' has a row in fed_ist/config/run_config.py, and no default: write one into "
        "[tool.flwr.app.config] of pyproject.toml.",
    ]


def test_the_page_of_settings_is_what_the_rows_and_the_defaults_say():
    written = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert written == settings_page(DEFAULTS), "run `make docs-settings`"


def test_the_page_explains_each_key_in_sentences():
    page = settings_page(DEFAULTS)
    for key, row in ROWS.items():
        assert page.count(f"\n| `{key}` | ") == 1
        assert row.sentences[0].isupper() or row.sentences.startswith("`")
        assert row.sentences.endswith(".")
