"""Where the seconds of a round go: with Flower, and in one plain process that only computes."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from flwr.serverapp import Grid

from clients.work import train_slice
from fed_ist.classifier.dealing import partition_neurons
from fed_ist.classifier.layout import Params, hidden_widths
from fed_ist.classifier.slices import Merger, extract
from fed_ist.config.derive import draw_classifier
from fed_ist.config.run_config import RunConfig
from fed_ist.rng import generator
from fed_ist.traffic import protocol
from fed_ist.traffic.ledger import Ledger
from fed_ist.training.local import evaluate
from sims.benchmarks.round_data import CLASS_NAMES, EMBED_DIM, N_CLASSES, read_examples, share_of
from sims.benchmarks.stopwatch import Seconds, Stopwatch
from strategies.core.errands import Errands
from strategies.core.method import Method
from strategies.federated import FederatedStrategy
from strategies.ist import Ist

SLICING, SERIALISING, TRAINING = "slicing", "serialising", "training"
MERGING, EVALUATION, FLOWER = "merging", "evaluation", "flower"
STEPS = (SLICING, SERIALISING, TRAINING, MERGING, EVALUATION, FLOWER)


@dataclass
class TimedStrategy(FederatedStrategy):
    """A strategy whose server measures what it spends its time on."""

    watch: Stopwatch = field(default_factory=Stopwatch)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._time(SLICING, self, "ask")
        self._time(SERIALISING, self.post, "enter")
        self._time(MERGING, self.merging, "leave_out_dissenters")
        make_merger = self.merging.merger

        def timed_merger(*arguments: Any) -> Any:
            merger = make_merger(*arguments)
            self._time(MERGING, merger, "add", "merged")
            return merger

        vars(self.merging)["merger"] = timed_merger

    def _deal(self, method: Method, server_round: int, params: Params, grid: Grid) -> Errands:
        errands = super()._deal(method, server_round, params, grid)
        self._time(SERIALISING, errands, "message", "read")
        return errands

    def _time(self, step: str, owner: object, *names: str) -> None:
        """Have the watch run on a step of the round during these methods of an object."""
        for name in names:
            vars(owner)[name] = self._timed(step, getattr(owner, name))

    def _timed(self, step: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            with self.watch.on(step):
                return method(*arguments)

        return timed


def timed_rounds(grid: Grid, config: RunConfig, folder: Path, n_cores: int) -> Seconds:
    """The median seconds of a round of IST over a grid, by step and as `round`.

    n_cores: how many clients train at the same time; the seconds of training are their sum over
    that. folder: for the ledger.
    """
    ledger = Ledger(folder / "ledger.csv")
    strategy = TimedStrategy(config, CLASS_NAMES, EMBED_DIM, ledger, Ist(config))
    strategy.require_nodes(grid)
    rounds: list[Seconds] = []
    last = time.perf_counter()

    def record(server_round: int, params: Params) -> None:
        nonlocal last
        with strategy.watch.on(EVALUATION):
            evaluate(params, *read_examples(Path(config.dataset), "test"))
        now, seconds = time.perf_counter(), strategy.watch.take()
        if server_round > 1:  # the first round finds cold caches
            seconds[TRAINING] = strategy.post.counts.compute_s / n_cores
            seconds["round"] = now - last
            rounds.append(seconds)
        last = now

    strategy.run(grid, record)
    ledger.close()
    found = {key: median(each.get(key, 0.0) for each in rounds) for key in (*STEPS, "round")}
    found[FLOWER] = max(0.0, found["round"] - sum(found[step] for step in STEPS if step != FLOWER))
    return found


def plain_round(config: RunConfig, n_nodes: int) -> Seconds:
    """The median seconds of the same sums in this process, client after client: the limit."""
    folder, rng = Path(config.dataset), generator(config.seed, "round", 0)
    params = draw_classifier(config, EMBED_DIM, N_CLASSES)
    rounds: list[Seconds] = []
    for server_round in range(1, config.num_rounds + 1):
        watch, began = Stopwatch(), time.perf_counter()
        with watch.on(SLICING):
            widths = hidden_widths(params)
            subnets = partition_neurons(widths, [1 / n_nodes] * n_nodes, rng)
            slices = [extract(params, subnet) for subnet in subnets]
        merger = Merger(params, subnets)
        for number, (subnet, slice_) in enumerate(zip(subnets, slices, strict=True)):
            with watch.on(TRAINING):
                examples = share_of(number, n_nodes, folder)
                task = {protocol.ROUND: server_round, protocol.SCALE: 1 / subnet.share(widths)}
                trained, _ = train_slice(slice_, {}, _always(examples), task, number, config)
            with watch.on(MERGING):
                merger.add(subnet, trained, len(examples[1]))
        with watch.on(MERGING):
            params = merger.merged()
        with watch.on(EVALUATION):
            evaluate(params, *read_examples(folder, "test"))
        if server_round > 1:
            rounds.append(watch.take() | {"round": time.perf_counter() - began})
    return {key: median(each[key] for each in rounds) for key in rounds[0]}


def _always(examples: Any) -> Callable[[int], Any]:
    return lambda _: examples
