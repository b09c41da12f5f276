"""The Flower ClientApp: prepares a node's images once, then answers with statistics and slices.

Only what the server asked for, arrays and scalars, leaves the node; images and embeddings stay.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple
from functools import partial, wraps
from logging import WARNING
from typing import Any, Concatenate, ParamSpec

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod
from flwr.common import log
from numpy.typing import NDArray

from clients.coding import answer, array_record, task_of
from clients.data import NodeData, OwnImages, texts
from clients.device import declared_device, measured_device, require_known_keys
from clients.kept import fixed_parts, held_versions
from clients.mods import in_one_thread, within
from clients.node import identify
from clients.privacy import private
from clients.work import statistics, train_slice
from fed_ist.classifier.layout import Params
from fed_ist.config.parsing import parse_config
from fed_ist.config.run_config import RunConfig
from fed_ist.errors import InputError, file_trouble
from fed_ist.printable import guard_log
from fed_ist.rng import generator
from fed_ist.statistics.coarse import Coarse
from fed_ist.traffic import protocol
from fed_ist.traffic.codecs import encode

BAD_INPUT = 2  # the error code of a reply that says what is wrong with the node's input
Others = ParamSpec("Others")
Work = Callable[Concatenate[Message, Context, Others], RecordDict]
Answer = Callable[Concatenate[Message, Context, Others], Message]


def create_app(data: NodeData, mods: Sequence[Mod] = ()) -> ClientApp:
    """The ClientApp of nodes whose examples come from `data`.

    mods: around its training; they see slices as plain arrays, the answer as it is to be sent.
    """
    app = ClientApp(mods=[in_one_thread])
    app.query()(partial(prepare, data=data))
    app.query("statistics")(partial(give_statistics, data=data))
    app.train()(partial(train, data=data, mods=mods))
    return app


def answering(work: Work[Others]) -> Answer[Others]:
    """Have a function reply to a message with what it makes; where it cannot, with the reason.

    What is wrong with the node's input or its disk is an error of the reply, and is logged here.
    """

    @wraps(work)
    def reply(
        message: Message, context: Context, /, *args: Others.args, **kwargs: Others.kwargs
    ) -> Message:
        try:
            return Message(work(message, context, *args, **kwargs), reply_to=message)
        except InputError as error:
            reason = str(error)
        except OSError as error:
            reason = f"This node cannot go on: {file_trouble(error)}. Is its disk full?"
        log(WARNING, "%s", reason)
        return Message(Error(BAD_INPUT, reason), reply_to=message)

    return reply


@answering
def prepare(message: Message, context: Context, data: NodeData) -> RecordDict:
    """Mask, pack and encode this node's images, unless that was done before; tell what it has."""
    config, node, task = parse_config(context.run_config), identify(context), task_of(message)
    _require_same_protocol(task)
    names = texts(task[protocol.CLASS_NAMES])
    require_known_keys(context.node_config)
    declared = declared_device(node, context.node_config, config)
    metrics: dict[str, int | float | list[int] | list[float]] = {}
    metrics.update(data.prepare(context, node, config, names))
    if node.n_nodes:
        metrics[protocol.PARTITION] = node.number
    if any(held := held_versions(context)):
        metrics[protocol.VERSIONS] = held
    if "capacity" in context.node_config:
        metrics[protocol.CAPACITY] = _capacity(context.node_config["capacity"])
    if config.round_deadline_s:
        embed_dim = data.passes(context, node, config)(0)[0].shape[1]
        measured = measured_device(declared, config, embed_dim, len(names))
        parts = zip(protocol.DEVICE, astuple(measured), strict=True)
        metrics.update({name: value for name, value in parts if value is not None})
    found = RecordDict({protocol.METRICS: MetricRecord(metrics)})
    if node.name:
        found[protocol.REPLY] = ConfigRecord({protocol.NAME: node.name})
    return found


@answering
def give_statistics(message: Message, context: Context, data: NodeData) -> RecordDict:
    """Sums over this node's embeddings, of the kind that the message asks for."""
    config, node, task = parse_config(context.run_config), identify(context), task_of(message)
    kind = str(task[protocol.STATISTICS])
    # Noise that the server could draw again would hide nothing; a simulation hides nothing.
    noise = np.random.default_rng()
    if node.n_nodes:
        noise = generator(config.seed, f"noise on {kind}", node.number)
    content = context.state.get(kind)
    if content is None:
        examples = data.passes(context, node, config)(0)
        n_classes = len(texts(task[protocol.CLASS_NAMES]))
        given = statistics(kind, examples, n_classes, config, noise)
        content = _as_sent(given, kind, generator(config.seed, "statistics", node.number), config)
    if config.statistics_noise:  # other noise at each request would average itself away
        context.state[kind] = content
    name = protocol.ARRAYS if kind == protocol.GAUSSIANS else protocol.REPLY
    return RecordDict({name: content})


@answering
def train(message: Message, context: Context, data: NodeData, mods: Sequence[Mod]) -> RecordDict:
    """The slice in the message, trained on this node's embeddings."""
    config, node = parse_config(context.run_config), identify(context)

    def learn(sent: Params, task: dict[str, Any]) -> tuple[Params, dict[str, Any]]:
        fixed = fixed_parts(context, task, config)
        passes = data.passes(context, node, config)
        return train_slice(sent, fixed, passes, task, node.number, config)

    around = [*mods, private] if config.dp_clip_norm else mods
    return answer(message, context, config, within(around, learn, message, context))


app = create_app(OwnImages())
guard_log("flwr")  # it carries what files are called


def _as_sent(
    given: dict[str, NDArray[Any]] | Coarse, kind: str, rng: np.random.Generator, config: RunConfig
) -> ArrayRecord | ConfigRecord:
    if isinstance(given, Coarse):
        data = encode(given.arrays, config.statistics_codec, rng, config.zstd)
        sent = ConfigRecord({protocol.STATISTICS: data, protocol.COUNTS: list(given.counts)})
        if kind != protocol.CLASS_SUMS:
            reference = {protocol.REFERENCE: given.reference}
            sent[protocol.REFERENCE] = encode(reference, "fp16", rng, config.zstd)
        return sent
    if kind == protocol.GAUSSIANS:
        return array_record(given)
    data = encode(given, config.statistics_codec, rng, config.zstd)
    return ConfigRecord({protocol.STATISTICS: data})


def _require_same_protocol(task: Mapping[str, object]) -> None:
    """The code does not travel to a device: it may be of another version there."""
    asked = task.get(protocol.PROTOCOL, 1)
    if asked != protocol.VERSION:
        raise InputError(
            f"The server speaks version {asked} of fed-ist's protocol, this node version "
            f"{protocol.VERSION}: install the same fed-ist on both."
        )


def _capacity(value: object) -> float:
    if not isinstance(value, int | float) or not 0 < value <= 1:
        raise InputError(f"capacity = {value!r} is not possible: give a number in (0, 1].")
    return float(value)
