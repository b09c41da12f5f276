"""One run over shared embeddings, in process, with the real strategy, ClientApp and ledger."""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flwr.common.logger import FLOWER_LOGGER

from fed_ist.classifier.layout import Params
from fed_ist.config.run_config import RunConfig
from fed_ist.statistics.anchors import WEIGHT
from fed_ist.traffic.ledger import Ledger
from fed_ist.training.local import evaluate
from sims.experiments.attackers import NO_ATTACK, Attack, create_attacked
from sims.experiments.shared_embeddings import Shared, SharedData
from sims.local_grid import LocalGrid
from strategies import create_strategy


@dataclass(frozen=True)
class Outcome:
    """What a run measured: one entry after each round.

    There is also one before the first round if an anchor or a solution can be evaluated then.
    client_bytes: message bytes to and from a node so far, the mean over nodes. link_bytes: the same
    as IP packets of a deployed node, estimated. compute_s: seconds that a node trained in all, the
    mean over nodes. multiply_adds: of a node's training in all, the mean over nodes.
    """

    client_bytes: tuple[int, ...]
    link_bytes: tuple[int, ...]
    accuracy: tuple[float, ...]
    compute_s: float
    multiply_adds: float


@contextmanager
def _quiet_flower() -> Iterator[None]:
    """Flower's log without what is usual: there are hundreds of runs."""
    level = FLOWER_LOGGER.level
    FLOWER_LOGGER.setLevel(logging.WARNING)
    try:
        yield
    finally:
        FLOWER_LOGGER.setLevel(level)


def run_case(
    config: RunConfig, shared: Shared, n_nodes: int, attack: Attack = NO_ATTACK
) -> Outcome:
    """Make a run on `n_nodes` simulated nodes; raises `InputError` where a run would.

    attack: what some of the nodes do.
    """
    client_bytes: list[int] = []
    link_bytes: list[int] = []
    accuracies: list[float] = []
    compute_s = multiply_adds = 0.0
    with _quiet_flower(), tempfile.TemporaryDirectory(prefix="fed-ist-case-") as folder:
        ledger = Ledger(Path(folder, "ledger.csv"))
        strategy = create_strategy(
            config,
            shared.class_names,
            shared.embed_dim,
            ledger,
            decorrelated=shared.decorrelated,
        )
        app = create_attacked(SharedData(shared.train, config, n_nodes), attack)
        grid = LocalGrid(app, config, list(range(1, n_nodes + 1)))
        strategy.require_nodes(grid)

        def record(server_round: int, params: Params) -> None:
            test = shared.test
            nonlocal compute_s, multiply_adds
            if server_round == 0 and strategy.num_rounds and WEIGHT not in params:
                return  # nothing is learnt yet, so this is no result of the method
            accuracy, _ = evaluate(params, test.values, test.labels)
            accuracies.append(round(accuracy, 6))
            client_bytes.append(round(sum(ledger.message_bytes.values()) / n_nodes))
            link_bytes.append(round(sum(ledger.link_bytes.values()) / n_nodes))
            if server_round:
                compute_s += strategy.post.counts.compute_s
                multiply_adds += strategy.post.counts.multiply_adds

        strategy.run(grid, record)
        ledger.close()
    return Outcome(
        tuple(client_bytes),
        tuple(link_bytes),
        tuple(accuracies),
        compute_s / n_nodes,
        multiply_adds / n_nodes,
    )
