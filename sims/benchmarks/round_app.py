"""The Flower app of `fed-ist bench round`: rounds of IST, of Flower's FedAvg, and of nothing.

Its run config is that of a run, but `dataset` is a folder of `round_data`, and `name` in
`results-dir` is a JSON file for what was measured.
"""

import json
import os
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from threadpoolctl import threadpool_limits

from clients.app import create_app
from clients.node import identify
from clients.work import train_slice
from fed_ist.config.derive import draw_classifier
from fed_ist.config.parsing import parse_config
from fed_ist.config.run_config import RunConfig
from fed_ist.files.atomic import write_atomic
from fed_ist.traffic import protocol
from fed_ist.training.local import evaluate
from sims.benchmarks.round_data import EMBED_DIM, N_CLASSES, DrawnData, read_examples, share_of
from sims.benchmarks.round_steps import plain_round, timed_rounds
from sims.local_grid import LocalGrid
from strategies.core.exchange import exchange
from strategies.core.wire import from_record, to_record

EMPTY = "query.empty"
MANY_NODES = 64  # with more nodes, one round of FedAvg is measured, after a first
TOO_MANY_NODES = 256  # with more nodes, FedAvg would take hours, and all memory
PLAIN = "arrays"  # the name that Flower's strategies give to parameters

ist_nodes = create_app(DrawnData())
node = ClientApp()
app = ServerApp()


@node.query()
def prepare(message: Message, context: Context) -> Message:
    """A node's answer to being prepared, as the app gives it."""
    return ist_nodes(message, context)


@node.query("empty")
def nothing(message: Message, context: Context) -> Message:
    """An empty answer to an empty message."""
    return Message(RecordDict(), reply_to=message)


@node.train()
def train(message: Message, context: Context) -> Message:
    """The same training of a slice of ours, or of the whole classifier of Flower's FedAvg."""
    if PLAIN not in message.content.array_records:
        return ist_nodes(message, context)
    config, me = parse_config(context.run_config), identify(context)
    examples = share_of(me.number, me.n_nodes, Path(config.dataset))
    params = from_record(message.content.array_records[PLAIN])
    server_round = message.content.config_records["config"]["server-round"]
    task = {protocol.ROUND: server_round, protocol.SCALE: 1.0}
    trained, found = train_slice(params, {}, lambda _: examples, task, me.number, config)
    metrics = MetricRecord({"num-examples": found[protocol.NUM_EXAMPLES]})
    return Message(RecordDict({PLAIN: to_record(trained), "metrics": metrics}), reply_to=message)


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Measure all kinds of rounds, and write the JSON file."""
    config = parse_config(context.run_config)
    node_ids = list(grid.get_node_ids())
    n_nodes, n_cores = len(node_ids), os.cpu_count() or 1
    with tempfile.TemporaryDirectory(prefix="fed-ist-round-") as name:
        folder = Path(name)
        found = {"flower": timed_rounds(grid, config, folder, min(n_cores, n_nodes))}
        found["empty"] = {"round": empty_round(grid, node_ids, config)}
        if n_nodes <= TOO_MANY_NODES:
            found["fedavg"] = {"round": flower_fedavg(grid, n_nodes, config)}
        # On one core, as each actor of the simulation: small matrices are slower on several.
        with threadpool_limits(1):
            own = LocalGrid(ist_nodes, config, range(1, n_nodes + 1))
            (folder / "inline").mkdir()
            found["inline"] = timed_rounds(own, config, folder / "inline", 1)
            found["plain"] = plain_round(config, n_nodes)
    text = json.dumps({"nodes": n_nodes, "cores": n_cores, "seconds": found})
    write_atomic(Path(config.results_dir, config.name), text.encode())


def empty_round(grid: Grid, node_ids: list[int], config: RunConfig) -> float:
    """The median seconds of a round in which all nodes get and answer an empty message."""
    seconds = []
    for _ in range(config.num_rounds):
        began = time.perf_counter()
        messages = [
            Message(RecordDict(), dst_node_id=i, message_type=EMPTY, ttl=config.round_timeout_s)
            for i in node_ids
        ]
        n_replies = sum(1 for _ in exchange(grid, messages, config.round_timeout_s))
        assert n_replies == len(node_ids)
        seconds.append(time.perf_counter() - began)
    return median(seconds)


def flower_fedavg(grid: Grid, n_nodes: int, config: RunConfig) -> float:
    """The median seconds of a round of Flower's own FedAvg on the same classifier."""
    ends: list[float] = []
    num_rounds = config.num_rounds if n_nodes <= MANY_NODES else 2

    def evaluate_fn(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        accuracy, _ = evaluate(from_record(arrays), *read_examples(Path(config.dataset), "test"))
        ends.append(time.perf_counter())
        return MetricRecord({"accuracy": accuracy})

    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=n_nodes, min_available_nodes=n_nodes)
    strategy.start(
        grid,
        to_record(draw_classifier(config, EMBED_DIM, N_CLASSES)),
        num_rounds=num_rounds,
        timeout=config.round_timeout_s,
        train_config=ConfigRecord(),
        evaluate_fn=evaluate_fn,
    )
    return median(end - begin for begin, end in pairwise(ends[1:]))
