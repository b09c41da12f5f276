"""What sizing slices by each node's capacity gives: AID, half of the nodes slow, half fast.

`python -m sims.capacity_table FOLDER`, where FOLDER holds aid-train.parquet and aid-test.parquet.
The seconds of a round are those of its slowest node by the formula of `fed_ist.capacity`, whose
boards are rough; the accuracies are measured. The table goes to results/reference/capacity.md.
"""

import math
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from tqdm import tqdm

from fed_ist.capacity import PROFILES, largest_slice, round_s
from fed_ist.config.derive import encoder_spec, plan_workload, simulated_device
from fed_ist.config.parsing import parse_config
from fed_ist.config.run_config import RunConfig
from fed_ist.config.toml import Value, read_defaults
from fed_ist.dealing import equal_shares, partition_units
from fed_ist.durable import write_atomic
from fed_ist.encoder import create_encoder
from fed_ist.paths import cache_dir
from sims.experiment import run_case
from sims.shared import Shared, embed_shared, load_shared, open_shared

NODES, ROUNDS, SEEDS = 8, 20, 3
DEADLINE_S = 1.5
BOARDS = ("pi-zero", "jetson-nano")  # taken in turn
SETTINGS: Mapping[str, dict[str, Value]] = {
    "each node its own": {"round-deadline-s": DEADLINE_S, "devices": ",".join(BOARDS)},
    "all as the slowest": {"round-deadline-s": DEADLINE_S, "devices": BOARDS[0]},
    "equal, no deadline": {},
}


def dealt_neurons(config: RunConfig, shared: Shared) -> list[int]:
    """Neurons that each node gets in a round, by node."""
    capacities = []
    for i in range(NODES):
        capacity = 1.0
        if device := simulated_device(config, i):
            work = plan_workload(config, shared.embed_dim, len(shared.class_names), _most(shared))
            capacity = largest_slice(device, work, DEADLINE_S) / config.hidden_dim
        capacities.append(capacity)
    widths = {"h1": config.hidden_dim}
    dealt = partition_units(widths, equal_shares(capacities), np.random.default_rng(0))
    return [len(subnet.units["h1"]) for subnet in dealt]


def slowest_s(config: RunConfig, shared: Shared, neurons: list[int]) -> float:
    """Seconds of a round, until the last node has answered."""
    work = plan_workload(config, shared.embed_dim, len(shared.class_names), _most(shared))
    return max(round_s(PROFILES[BOARDS[i % 2]], work, n) for i, n in enumerate(neurons))


def _most(shared: Shared) -> int:
    """Images of the node that has the most."""
    return math.ceil(len(shared.train[0].labels) / NODES)


def percent(values: list[float]) -> str:
    """Mean and standard deviation over the seeds."""
    return f"{100 * np.mean(values):.1f}% ± {100 * np.std(values, ddof=1):.1f}"


def main() -> int:
    data = Path(sys.argv[1]).resolve()
    root = Path(__file__).resolve().parent.parent
    base = read_defaults(root / "pyproject.toml") | {
        "dataset": str(data / "aid-train.parquet"),
        "test-dataset": str(data / "aid-test.parquet"),
        "hidden-dim": 1024,
        "hidden-layers": 1,
        "num-rounds": ROUNDS,
    }
    config = parse_config(base)
    encoder = create_encoder(encoder_spec(config), cache_dir(""))
    shared = load_shared(embed_shared(config, encoder, open_shared(config, 0)))
    budget_s = ROUNDS * DEADLINE_S
    lines = [
        f"| slices | neurons, {BOARDS[0]} | {BOARDS[1]} | seconds a round | accuracy after "
        f"{ROUNDS} rounds | after {budget_s:g} s |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    progress = tqdm(total=len(SETTINGS) * SEEDS, desc="runs")
    for name, changes in SETTINGS.items():
        config = parse_config(base | changes)
        neurons = dealt_neurons(config, shared)
        seconds = slowest_s(config, shared, neurons)
        in_time = min(ROUNDS, math.floor(budget_s / seconds))
        last, at_budget = [], []
        for seed in range(SEEDS):
            outcome = run_case(parse_config(base | changes | {"seed": seed}), shared, NODES)
            last.append(outcome.accuracy[-1])
            at_budget.append(outcome.accuracy[in_time - 1])
            progress.update()
        lines.append(
            f"| {name} | {neurons[0]} | {neurons[1]} | {seconds:.2f} | {percent(last)} | "
            f"{percent(at_budget)} ({in_time} rounds) |"
        )
    progress.close()
    table = "\n".join(lines) + "\n"
    write_atomic(root / "results" / "reference" / "capacity.md", table.encode())
    print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
