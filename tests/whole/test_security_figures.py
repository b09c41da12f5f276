"""The figures of docs/security.md and docs/results.md are those of the committed report."""

import re

import pytest
from conftest import ROOT

ROW = re.compile(r"^\| (aid|scenes), ([^|]*?), (\d+), ([^|]*?) \|(.*)\|$", re.MULTILINE)
# Where each column of the documents stands in the report, after images, nodes and method.
COLUMNS = (3, 5, 7, 0, 1, 2)


def reported() -> dict[tuple[str, ...], list[str]]:
    """(images, nodes, method) -> the cells of the report's row."""
    text = (ROOT / "results" / "reference" / "attack.md").read_text(encoding="utf-8")
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in re.split(r"\s*\|\s*", " | ".join(line))] for line in lines]
    return {tuple(row[:3]): [*row[3:], *[""] * 8] for row in rows}


@pytest.mark.parametrize("document", ["docs/security.md", "docs/results.md"])
def test_each_figure_of_the_table_is_in_the_report(document):
    found = ROW.findall((ROOT / document).read_text(encoding="utf-8"))
    assert found
    for images, partition, n_nodes, method, cells in found:
        row = reported()[f"{images}, {partition}", n_nodes, method]
        told = [cell.strip() for cell in cells.split("|")]
        assert told == [row[place].partition("%")[0] + "%" * bool(row[place]) for place in COLUMNS]


def test_what_silence_costs_is_in_the_report():
    text = (ROOT / "results" / "reference" / "silent.md").read_text(encoding="utf-8")
    ratios = re.findall(r"^\| (?:before the run|after round 2) \| \d+ s \| ([\d.]+) \|", text, re.M)
    told = f"[{' and '.join(ratios)} times](../results/reference/silent.md)"
    assert len(ratios) == 2
    assert told in (ROOT / "docs/security.md").read_text(encoding="utf-8")
