"""What nodes are sent to do in a round: slices go out encoded, and come back checked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Message, MessageType, RecordDict

from fed_ist.classifier.layout import Params, layer_widths
from fed_ist.classifier.robust import require_possible_change
from fed_ist.classifier.slices import Subnet, neuron_bits
from fed_ist.config.derive import dp_noise
from fed_ist.config.run_config import RunConfig
from fed_ist.rng import generator
from fed_ist.statistics.anchors import start_silent
from fed_ist.traffic import protocol
from fed_ist.traffic.codecs import DRAWN, encode, shapes_of
from strategies.core.method import Method
from strategies.core.replies import (
    RejectedError,
    read_arrays,
    read_encoded,
    read_outcome,
    rejecting,
)


@dataclass(frozen=True)
class Errand:
    """What one node is asked to train.

    subnet: the neurons of its slice. sent: the slice before it is encoded, float32 arrays named as
    in `fed_ist.classifier.layout`. capacity: the share of the neurons that the node can train.
    n_examples: images that it was prepared with. weight: how many of them it counts for.
    """

    subnet: Subnet
    sent: Params
    capacity: float
    n_examples: int
    weight: int


@dataclass(frozen=True)
class Trained:
    """What a node has made of its slice (float32 arrays), its loss, and the seconds it took."""

    slice: Params
    loss: float
    seconds: float


def untrained_as(params: Params, drawn: Params) -> str:
    """How a classifier is still as both sides draw it: WHOLE or SILENT of the protocol, or "".

    params, drawn: float32 arrays, named as in `fed_ist.classifier.layout`.
    """
    for word, start in ((protocol.WHOLE, drawn), (protocol.SILENT, start_silent(drawn))):
        if all(np.array_equal(params[name], array) for name, array in start.items()):
            return word
    return ""


@dataclass
class Errands:
    """The errands of one round, by node id, between arrays and messages.

    params: the classifier that is trained in slices, float32, without what statistics gave it.
    widths: neurons on each of its axes. drawn_as: see `untrained_as`; where it is a word, slices do
    not travel, as nodes draw them from the seed.
    """

    config: RunConfig
    method: Method
    server_round: int
    params: Params
    widths: Mapping[str, int]
    drawn_as: str
    of_node: dict[int, Errand] = field(default_factory=dict)
    _slice_ids: dict[int, str] = field(default_factory=dict)
    _encoded: dict[Subnet, tuple[bytes, str]] = field(default_factory=dict)

    def message(self, number: int, node_id: int, from_statistics: Mapping[str, Any]) -> Message:
        """The message to a node, the `number`-th of the round.

        from_statistics: what else goes into its task.
        """
        errand, server_round = self.of_node[node_id], self.server_round
        data, self._slice_ids[node_id] = self._encode(number, errand)
        task: dict[str, Any] = {
            protocol.ROUND: server_round,
            protocol.WIDTHS: layer_widths(errand.sent),
        }
        if self.drawn_as:
            task[protocol.DRAWN] = self.drawn_as
            task[protocol.NEURONS] = neuron_bits(errand.subnet, self.widths)
        else:
            task[protocol.SLICE] = data
        task |= self.method.task(errand.subnet.share(self.widths), errand.capacity)
        task |= from_statistics
        return Message(
            RecordDict({protocol.TASK: ConfigRecord(task)}),
            dst_node_id=node_id,
            message_type=MessageType.TRAIN,
            ttl=self.config.round_timeout_s,
            group_id=str(server_round),
        )

    def _encode(self, number: int, errand: Errand) -> tuple[bytes, str]:
        """The slice as it travels, and its id. Where nothing is drawn, nodes share the bytes."""
        config = self.config
        if errand.subnet in self._encoded:
            return self._encoded[errand.subnet]
        rng = generator(config.seed, "down", self.server_round, number)
        # What a node draws itself it has exactly.
        codec = "fp32" if self.drawn_as else config.down_codec
        data = encode(errand.sent, codec, rng, config.zstd and not self.drawn_as)
        encoded = data, protocol.slice_id(data, self.server_round)
        if codec not in DRAWN:
            self._encoded[errand.subnet] = encoded
        return encoded

    def read(self, node_id: int, reply: Message) -> Trained:
        """What a node answers to its errand; raises `RejectedError` for what no training makes."""
        errand, method, config = self.of_node[node_id], self.method, self.config
        with rejecting():
            loss, seconds = read_outcome(reply, self._slice_ids[node_id], errand.n_examples)
            layout = method.reply_layout(errand.sent)
            if layout is None:
                shapes = shapes_of(errand.sent)
                back = read_encoded(reply, protocol.SLICE, config.up_codec, shapes)
            else:
                back = read_arrays(reply, layout)
            trained = method.trained(back, errand.sent)
            for name, array in trained.items():
                if name.endswith(".var") and (array < 0).any():
                    raise RejectedError(f"'{name}' holds a variance below 0")
            require_possible_change(trained, errand.sent, dp_noise(config))
        return Trained(trained, loss, seconds)
