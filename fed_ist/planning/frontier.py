"""What each option of `budget` has reached on three data sets: the committed comparison, in short.

`python -m fed_ist.planning.frontier FOLDER...` reads the compare.csv of `fed-ist compare` in each
folder and writes frontier.toml, which the package carries; 8 clients, and the mean of all seeds.
"""

import csv
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fed_ist.files.atomic import write_atomic
from fed_ist.planning.budget import Choice

TABLE = Path(__file__).with_suffix(".toml")
CLIENTS = 8
# By the names in `budget.OPTIONS`, the methods of `fed-ist compare`.
METHODS = {
    "linear head": "linear head, few bits",
    "ridge regression, then a linear head": "small",
    "ridge regression, then IST": "balanced",
    "ridge regression, then wide IST": "best",
}


@dataclass(frozen=True)
class Expected:
    """What a choice reached on one data set: accuracy and its deviation over seeds, in percent."""

    dataset: str
    partition: str
    accuracy: float
    deviation: float


def expected(choice: Choice) -> list[Expected]:
    """What a choice reached after as many rounds, on each data set and partition measured."""
    found = []
    for place, methods in tomllib.loads(TABLE.read_text(encoding="utf-8")).items():
        dataset, partition = place.split(", ")
        first = 0 if choice.option.anchor else 1  # round with a result: 0 is the anchor alone
        accuracy, deviation = methods[choice.option.name][choice.n_rounds - first]
        found.append(Expected(dataset, partition, accuracy, deviation))
    return found


def summarise(folders: Sequence[Path]) -> str:
    """The text of frontier.toml: accuracy and deviation after each round, and of anchors alone."""
    lines = ["# Made by python -m fed_ist.planning.frontier: percent, [mean, deviation of seeds]."]
    for folder in folders:
        with (folder / "compare.csv").open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if int(row["clients"]) == CLIENTS]
        for dataset, partition in dict.fromkeys((r["dataset"], r["partition"]) for r in rows):
            here = [r for r in rows if (r["dataset"], r["partition"]) == (dataset, partition)]
            lines += ["", f'["{dataset}, {partition}"]']
            lines += [f'"{name}" = {_course(here, method)}' for name, method in METHODS.items()]
    return "\n".join(lines) + "\n"


def _course(rows: Sequence[Mapping[str, str]], method: str) -> list[list[float]]:
    own = [row for row in rows if row["method"] == method]
    by_seed = [
        [100 * float(row["accuracy"]) for row in own if row["seed"] == seed]
        for seed in dict.fromkeys(row["seed"] for row in own)
    ]
    values = np.array(by_seed)
    deviation = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1])
    pairs = zip(values.mean(axis=0), deviation, strict=True)
    return [[round(float(mean), 1), round(float(spread), 1)] for mean, spread in pairs]


if __name__ == "__main__":
    write_atomic(TABLE, summarise([Path(name) for name in sys.argv[1:]]).encode())
