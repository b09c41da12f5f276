"""What robust merging is worth: AID, 8 clients, two of which send harm, by way of merging.

`python -m sims.attack_table FOLDER`, where FOLDER holds aid-train.parquet and aid-test.parquet.
Runs that are done are not repeated; the table goes to results/attacks/attacks.md.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fed_ist.config import Value
from fed_ist.curves import Curve
from fed_ist.pages import show_accuracy, table_line
from sims.attackers import FACTOR
from sims.case_files import Case
from sims.cases import configure
from sims.variants import run_variants

CLIENTS, ATTACKERS, SEEDS = 8, 2, 2
COMMON: dict[str, Value] = {"num-rounds": 10, "hidden-dim": 256}
METHODS: dict[str, dict[str, Value]] = {
    "FedAvg": {"strategy": "fedavg"},
    "IST, 2 groups": {"strategy": "ist", "groups": 2},
    "IST, 8 groups": {"strategy": "ist", "groups": 8},
}
CLIPPED: dict[str, Value] = {"clip-norm": 1.0}
TRIMMED: dict[str, Value] = {"aggregation": "trimmed-mean", "trim-share": ATTACKERS / CLIENTS}
MERGING: dict[str, dict[str, Value]] = {
    "mean": {},
    "mean, clip-norm = 1": CLIPPED,
    "trimmed-mean": TRIMMED,
    "trimmed-mean, clip-norm = 1": TRIMMED | CLIPPED,
}
HEADER = ("method", "merging", "no attackers", f"{ATTACKERS} attackers")


def list_cases(base: Mapping[str, Value]) -> list[Case]:
    """Every method with every way of merging that goes with it, with attackers and without."""
    return [
        Case(
            "aid",
            "iid",
            CLIENTS,
            f"{method} | {merging} | {attackers}",
            configure(base, how, changes, {"seed": seed}),
            attackers,
        )
        for seed in range(SEEDS)
        for method, how in METHODS.items()
        for merging, changes in MERGING.items()
        for attackers in (0, ATTACKERS)
        if how.get("groups") != CLIENTS or "aggregation" not in changes
    ]


def render(curves: Sequence[Curve]) -> str:
    """Markdown: accuracy by method and merging."""
    lines = [
        "# What two of eight clients can do",
        "",
        f"AID, {CLIENTS} clients, IID, {COMMON['num-rounds']} rounds of 3 local epochs, one hidden "
        f"layer of {COMMON['hidden-dim']}; final test accuracy of {SEEDS} seeds (mean ± sample "
        f"standard deviation). Attackers send the opposite of what they learnt, times {FACTOR}. "
        "trimmed-mean leaves out a quarter of the values of each weight at each end; clip-norm = 1 "
        "cuts changes at their median.",
        "",
        table_line(HEADER),
        table_line(("---",) * len(HEADER)),
    ]
    for method in METHODS:
        for merging in MERGING:
            found = [
                [
                    c.accuracy[-1]
                    for c in curves
                    if c.method == f"{method} | {merging} | {attackers}"
                ]
                for attackers in (0, ATTACKERS)
            ]
            if all(found):
                accuracies = [show_accuracy(np.array(each)) for each in found]
                lines.append(table_line((method, merging, *accuracies)))
    return "\n".join(lines) + "\n"


def main() -> int:
    return run_variants(Path(sys.argv[1]).resolve(), "attacks", COMMON, list_cases, render)


if __name__ == "__main__":
    sys.exit(main())
