"""The card of the default encoder says what the committed probes say."""

import csv
import re

import numpy as np
import pytest
from conftest import ROOT

from fed_ist.encoder.spec import BUNDLED_ENCODER

PROBES = ROOT / "results/reference/probe-distil"
COLUMNS = [("none", "0.0"), ("fixed", "0.5"), ("grid", "0.5"), ("fixed", "0.75"), ("grid", "0.75")]


def linear(folder: str) -> dict[tuple[str, str], float]:
    """The accuracy of the linear probe in percent, by mask and ratio."""
    with (PROBES / folder / "probe.csv").open(encoding="utf-8") as file:
        return {
            (row["mask"], row["mask_ratio"]): 100 * float(row["linear"])
            for row in csv.DictReader(file)
        }


@pytest.mark.parametrize(("name", "folder"), [("AID", "aid"), ("EuroSAT", "eurosat")])
def test_the_table_is_the_mean_and_deviation_of_three_choices_of_images(name, folder):
    card = (ROOT / f"fed_ist/encoder/weights/{BUNDLED_ENCODER}.md").read_text(encoding="utf-8")
    found = re.search(rf"^\| {name} \|(.*)\|$", card, re.M)
    assert found
    rows = [linear(f"{folder}-{seed}") for seed in range(3)]
    expected = [
        f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}"
        for column in COLUMNS
        for values in [[row[column] for row in rows]]
    ]
    assert [cell.strip() for cell in found.group(1).split("|")] == expected


def test_all_training_images_of_aid_are_told_as_measured():
    card = (ROOT / f"fed_ist/encoder/weights/{BUNDLED_ENCODER}.md").read_text(encoding="utf-8")
    measured = linear("aid-all")
    told = re.search(
        r"all 8,498 training images of AID it has (.*?), in the same", card.replace("\n  ", " ")
    )
    assert told
    assert re.findall(r"[\d.]+(?=%)", told.group(1)) == [
        f"{measured[column]:.1f}" for column in COLUMNS
    ]
