"""What helps IST and what does not: one change at a time, on AID, 8 clients in 8 groups."""

from collections.abc import Mapping

from fed_ist.config.toml import Value
from sims.experiments import variant_tables as tables
from sims.experiments import variants
from sims.experiments.case_files import Case
from sims.experiments.cases import configure
from sims.experiments.compare import ANCHORED, REMEDY, ROTATING, USUAL

CLIENTS = 8
SEEDS = 2
FALLING: dict[str, Value] = {"learning-rate-schedule": "cosine"}
PLAIN = "plain IST"
FULL = "anchored IST"
# The changes of each table; all rows of a table are compared with its first.
TABLES: dict[str, dict[str, dict[str, Value]]] = {
    "No statistics sent": {
        PLAIN: {},
        "two hidden layers, as in the paper": {"hidden-layers": 2},
        "three hidden layers with layer norm": {"hidden-layers": 3, "norm": "layer"},
        "layer norm": {"norm": "layer"},
        "batch norm": {"norm": "batch"},
        "hidden sums not rescaled": {"rescale": False},
        "two hidden layers, not rescaled": {"hidden-layers": 2, "rescale": False},
        "rotating groups": ROTATING,
        "the remedies for skew": REMEDY,
        "rotating groups and the remedies": {**ROTATING, **REMEDY},
        "4 groups: two clients in each": {"groups": 4},
        "2 groups: four clients in each": {"groups": 2},
        "random slices that overlap": {"strategy": "feddropout"},
        "1 local epoch": {"local-epochs": 1},
        "1 local epoch, 60 rounds": {"local-epochs": 1, "num-rounds": 60},
        "10 local epochs, 6 rounds": {"local-epochs": 10, "num-rounds": 6},
        "learning rate 0.003": {"learning-rate": 3e-3},
        "learning rate 0.0003": {"learning-rate": 3e-4},
        "a rate that falls from 0.002": {**FALLING, "learning-rate": 2e-3},
        "SGD, learning rate 0.03": {"optimizer": "sgd", "learning-rate": 0.03},
        "batches of 16": {"batch-size": 16},
        "hidden dim 512": {"hidden-dim": 512},
        "hidden dim 2048": {"hidden-dim": 2048},
    },
    "With statistics": {
        FULL: ANCHORED,
        "without the remedies for skew": {"anchor": "ridge"},
        "rotating groups": {**ANCHORED, **ROTATING},
        "a rate that falls from 0.001": {**ANCHORED, **FALLING},
        "a rate that falls from 0.002": {**ANCHORED, **FALLING, "learning-rate": 2e-3},
        "inputs alone, no ridge head": {"anchor": "inputs", **REMEDY},
        "scale of the anchor 2": {**ANCHORED, "anchor-scale": 2.0},
        "scale of the anchor 10": {**ANCHORED, "anchor-scale": 10.0},
        "anchor on random features, 2 MB": {**ANCHORED, "anchor-bytes": 2_000_000},
        "two hidden layers": {**ANCHORED, "hidden-layers": 2},
        "hidden sums not rescaled": {**ANCHORED, "rescale": False},
        "noise of 1 on the statistics": {**ANCHORED, "statistics-noise": 1.0},
        "noise of 10 on the statistics": {**ANCHORED, "statistics-noise": 10.0},
        "10 local epochs, 6 rounds": {**ANCHORED, "local-epochs": 10, "num-rounds": 6},
    },
}


def list_cases(base: Mapping[str, Value]) -> list[Case]:
    """Every change with every seed."""
    return [
        Case("aid", title, CLIENTS, name, configure(base, changes, {"seed": seed}))
        for title, changed in TABLES.items()
        for name, changes in changed.items()
        for seed in range(SEEDS)
    ]


def against_first(row: tables.Row) -> str:
    """The points of accuracy by which a row is above the first one."""
    here, first = (tables.finals(runs).mean() for runs in (row.runs[0], row.first[0]))
    return f"{100 * (here - first):+.1f}"


COMMON: dict[str, Value] = {**USUAL, "groups": CLIENTS, "strategy": "ist"}
EXPERIMENT = variants.Experiment(
    title="What helps IST, and what does not",
    notes=(
        f"AID, {CLIENTS} clients in {CLIENTS} groups, {SEEDS} seeds (mean ± sample standard "
        "deviation). Unless a row says otherwise: one hidden layer of 1024, 20 rounds of 3 local "
        "epochs, Adam at 0.001, batches of 64. Bytes are down and up together, whole messages.",
    ),
    stages=variants.on_aid(COMMON, list_cases),
    tables=[
        tables.Table(
            title=title,
            labels=("change",),
            is_shown=tables.has_first,
            columns={
                "final accuracy": tables.final(),
                "against the first": against_first,
                "best accuracy": tables.best,
                "bytes per client": tables.sent,
            },
            rows={(name,): (tables.Key("aid", title, CLIENTS, name),) for name in changed},
        )
        for title, changed in TABLES.items()
    ],
    same=USUAL,
)
