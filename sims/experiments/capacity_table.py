"""What slices by each node's capacity give: AID, half of the nodes slow, half of them fast.

The seconds of a round are computed: those of its slowest node, by the formula of
`fed_ist.training.workload`, on boards whose figures are rough. The accuracies are measured.
"""

import math
from collections.abc import Mapping

import numpy as np

from fed_ist.classifier.dealing import equal_shares, partition_neurons
from fed_ist.comparisons.budgets import show_accuracy
from fed_ist.config.derive import plan_workload, simulated_device
from fed_ist.config.run_config import RunConfig
from fed_ist.config.toml import Value, read_defaults
from fed_ist.training.boards import PROFILES
from fed_ist.training.workload import largest_slice, slice_round_s
from sims.experiments import variant_tables as tables
from sims.experiments import variants
from sims.experiments.case_files import Case
from sims.experiments.cases import configure
from sims.experiments.shared_embeddings import Shared

NODES, ROUNDS, SEEDS = 8, 20, 3
DEADLINE_S = 1.5
BUDGET_S = ROUNDS * DEADLINE_S
COMMON: dict[str, Value] = {"hidden-dim": 1024, "hidden-layers": 1, "num-rounds": ROUNDS}
BOARDS = ("pi-zero", "jetson-nano")  # nodes take these in turn
SETTINGS: Mapping[str, dict[str, Value]] = {
    "each node its own": {"round-deadline-s": DEADLINE_S, "devices": ",".join(BOARDS)},
    "all as the slowest": {"round-deadline-s": DEADLINE_S, "devices": BOARDS[0]},
    "equal, no deadline": {},
}


def dealt_neurons(config: RunConfig, shared: Shared) -> list[int]:
    """How many neurons each node gets in a round, in the order of nodes."""
    capacities = []
    for i in range(NODES):
        capacity = 1.0
        if device := simulated_device(config, i):
            work = plan_workload(config, shared.embed_dim, len(shared.class_names), _most(shared))
            capacity = largest_slice(device, work, DEADLINE_S) / config.hidden_dim
        capacities.append(capacity)
    widths = {"h1": config.hidden_dim}
    dealt = partition_neurons(widths, equal_shares(capacities), np.random.default_rng(0))
    return [len(subnet.neurons["h1"]) for subnet in dealt]


def slowest_s(config: RunConfig, shared: Shared, neurons: list[int]) -> float:
    """The seconds of a round until the last node has answered. neurons: of each node."""
    work = plan_workload(config, shared.embed_dim, len(shared.class_names), _most(shared))
    return max(slice_round_s(PROFILES[BOARDS[i % 2]], work, n) for i, n in enumerate(neurons))


def _most(shared: Shared) -> int:
    """The number of images of the node that has the most."""
    return math.ceil(len(shared.train[0].labels) / NODES)


def list_cases(base: Mapping[str, Value]) -> list[Case]:
    """Every setting with every seed."""
    return [
        Case("aid", "iid", NODES, name, configure(base, changes, {"seed": seed}))
        for name, changes in SETTINGS.items()
        for seed in range(SEEDS)
    ]


def workload(row: tables.Row) -> tuple[list[int], float]:
    """(the neurons of each node, the seconds of a round) in a row's setting."""
    assert row.images is not None
    config = configure(
        read_defaults(variants.ROOT / "pyproject.toml"), COMMON, SETTINGS[row.labels[0]]
    )
    neurons = dealt_neurons(config, row.images)
    return neurons, slowest_s(config, row.images, neurons)


def in_time(row: tables.Row) -> str:
    """The accuracy after the time that `ROUNDS` rounds within the deadline take."""
    n_rounds = min(ROUNDS, math.floor(BUDGET_S / workload(row)[1]))
    reached = np.array([curve.accuracy[n_rounds - 1] for curve in row.runs[0]])
    return f"{show_accuracy(reached)} ({n_rounds} rounds)"


EXPERIMENT = variants.Experiment(
    title="Slices by what each node can train in time",
    notes=(
        f"AID, {NODES} nodes, half of them like a {BOARDS[0]} and half like a {BOARDS[1]}, "
        f"{SEEDS} seeds (mean ± sample standard deviation). Seconds are computed, accuracies "
        "measured.",
    ),
    stages=variants.on_aid(COMMON, list_cases),
    tables=[
        tables.Table(
            labels=("slices",),
            columns={
                f"neurons, {BOARDS[0]}": lambda row: str(workload(row)[0][0]),
                BOARDS[1]: lambda row: str(workload(row)[0][1]),
                "seconds a round": lambda row: f"{workload(row)[1]:.2f}",
                f"accuracy after {ROUNDS} rounds": tables.final(),
                f"after {BUDGET_S:g} s": in_time,
            },
            rows={(name,): (tables.Key("aid", "iid", NODES, name),) for name in SETTINGS},
        )
    ],
    same=COMMON,
)
