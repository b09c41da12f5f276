"""Figures and lists as words, and who makes tables of them."""

import pytest
from conftest import ROOT

from fed_ist.words import bullets, csv_text, readable_seconds, table


def test_a_table_escapes_what_would_end_a_cell():
    assert table(("a", "b"), [("x|y", 1), ("", 2.5)]) == (
        "| a | b |\n| --- | --- |\n| x\\|y | 1 |\n|  | 2.5 |"
    )
    assert bullets(["One.", "Two."]) == "- One.\n- Two."
    assert bullets([]) == ""


def test_tables_are_made_in_one_place_for_each_kind():
    sources = [path for top in ("fed_ist", "sims") for path in (ROOT / top).rglob("*.py")]
    assert len(sources) > 100
    for mark in ('"---"', "|---", "<table"):
        assert len([path for path in sources if mark in path.read_text()]) <= 1, mark


def test_a_csv_file_has_a_header_and_an_empty_cell_for_what_a_row_lacks():
    assert csv_text(("a", "b"), [{"a": 1, "b": "x,y"}, {"b": 2}]) == 'a,b\n1,"x,y"\n,2\n'


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.0123, "0.012 s"),
        (3.24, "3.2 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (14 * 60, "14 min"),
        (3599, "1 h"),
        (5 * 3600, "5 h"),
        (47 * 3600, "47 h"),
        (47.9 * 3600, "2 days"),
        (1e9, "11,574 days"),
    ],
)
def test_a_time_is_told_in_the_unit_that_people_use(seconds, text):
    assert readable_seconds(seconds) == text
