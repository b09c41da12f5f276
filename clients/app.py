"""The Flower ClientApp: prepares a node's images once, then answers with statistics and slices.

Only what the server asked for, arrays and scalars, leaves the node; images and embeddings stay.
"""

from collections.abc import Callable, Mapping
from dataclasses import astuple
from logging import WARNING
from typing import Any

import numpy as np
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Error,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from flwr.common import log
from numpy.typing import NDArray

from clients.data import NodeData, OwnImages, texts
from clients.device import declared_device, measured_device
from clients.node import Node
from clients.work import encode_update, statistics, train_slice
from fed_ist import protocol
from fed_ist.anchors import WEIGHT, with_projection
from fed_ist.config import RunConfig, parse_config
from fed_ist.errors import InputError
from fed_ist.heads import Params
from fed_ist.rng import generator

BAD_INPUT = 2  # the error code of a reply that says what is wrong with the node's input
MEMORY = "memory"  # record of context.state: what top-k has not sent yet


def identify(context: Context) -> Node:
    """Who this node is, from its node config."""
    settings = context.node_config
    if "data-path" in settings:
        return Node(context.node_id, 0, str(settings["data-path"]))
    if "partition-id" in settings:
        return Node(int(settings["partition-id"]), int(settings["num-partitions"]), "")
    return Node(context.node_id, 0, "")


def create_app(data: NodeData) -> ClientApp:
    """The ClientApp of nodes whose examples come from `data`."""
    app = ClientApp()

    @app.query()
    def prepare(message: Message, context: Context) -> Message:
        """Mask, pack and encode this node's images, unless that was done before."""

        def work() -> RecordDict:
            config, node = parse_config(context.run_config), identify(context)
            names = texts(_task(message)[protocol.CLASS_NAMES])
            declared = declared_device(node, context.node_config, config)
            metrics: dict[str, int | float | list[int] | list[float]] = {}
            metrics.update(data.prepare(context, node, config, names))
            if node.n_nodes:
                metrics[protocol.PARTITION] = node.number
            if "capacity" in context.node_config:
                metrics[protocol.CAPACITY] = _capacity(context.node_config["capacity"])
            if config.round_deadline_s:
                embed_dim = data.passes(context, node, config)(0)[0].shape[1]
                device = measured_device(declared, config, embed_dim, len(names))
                found = zip(protocol.DEVICE, astuple(device), strict=True)
                metrics.update({name: value for name, value in found if value is not None})
            return RecordDict({protocol.METRICS: MetricRecord(metrics)})

        return _answer(message, work)

    @app.query("statistics")
    def give_statistics(message: Message, context: Context) -> Message:
        """Sums over this node's embeddings."""

        def work() -> RecordDict:
            config, node = parse_config(context.run_config), identify(context)
            task = _task(message)
            kind = str(task[protocol.STATISTICS])
            # Noise that the server could draw again would hide nothing; a simulation hides nothing.
            noise = np.random.default_rng()
            if node.n_nodes:
                noise = generator(config.seed, f"noise on {kind}", node.number)
            given = context.state.array_records.get(kind)
            if given is None:
                examples = data.passes(context, node, config)(0)
                n_classes = len(texts(task[protocol.CLASS_NAMES]))
                given = _record(statistics(kind, examples, n_classes, config, noise))
            if config.statistics_noise:  # other noise at each request would average itself away
                context.state[kind] = given
            return RecordDict({protocol.ARRAYS: given})

        return _answer(message, work)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        """Train the slice in the message on this node's embeddings."""

        def work() -> RecordDict:
            config, node = parse_config(context.run_config), identify(context)
            task = _task(message)
            sent = _arrays(message.content.array_records[protocol.ARRAYS])
            passes = data.passes(context, node, config)
            fixed = _fixed(message, context, task, config, sent["fc1.weight"].shape[1])
            trained, metrics = train_slice(sent, fixed, passes, task, node.number, config)
            memory = context.state.array_records.get(MEMORY)
            before = _arrays(memory) if memory is not None else None
            payload, left = encode_update(trained, sent, before, task, node.number, config)
            if left is not None:
                context.state[MEMORY] = _record(left)
            return RecordDict(
                {protocol.ARRAYS: _record(payload), protocol.METRICS: MetricRecord(dict(metrics))}
            )

        return _answer(message, work)

    return app


app = create_app(OwnImages())


def _answer(message: Message, work: Callable[[], RecordDict]) -> Message:
    """Reply with the outcome of `work`, or with what is wrong with the input."""
    try:
        return Message(work(), reply_to=message)
    except InputError as error:
        log(WARNING, "%s", error)
        return Message(Error(BAD_INPUT, str(error)), reply_to=message)


def _fixed(
    message: Message, context: Context, task: dict[str, Any], config: RunConfig, embed_dim: int
) -> Params:
    """What statistics gave the classifier, empty for nothing; a node keeps it between rounds."""
    version = task.get(protocol.FIXED_VERSION)
    if version is None:
        return {}
    if protocol.FIXED in message.content:
        context.state[protocol.FIXED] = message.content.array_records[protocol.FIXED]
        context.state[protocol.FIXED_VERSION] = ConfigRecord({protocol.FIXED_VERSION: version})
    kept = context.state.config_records.get(protocol.FIXED_VERSION)
    if kept is None or kept[protocol.FIXED_VERSION] != version:
        raise InputError("This node has not got the anchor that its slice is to be trained on.")
    fixed = _arrays(context.state.array_records[protocol.FIXED])
    n_features = config.count_features(len(fixed[WEIGHT])) if WEIGHT in fixed else 0
    return with_projection(fixed, embed_dim, n_features, config.seed)


def _capacity(value: object) -> float:
    if not isinstance(value, int | float) or not 0 < value <= 1:
        raise InputError(f"capacity = {value!r} is not possible: give a number in (0, 1].")
    return float(value)


def _task(message: Message) -> dict[str, Any]:
    return dict(message.content.config_records[protocol.TASK])


def _arrays(record: ArrayRecord) -> Params:
    return {name: array.numpy() for name, array in record.items()}


def _record(arrays: Mapping[str, NDArray[Any]]) -> ArrayRecord:
    return ArrayRecord({name: Array(array) for name, array in arrays.items()})
