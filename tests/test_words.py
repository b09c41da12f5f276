"""Figures and lists as words, and who makes tables of them."""

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from fed_ist.words import bullets, csv_text, plain_table, readable_seconds, shorten, table


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


LETTERS = st.text("abcdefgh", max_size=150)


@given(st.lists(st.tuples(LETTERS, LETTERS, LETTERS), min_size=1), st.integers(20, 100))
def test_a_table_for_a_terminal_is_never_wider_than_it_and_has_a_line_for_each_row(rows, width):
    lines = plain_table(("a", "b", "c"), rows, width).split("\n")
    assert len(lines) == 1 + len(rows)
    assert max(map(len, lines)) <= width


def test_a_table_for_a_terminal_aligns_numbers_and_cuts_the_longest_text():
    rows = [("a-name-that-is-long", "1"), ("b", "20")]
    assert plain_table(("run", "n"), rows, 12) == "run        n\na-n…long   1\nb         20"


@given(LETTERS, st.integers(1, 60))
def test_what_is_shortened_keeps_both_ends(text, most):
    found = shorten(text, most)
    assert len(found) <= most
    assert found == text or (
        text.startswith(found.split("…")[0]) and text.endswith(found[-1:].strip("…"))
    )
