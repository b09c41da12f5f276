"""What one dishonest node among many can do, with the defaults and without their defences.

The experiment is made on AID, if its images are at hand, and on generated scenes.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from fed_ist.config.methods import CLOSED_FORMS
from fed_ist.config.toml import Value
from sims.experiments import variant_tables as tables
from sims.experiments import variants
from sims.experiments.attackers import FACTOR, NO_ATTACK, Attack
from sims.experiments.case_files import Case
from sims.experiments.cases import configure
from sims.experiments.compare import ANCHORED, FEW_BITS, PARTITIONS, ROTATING, USUAL

SEEDS, GROUPS = 2, 8
TIMES = 1_000_000  # how many times its own count a liar states
IST: dict[str, Value] = {"strategy": "ist", "groups": GROUPS}
METHODS: dict[str, dict[str, Value]] = {
    "IST": IST,
    "anchored": IST | ANCHORED | ROTATING,
    "few bits": IST | ANCHORED | ROTATING | FEW_BITS | {"statistics-codec": "int8"},
    "IST, 2 groups": IST | {"groups": 2},
    "FedAvg": {"strategy": "fedavg"},
    "Fed3R": {"strategy": "fed3r"},
    "FedNCM": {"strategy": "fedncm"},
}
MANY = ("IST", "anchored", "few bits")  # run with more nodes too
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
FEW = ((False, "none"), (True, "none"), (True, "opposite, liar"))  # run with more nodes
HEADERS = (
    *("undefended", "opposite, undefended", "labels and liar, undefended"),
    *("defaults", "opposite", "opposite and liar", "labels", "labels and liar"),
)
FEW_ROUNDS: dict[str, Value] = {"hidden-dim": 512, "num-rounds": 8}
AID_NODES = (8, 16, 64)


def method_of(method: str, defended: bool, attack: str) -> str:
    """The name of a run's method among the results."""
    return f"{method} | {'defaults' if defended else 'undefended'} | {attack}"


def list_cases(base: Mapping[str, Value], dataset: str, n_nodes: int) -> list[Case]:
    """Every method under every attack.

    With more than 8 nodes they are the methods of `MANY` under the attacks that cost most, and with
    64 nodes of one seed.
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
        # On real images, attackers that lie are taken for those that do not.
        if not (dataset == "aid" and defended and attack in MILD)
        # In a closed form nothing is learnt, so there is no opposite of it to send.
        if not (ATTACKS[attack].flips and METHODS[method]["strategy"] in CLOSED_FORMS)
    ]


def settings_of(method: str, defended: bool) -> dict[str, Value]:
    """The settings of a run that differ from the defaults."""
    changes = METHODS[method] | ({} if defended else UNDEFENDED)
    if changes["strategy"] in CLOSED_FORMS:
        changes.pop("clip-norm", None)  # has no effect there
    return changes


def list_stages(folder: Path | None) -> list[variants.Stage]:
    """Scenes first, which take minutes; then AID, if there is a folder with its images."""
    cases = partial(list_cases, dataset="scenes", n_nodes=8)
    stages = [variants.Stage("scenes", {**USUAL, **FEW_ROUNDS, "dataset": "scenes"}, cases)]
    for n_nodes in AID_NODES if folder else ():
        cases = partial(list_cases, dataset="aid", n_nodes=n_nodes)
        stages.append(variants.Stage("aid", USUAL | variants.real_images(folder, "aid"), cases))
    return stages


EXPERIMENT = variants.Experiment(
    title="What one dishonest node can do",
    notes=(
        f"Final test accuracy of {SEEDS} seeds (mean ± sample standard deviation). *Opposite*: the "
        f"first node sends the opposite of what it learnt, times {FACTOR}. *Labels*: it calls each "
        "class by another's name, in what it trains on and in statistics. *Liar*: it also states "
        f"{TIMES:,} times the images that it has (2^29 - 1 at most). *Undefended*: clip-norm = 0, "
        "max-weight = 0, dissenters = 'keep'.",
    ),
    stages=list_stages,
    tables=[
        tables.Table(
            labels=("images", "nodes", "method"),
            columns={header: tables.final(i) for i, header in enumerate(HEADERS)},
            rows={
                (f"{dataset}, {partition}", str(n_nodes), method): tuple(
                    tables.Key(dataset, partition, n_nodes, method_of(method, *column))
                    for column in COLUMNS
                )
                for dataset, some in (("aid", AID_NODES), ("scenes", (8,)))
                for partition in sorted(PARTITIONS)
                for n_nodes in some
                for method in METHODS
            },
        )
    ],
    same=USUAL,
)
