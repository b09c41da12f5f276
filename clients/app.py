"""The Flower ClientApp: prepares a node's images once, then answers with statistics and slices.

Only what the server asked for, arrays and scalars, leaves the node; images and embeddings stay.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod
from numpy.typing import NDArray

from clients.coding import answer, array_record, decoded, task_of
from clients.data import NodeData, OwnImages, texts
from clients.device import declared_device, measured_device, require_known_keys
from clients.mods import in_one_thread, within
from clients.node import identify
from clients.privacy import private
from clients.refusal import refusal
from clients.work import statistics, train_slice
from fed_ist import protocol
from fed_ist.anchors import anchor_shapes, inputs_shapes, with_projection
from fed_ist.codecs import encode
from fed_ist.config.derive import count_features, fixed_codec
from fed_ist.config.parsing import parse_config
from fed_ist.config.run_config import RunConfig
from fed_ist.errors import InputError
from fed_ist.heads import Params
from fed_ist.printable import guard_log
from fed_ist.rng import generator

VERSION = "version"  # of a part of the classifier that statistics gave, in its record there


def create_app(data: NodeData, mods: Sequence[Mod] = ()) -> ClientApp:
    """The ClientApp of nodes whose examples come from `data`.

    mods: around its training; they see slices as plain arrays, the answer as it is to be sent.
    """
    app = ClientApp(mods=[in_one_thread])

    @app.query()
    def prepare(message: Message, context: Context) -> Message:
        """Mask, pack and encode this node's images, unless that was done before."""

        def work() -> RecordDict:
            config, node = parse_config(context.run_config), identify(context)
            task = task_of(message)
            _require_same_protocol(task)
            names = texts(task[protocol.CLASS_NAMES])
            require_known_keys(context.node_config)
            declared = declared_device(node, context.node_config, config)
            metrics: dict[str, int | float | list[int] | list[float]] = {}
            metrics.update(data.prepare(context, node, config, names))
            if node.n_nodes:
                metrics[protocol.PARTITION] = node.number
            if any(held := _held_versions(context)):
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

        return _answer(message, work)

    @app.query("statistics")
    def give_statistics(message: Message, context: Context) -> Message:
        """Sums over this node's embeddings."""

        def work() -> RecordDict:
            config, node = parse_config(context.run_config), identify(context)
            task = task_of(message)
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
                content = _statistics_record(kind, given, config)
            if config.statistics_noise:  # other noise at each request would average itself away
                context.state[kind] = content
            name = protocol.ARRAYS if kind == protocol.GAUSSIANS else protocol.REPLY
            return RecordDict({name: content})

        return _answer(message, work)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        """Train the slice in the message on this node's embeddings."""

        def work() -> RecordDict:
            config, node = parse_config(context.run_config), identify(context)

            def learn(sent: Params, task: dict[str, Any]) -> tuple[Params, dict[str, Any]]:
                fixed = _fixed(context, task, config)
                passes = data.passes(context, node, config)
                return train_slice(sent, fixed, passes, task, node.number, config)

            around = [*mods, private] if config.dp_clip_norm else mods
            return answer(message, context, config, within(around, learn, message, context))

        return _answer(message, work)

    return app


app = create_app(OwnImages())
guard_log("flwr")  # it carries what files are called


def _answer(message: Message, work: Callable[[], RecordDict]) -> Message:
    """Reply with the outcome of `work`, or with what is wrong with the input."""
    try:
        return Message(work(), reply_to=message)
    except (InputError, OSError) as error:
        return refusal(error, message)


def _statistics_record(
    kind: str, given: Mapping[str, NDArray[Any]], config: RunConfig
) -> ArrayRecord | ConfigRecord:
    if kind == protocol.GAUSSIANS:
        return array_record(given)
    rng = generator(config.seed, "statistics")  # of which fp32 and fp16 draw nothing
    data = encode(dict(given), config.statistics_codec, rng, config.zstd)
    return ConfigRecord({protocol.STATISTICS: data})


def _fixed(context: Context, task: dict[str, Any], config: RunConfig) -> Params:
    """What statistics gave the classifier, empty for nothing; a node keeps it between rounds."""
    embed_dim, *_, num_classes = (int(width) for width in task[protocol.WIDTHS])
    n_features = count_features(config, num_classes)
    shapes = {
        protocol.INPUTS: inputs_shapes(embed_dim),
        protocol.ANCHOR: anchor_shapes(n_features or embed_dim, num_classes),
    }
    fixed: Params = {}
    versions = task.get(protocol.VERSIONS, [])
    for part, version in zip(protocol.PARTS, versions, strict=False):
        if version == 0:
            continue
        if part in task:
            context.state[part] = ConfigRecord({part: task[part], VERSION: version})
        kept = context.state.config_records.get(part)
        if kept is None or kept[VERSION] != version:
            raise InputError(
                f"This node has not got the {part} that its slice is to be trained on."
            )
        fixed |= decoded(kept, part, fixed_codec(config), shapes[part])
    return with_projection(fixed, embed_dim, n_features, config.seed)


def _held_versions(context: Context) -> list[int]:
    """The version of each part that this node keeps, 0 for none."""
    kept = [context.state.config_records.get(part) for part in protocol.PARTS]
    return [0 if record is None else int(record[VERSION]) for record in kept]  # type: ignore[arg-type]


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
