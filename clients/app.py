"""The Flower ClientApp: prepares a node's images once, then trains each round's slice.

Only the trained slice and scalars leave the node.
"""

from collections.abc import Callable
from logging import WARNING
from pathlib import Path

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

from clients.node import Node, count_unknown, embed_images, open_images
from fed_ist import protocol
from fed_ist.config import RunConfig, parse_config
from fed_ist.embeddings import load_cached
from fed_ist.errors import InputError
from fed_ist.masks import MASKS
from fed_ist.rng import torch_seed

BAD_INPUT = 2  # the error code of a reply that says what is wrong with the node's input

STATE = "fed-ist"  # the record of context.state that outlives a message
EMBEDDINGS = "embeddings"
CLASSES = "class-names"

Metrics = dict[str, int | float | list[int] | list[float]]
Examples = tuple[NDArray[np.float32], NDArray[np.int64]]

app = ClientApp()


def identify(context: Context) -> Node:
    """Who this node is, from its node config."""
    settings = context.node_config
    if "data-path" in settings:
        return Node(context.node_id, 0, str(settings["data-path"]))
    if "partition-id" in settings:
        return Node(int(settings["partition-id"]), int(settings["num-partitions"]), "")
    return Node(context.node_id, 0, "")


def _answer(message: Message, work: Callable[[], RecordDict]) -> Message:
    """Reply with the outcome of `work`, or with what is wrong with the input."""
    try:
        return Message(work(), reply_to=message)
    except InputError as error:
        log(WARNING, "%s", error)
        return Message(Error(BAD_INPUT, str(error)), reply_to=message)


@app.query()
def prepare(message: Message, context: Context) -> Message:
    """Mask, pack and encode this node's images, unless that was done before."""

    def work() -> RecordDict:
        config, node = parse_config(context.run_config), identify(context)
        names = _texts(message.content.config_records[protocol.TASK][protocol.CLASS_NAMES])
        source = open_images(node, config, names)
        found, folder = embed_images(source, node, config, 0, _warn(node))
        context.state[STATE] = ConfigRecord({EMBEDDINGS: str(folder), CLASSES: list(names)})
        counts = found.counts
        metrics: Metrics = {
            protocol.NUM_EXAMPLES: counts.n_images,
            protocol.IMAGES_SKIPPED: counts.n_skipped,
            protocol.UNKNOWN_CLASSES: count_unknown(source),
            protocol.ORIGINAL_BYTES: counts.original_bytes,
            protocol.RAW_BYTES: counts.raw_bytes,
            protocol.PACKED_BYTES: counts.packed_bytes,
        }
        if node.n_nodes:
            metrics[protocol.PARTITION] = node.number
        return RecordDict({protocol.METRICS: MetricRecord(metrics)})

    return _answer(message, work)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the slice in the message on this node's embeddings."""

    def work() -> RecordDict:
        from fed_ist.training import LocalTraining, train

        config, node = parse_config(context.run_config), identify(context)
        task = message.content.config_records[protocol.TASK]
        server_round = int(str(task[protocol.ROUND]))
        arrays = message.content.array_records[protocol.ARRAYS]
        params = {name: array.numpy() for name, array in arrays.items()}
        how = LocalTraining(
            config.local_epochs,
            config.local_steps,
            config.batch_size,
            config.optimizer,
            config.learning_rate,
        )
        examples = _passes(context, node, config)
        n_examples = len(examples(0)[1])
        first_pass = (server_round - 1) * how.count_passes(n_examples)
        trained, loss = train(
            params,
            lambda i: examples(first_pass + i),
            how,
            float(str(task[protocol.SCALE])),
            torch_seed(config.seed, "train", server_round, node.number),
        )
        metrics: Metrics = {protocol.NUM_EXAMPLES: n_examples, protocol.LOSS: loss}
        reply = ArrayRecord({name: Array(value) for name, value in trained.items()})
        return RecordDict({protocol.ARRAYS: reply, protocol.METRICS: MetricRecord(metrics)})

    return _answer(message, work)


def _passes(context: Context, node: Node, config: RunConfig) -> Callable[[int], Examples]:
    """pass number -> (embeddings, labels) of the node's images as they are seen in that pass."""
    state = context.state.config_records.get(STATE)
    if state is None:
        raise InputError("This node was asked to train before it was asked to prepare.")
    if not MASKS[config.mask].per_pass:
        found = load_cached(Path(str(state[EMBEDDINGS])))
        if found is None:
            raise InputError("This node's embeddings are gone from its cache.")
        return lambda _: (found.values, found.labels)
    source = open_images(node, config, _texts(state[CLASSES]))

    def at(number_of_pass: int) -> Examples:
        found, _ = embed_images(source, node, config, number_of_pass, _warn(node))
        return found.values, found.labels

    return at


def _texts(value: object) -> tuple[str, ...]:
    """A list of texts in a record."""
    assert isinstance(value, list)
    return tuple(str(text) for text in value)


def _warn(node: Node) -> Callable[[str], None]:
    return lambda reason: log(WARNING, "node %s skips an image: %s", node.number, reason)
