"""What local differential privacy costs: AID, 8 clients, by the epsilon of a round.

`python -m sims.privacy_table FOLDER`, where FOLDER holds aid-train.parquet and aid-test.parquet.
Runs that are done are not repeated; the table goes to results/privacy/privacy.md.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from fed_ist.config import Value
from fed_ist.curves import Curve
from fed_ist.privacy import epsilon_after, noise_deviation
from fed_ist.words import table_line
from sims.case_files import Case
from sims.cases import configure
from sims.variants import run_variants

CLIENTS, ROUNDS = 8, 10
COMMON: dict[str, Value] = {"num-rounds": ROUNDS, "hidden-dim": 256}
CLIP_NORM, DELTA = 1.0, 1e-5
EPSILONS = (None, 1e5, 1e4, 1e3, 1e2, 1e1)
METHODS: dict[str, dict[str, Value]] = {
    "FedAvg": {"strategy": "fedavg"},
    "IST": {"strategy": "ist", "groups": CLIENTS},
    "IST with an anchor": {"strategy": "ist", "groups": CLIENTS, "anchor": "ridge"},
}


def list_cases(base: Mapping[str, Value]) -> list[Case]:
    """Every method without noise and with every epsilon."""
    cases = []
    for method, how in METHODS.items():
        for epsilon in EPSILONS:
            private: dict[str, Value] = {}
            if epsilon is not None:
                private = {"dp-clip-norm": CLIP_NORM, "dp-epsilon": epsilon, "dp-delta": DELTA}
            config = configure(base, how, private, {})
            cases.append(Case("aid", "iid", CLIENTS, f"{method} | {epsilon}", config))
    return cases


def render(curves: Sequence[Curve]) -> str:
    """Markdown: a row for each epsilon, a column for each method."""
    accuracy = {curve.method: f"{100 * curve.accuracy[-1]:.1f}%" for curve in curves}
    header = ("epsilon of a round", f"of {ROUNDS} rounds", "sigma", *METHODS)
    lines = [
        "# What local differential privacy costs",
        "",
        f"AID, {CLIENTS} clients, IID, {ROUNDS} rounds of 3 local epochs, one hidden layer of "
        f"{COMMON['hidden-dim']}, one seed; final test accuracy. Each client clips what it has "
        f"learnt to a length of {CLIP_NORM:g} and adds noise of deviation sigma to every number: "
        f"(epsilon, {DELTA:g}) privacy for all its images together. The anchor's statistics have "
        "no noise here.",
        "",
        table_line(header),
        table_line(("---",) * len(header)),
    ]
    for epsilon in EPSILONS:
        cells = ["no privacy", "", "0"]
        if epsilon is not None:
            total = epsilon_after(ROUNDS, epsilon, DELTA)
            sigma = noise_deviation(CLIP_NORM, epsilon, DELTA)
            cells = [f"{epsilon:,.0f}", f"{total:,.0f}", f"{sigma:.3g}"]
        found = [accuracy.get(f"{method} | {epsilon}", "") for method in METHODS]
        lines.append(table_line((*cells, *found)))
    return "\n".join(lines) + "\n"


def main() -> int:
    return run_variants(Path(sys.argv[1]).resolve(), "privacy", COMMON, list_cases, render)


if __name__ == "__main__":
    sys.exit(main())
