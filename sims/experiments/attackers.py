"""Dishonest nodes for experiments: they keep to the protocol, so that nothing is refused."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from flwr.app import ConfigRecord, Context, Message
from flwr.clientapp.typing import ClientAppCallable

from clients.app import create_app
from clients.coding import array_record, arrays_of, decoded, task_of
from clients.data import NodeData, texts
from clients.mods import slice_in
from clients.node import Node, identify
from fed_ist.config.derive import count_features
from fed_ist.config.parsing import parse_config
from fed_ist.config.run_config import RunConfig
from fed_ist.rng import generator
from fed_ist.statistics.coarse import ROOT, coarse_shapes
from fed_ist.statistics.factors import STEPS, factorise, from_factor
from fed_ist.statistics.gaussians import Gaussians
from fed_ist.statistics.ridge import Gram
from fed_ist.traffic import protocol
from fed_ist.traffic.codecs import Shapes, encode
from fed_ist.training.local import Examples

FACTOR = 10  # what was learnt is multiplied by this before its opposite is sent
MOST_STATED = 2**29 - 1  # the most images that a node may state
LARGEST_FP16 = 65504  # the largest number, and count, in statistics in fp16


@dataclass(frozen=True)
class Attack:
    """What the first nodes of a federation do.

    n_nodes: how many nodes do it. flips: they send the opposite of what they learnt, `FACTOR`
    times. mislabels: they give each class another's name, in what they train on and in statistics.
    times: how many times their number of images they state, or as many as messages can say.
    """

    n_nodes: int = 0
    flips: bool = False
    mislabels: bool = False
    times: int = 1


NO_ATTACK = Attack()


def create_attacked(data: NodeData, attack: Attack) -> ClientAppCallable:
    """The ClientApp of `create_app`, whose first nodes do what `attack` says."""
    if not attack.n_nodes:
        return create_app(data)

    def is_bad(context: Context) -> bool:
        return identify(context).number < attack.n_nodes

    def flipping(message: Message, context: Context, train: ClientAppCallable) -> Message:
        reply = train(message, context)
        if is_bad(context) and attack.flips and not reply.has_error():
            sent, learnt = slice_in(message), slice_in(reply)
            harmful = {name: sent[name] - FACTOR * (learnt[name] - sent[name]) for name in sent}
            reply.content[protocol.ARRAYS] = array_record(harmful)
        return reply

    app = create_app(_Mislabelled(data, attack.n_nodes) if attack.mislabels else data, [flipping])

    def answer(message: Message, context: Context) -> Message:
        reply = app(message, context)
        if is_bad(context) and attack.times > 1 and not reply.has_error():
            config, task = parse_config(context.run_config), task_of(message)
            n_images, embed_dim = data.passes(context, identify(context), config)(0)[0].shape
            most = LARGEST_FP16 if config.statistics_codec == "fp16" else MOST_STATED
            times = min(attack.times, most // n_images)
            _exaggerate(reply, task, _shapes(task, embed_dim, config), config, times)
        return reply

    return answer


class _Mislabelled:
    """The `NodeData` of `data`, in which the first nodes' examples have labels of other classes."""

    def __init__(self, data: NodeData, n_nodes: int) -> None:
        self._data, self._n_nodes, self._n_classes = data, n_nodes, 0

    def prepare(
        self, context: Context, node: Node, config: RunConfig, class_names: tuple[str, ...]
    ) -> dict[str, int]:
        self._n_classes = len(class_names)
        return self._data.prepare(context, node, config, class_names)

    def passes(self, context: Context, node: Node, config: RunConfig) -> Callable[[int], Examples]:
        honest = self._data.passes(context, node, config)
        if node.number >= self._n_nodes:
            return honest
        # Each class gets the name of the next in a random order, so none keeps its own.
        order = generator(config.seed, "mislabels").permutation(self._n_classes)
        wrong = order.copy()
        wrong[order] = [*order[1:], order[0]]

        def mislabelled(number_of_pass: int) -> Examples:
            values, labels = honest(number_of_pass)
            return values, wrong[labels]

        return mislabelled


def _exaggerate(
    reply: Message, task: dict[str, object], shapes: Shapes, config: RunConfig, times: int
) -> None:
    """Change a node's reply, statistics included, to one of `times` as many images as it has.

    shapes: of the sums that the reply may hold.
    """
    content = reply.content
    for stating in (
        content.metric_records.get(protocol.METRICS),
        content.config_records.get(protocol.REPLY),
    ):
        if stating is not None and protocol.NUM_EXAMPLES in stating:
            own = int(stating[protocol.NUM_EXAMPLES])  # type: ignore[arg-type]
            stating[protocol.NUM_EXAMPLES] = own * times
    kind = task.get(protocol.STATISTICS)
    if kind == protocol.GAUSSIANS:
        found = Gaussians(**arrays_of(content.array_records[protocol.ARRAYS]))  # type: ignore[arg-type]
        more = replace(found, counts=found.counts * times)
        content[protocol.ARRAYS] = array_record(vars(more))
    elif kind is not None:
        record = content.config_records[protocol.REPLY]
        codec = config.statistics_codec
        if protocol.COUNTS in record:
            _exaggerate_coarse(record, shapes, config, times)
            return
        sums = decoded(record, protocol.STATISTICS, codec, shapes)
        if protocol.GRAM in sums:
            stats = from_factor(sums[protocol.GRAM], sums[protocol.CLASS_SUMS], codec)
            triangle, about = factorise(Gram(times * stats.gram, times * stats.sums))
            sums = {protocol.GRAM: triangle, protocol.CLASS_SUMS: about}
        else:
            sums = {name: times * array for name, array in sums.items()}
        rng = generator(config.seed, "statistics")
        record[protocol.STATISTICS] = encode(sums, codec, rng, config.zstd)


def _exaggerate_coarse(record: ConfigRecord, shapes: Shapes, config: RunConfig, times: int) -> None:
    """The same for statistics in few bits, where class means stay as they are."""
    record[protocol.COUNTS] = [times * int(n) for n in record[protocol.COUNTS]]  # type: ignore[union-attr]
    codec = config.statistics_codec
    arrays = decoded(record, protocol.STATISTICS, codec, shapes)
    more = {
        name: array * np.float32(np.sqrt(times)) if name.startswith(ROOT) else array
        for name, array in arrays.items()
    }
    rng = generator(config.seed, "statistics")
    record[protocol.STATISTICS] = encode(more, codec, rng, config.zstd)


def _shapes(task: dict[str, object], embed_dim: int, config: RunConfig) -> Shapes:
    """The shapes of the sums that a node sends for statistics; empty for another task."""
    n_classes = len(texts(task[protocol.CLASS_NAMES])) if protocol.CLASS_NAMES in task else 0
    kind = task.get(protocol.STATISTICS)
    is_random = kind == protocol.RANDOM_GRAM
    d = count_features(config, n_classes) if is_random else embed_dim
    if config.statistics_codec in STEPS:
        return coarse_shapes(n_classes, d, with_root=kind != protocol.CLASS_SUMS)
    width = d + 1
    shapes: dict[str, tuple[int, ...]] = {protocol.CLASS_SUMS: (n_classes, width)}
    if kind in (protocol.GRAM, protocol.RANDOM_GRAM):
        shapes[protocol.GRAM] = (width * (width + 1) // 2,)
    return shapes
