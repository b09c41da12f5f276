"""What one dishonest node of many can do, with the defaults and without what they defend by.

`python -m sims.attack_table FOLDER`, where FOLDER holds aid-train.parquet and aid-test.parquet;
without it on generated scenes alone. Runs that are done are not repeated; the table goes to
results/attack/attack.md.
"""

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from fed_ist.budgets import show_accuracy
from fed_ist.config import CLOSED_FORMS, Value
from fed_ist.curves import Curve
from fed_ist.errors import InputError
from fed_ist.words import table_line
from sims.attackers import FACTOR, NO_ATTACK, Attack
from sims.case_files import Case
from sims.cases import configure
from sims.compare import ANCHORED, FEWEST, PARTITIONS, ROTATING
from sims.variants import ROOT, run_on, show

SEEDS, GROUPS = 2, 8
NAME = "attack"
TIMES = 1_000_000  # the count that a liar states, over its own
IST: dict[str, Value] = {"strategy": "ist", "groups": GROUPS}
METHODS: dict[str, dict[str, Value]] = {
    "IST": IST,
    "anchored": IST | ANCHORED | ROTATING,
    "fewest bytes": IST | ANCHORED | ROTATING | FEWEST,
    "IST, 2 groups": IST | {"groups": 2},
    "FedAvg": {"strategy": "fedavg"},
    "Fed3R": {"strategy": "fed3r"},
    "FedNCM": {"strategy": "fedncm"},
}
MANY = ("IST", "anchored", "fewest bytes")  # also with more nodes
UNDEFENDED: dict[str, Value] = {"clip-norm": 0.0, "max-weight": 0.0, "dissenters": "keep"}
ATTACKS = {
    "none": NO_ATTACK,
    "opposite": Attack(1, flips=True),
    "opposite, liar": Attack(1, flips=True, times=TIMES),
    "labels": Attack(1, mislabels=True),
    "labels, liar": Attack(1, mislabels=True, times=TIMES),
}
COLUMNS = (  # (defended, attack)
    *((False, name) for name in ("none", "opposite", "labels, liar")),
    *((True, name) for name in ATTACKS),
)
MILD = ("opposite", "labels")
FEW = ((False, "none"), (True, "none"), (True, "opposite, liar"))  # with more nodes
HEADER = (
    *("images", "nodes", "method"),
    *("undefended", "opposite, undefended", "labels and liar, undefended"),
    *("defaults", "opposite", "opposite and liar", "labels", "labels and liar"),
)


def method_of(method: str, defended: bool, attack: str) -> str:
    """How a run is called among the results."""
    return f"{method} | {'defaults' if defended else 'undefended'} | {attack}"


def list_cases(base: Mapping[str, Value], dataset: str, n_nodes: int) -> list[Case]:
    """Every method under every attack; with more than 8 nodes those of `MANY` under what costs
    most, with 64 of them with one seed.
    """
    return [
        Case(
            *(dataset, partition, n_nodes),
            method_of(method, defended, attack),
            configure(base, spread, settings_of(method, defended), {"seed": seed}),
            ATTACKS[attack],
        )
        for seed in range(SEEDS if n_nodes < 64 else 1)
        for partition, spread in PARTITIONS.items()
        for method in (METHODS if n_nodes == 8 else MANY)
        for defended, attack in (COLUMNS if n_nodes == 8 else FEW)
        # On real images the liar stands for the attacker who does not lie.
        if not (dataset == "aid" and defended and attack in MILD)
        # In a closed form there is nothing learnt of which to send the opposite.
        if not (ATTACKS[attack].flips and METHODS[method]["strategy"] in CLOSED_FORMS)
    ]


def settings_of(method: str, defended: bool) -> dict[str, Value]:
    """What a run has beside the defaults."""
    changes = METHODS[method] | ({} if defended else UNDEFENDED)
    if changes["strategy"] in CLOSED_FORMS:
        changes.pop("clip-norm", None)  # which is of no use there
    return changes


def render(curves: Sequence[Curve]) -> str:
    """Markdown: accuracy by images, nodes, method and attack."""
    lines = [
        "# What one dishonest node can do",
        "",
        f"Final test accuracy of {SEEDS} seeds (mean ± sample standard deviation). *Opposite*: the "
        f"first node sends the opposite of what it learnt, times {FACTOR}. *Labels*: it calls each "
        "class by another's name, in what it trains on and in statistics. *Liar*: it also states "
        f"{TIMES:,} times the images that it has (2^29 - 1 at most). *Undefended*: clip-norm = 0, "
        "max-weight = 0, dissenters = 'keep'.",
        "",
        table_line(HEADER),
        table_line(("---",) * len(HEADER)),
    ]
    settings = dict.fromkeys((c.dataset, c.partition, c.clients) for c in curves)
    for dataset, partition, n_nodes in sorted(settings):
        for method in METHODS:
            found = [
                [
                    c.accuracy[-1]
                    for c in curves
                    if (c.dataset, c.partition, c.clients) == (dataset, partition, n_nodes)
                    and c.method == method_of(method, *column)
                ]
                for column in COLUMNS
            ]
            if any(found):
                # A cell is empty where no such run was made.
                cells = [show_accuracy(np.array(each)) if each else "" for each in found]
                lines.append(table_line((f"{dataset}, {partition}", str(n_nodes), method, *cells)))
    return "\n".join(lines) + "\n"


def main() -> int:
    out = ROOT / "results" / NAME
    few: dict[str, Value] = {"hidden-dim": 512, "num-rounds": 8}
    stages: list[tuple[str, dict[str, Value], dict[str, Value], int]] = [
        ("scenes", {"dataset": "scenes"}, few, 8)
    ]
    if len(sys.argv) > 1:
        folder = Path(sys.argv[1]).resolve()
        train, test = (str(folder / f"aid-{split}.parquet") for split in ("train", "test"))
        keys: dict[str, Value] = {"dataset": train, "test-dataset": test}
        stages += [("aid", keys, {}, n_nodes) for n_nodes in (8, 16, 64)]
    curves: list[Curve] = []
    code = 0
    try:
        for dataset, images, common, n_nodes in stages:
            cases = partial(list_cases, dataset=dataset, n_nodes=n_nodes)
            found, failures = run_on(images, out, common, cases)
            curves += found
            code = max(code, show(NAME, render(curves), failures))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return code


if __name__ == "__main__":
    sys.exit(main())
