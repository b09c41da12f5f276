"""Figures and lists as words, and who makes tables of them."""

from conftest import ROOT

from fed_ist.words import bullets, csv_text, table


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
