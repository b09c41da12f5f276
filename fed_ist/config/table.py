"""The table of all keys for the documentation: `make docs-settings` writes docs/settings.md."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from fed_ist.config.methods import METHODS
from fed_ist.config.rows import Row
from fed_ist.config.run_config import ROWS, TYPES
from fed_ist.config.toml import Value, read_defaults
from fed_ist.errors import InputError
from fed_ist.files.atomic import write_atomic
from fed_ist.files.installed import installed_app

INTRODUCTION = """\
# Settings

Every key of a run, for `fed-ist run --set key=value`, a preset, or `flwr run --run-config`. This
page is written by `make docs-settings` from the rows of `fed_ist/config/run_config.py` and the
defaults of `pyproject.toml`.
"""


def settings_page(defaults: Mapping[str, Value]) -> str:
    """The text of docs/settings.md: keys and defaults by group, then the methods.

    Raises `InputError` where a key has no row or no default.
    """
    if missing := forgotten(defaults):
        raise InputError(" ".join(missing))
    lines = [INTRODUCTION]
    for group in dict.fromkeys(row.group for row in ROWS.values()):
        lines += [f"## {group}", "", "| key | default | allowed | meaning |", "|---|---|---|---|"]
        lines += [
            f"| `{key}` | {_default(defaults[key])} | {_allowed(key, row)} | {_meaning(row)} |"
            for key, row in ROWS.items()
            if row.group == group
        ]
        lines.append("")
    lines += ["## Methods", "", "| method | what travels | source |", "|---|---|---|"]
    lines += [f"| `{name}` | {m.travels} | {m.source} |" for name, m in METHODS.items()]
    return "\n".join(lines) + "\n"


def forgotten(defaults: Mapping[str, Value]) -> list[str]:
    """A sentence for each key that has a default but no row, or a row but no default."""
    rows, settings = "fed_ist/config/run_config.py", "[tool.flwr.app.config] of pyproject.toml"
    found = [
        f"'{key}' stands in {settings}, and {rows} has no row for it: write one."
        for key in defaults
        if key not in ROWS
    ]
    return found + [
        f"'{key}' has a row in {rows}, and no default: write one into {settings}."
        for key in ROWS
        if key not in defaults
    ]


def _default(value: Value) -> str:
    if isinstance(value, str):
        return f"`{value}`" if value else ""
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)


def _allowed(key: str, row: Row) -> str:
    if row.limit is None:
        return "true or false" if TYPES[key] is bool else "text"
    if row.limit.choices:
        return ", ".join(f"`{name}`" for name in row.limit.choices)
    return row.limit.allowed(TYPES[key]).replace("\\", "\\\\")


def _meaning(row: Row) -> str:
    said = [row.sentences]
    if row.needs:
        other, useful = row.needs
        limit = ROWS[other].limit
        without = sorted(set(limit.choices if limit else ()) - set(useful))
        is_short = len(useful) <= len(without)
        names = ", ".join(f"`{name}`" for name in (useful if is_short else without))
        said.append(f"{'Only' if is_short else 'Not'} with `{other}` = {names}.")
    if row.may_change:
        said.append("A resumed run may have another.")
    return " ".join(said)


def main() -> int:
    """Write the page to the file that the command names, whole or not at all."""
    try:
        page = settings_page(read_defaults(installed_app() / "pyproject.toml"))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    write_atomic(Path(sys.argv[1]), page.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
