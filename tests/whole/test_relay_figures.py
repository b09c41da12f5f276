"""What documents say of the relay is in the committed reports."""

import re

import pytest
from conftest import ROOT

REFERENCE = ROOT / "results" / "reference"


def rows(name: str) -> dict[str, list[str]]:
    """The cells of a report's tables, by their first."""
    found = re.findall(r"^\| ([^|]+?) \|(.*)\|$", (REFERENCE / name).read_text(), re.M)
    return {first: [cell.strip() for cell in rest.split("|")] for first, rest in found}


def document(name: str) -> str:
    return " ".join((ROOT / "docs" / name).read_text(encoding="utf-8").split())


@pytest.mark.parametrize("what", ["waiting, an hour", "a linear head", "IST in 4 bits"])
def test_what_a_nodes_link_carries_is_in_the_report(what):
    (cells,) = (row for first, row in rows("relay.md").items() if first.startswith(what))
    plain, relayed, _ = cells
    assert plain in document("deploy.md")
    assert relayed in document("deploy.md")


def test_what_a_round_takes_is_in_the_report():
    plain, relayed, _ = rows("relay.md")["a round of the linear head"]
    assert f"took {relayed} with it and {plain} without" in document("speed.md")


def test_what_waiting_devices_take_is_in_the_report():
    *_, cores, memory, cut_off = rows("waiting.md")["2000"]
    said = f"| {float(cores):.2f} of a core, and {memory} of the relay |"
    assert said in document("scale.md")
    assert cut_off == "0"
