"""What the strategies that train in rounds share: deal slices, check the replies, merge.

A strategy is a rule for which slice of the classifier goes to which node and how replies merge; the
rest stands here and in what it builds on. Flower's own `FedAvg` does not serve: it sends one
payload to all, samples with the global random state, and accepts arrays of any shape.
"""

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from logging import WARNING
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.common import log
from flwr.serverapp import Grid

from fed_ist import protocol
from fed_ist.anchors import split
from fed_ist.codecs import STEPS, encode, shapes_of
from fed_ist.config.derive import dp_noise, local_training
from fed_ist.heads import Params, hidden_widths, layer_widths, multiply_adds
from fed_ist.ist import Subnet, extract
from fed_ist.rng import generator
from fed_ist.robust import require_possible_change
from strategies.counting import RoundCounts
from strategies.merging import MergingStrategy
from strategies.replies import (
    RejectedError,
    UnpreparedError,
    read_encoded,
    read_outcome,
    rejecting,
    require_size,
)


@dataclass(frozen=True)
class Dealing:
    """What a rule may know when it deals slices in a round.

    widths: neurons on each axis. capacities: of the sampled nodes, the share of the neurons that
    each can train. places: of the sampled nodes, which one each is when they are put in the order
    of their names.
    """

    widths: Mapping[str, int]
    capacities: Sequence[float]
    places: Sequence[int]
    server_round: int
    rng: np.random.Generator


@dataclass(frozen=True)
class Errand:
    """What one node was asked to train.

    capacity: the node's, as of `nodes.Prepared`. sent: the slice, as it is before it is encoded.
    n_examples: that the node was prepared with. weight: how many of them it counts for.
    """

    subnet: Subnet
    capacity: float
    sent: Params
    n_examples: int
    weight: int


@dataclass
class SliceStrategy(MergingStrategy):
    """A Flower strategy that deals slices of the classifier to nodes."""

    _errands: dict[int, Errand] = field(default_factory=dict)
    _slice_ids: dict[int, str] = field(default_factory=dict)  # of what nodes got in this round
    _encoded: dict[Subnet, tuple[bytes, str]] = field(default_factory=dict)  # in this round
    _params: Params = field(default_factory=dict)

    @abstractmethod
    def deal(self, to: Dealing) -> list[Subnet]:
        """The subnets of this round; node i of those sampled trains number i modulo their count."""

    def scale(self, share: float) -> float:
        """What the hidden neurons of a slice are multiplied by while it trains."""
        return 1 / share if self.config.rescale else 1.0

    def task(self, share: float, capacity: float) -> dict[str, float | str | list[float]]:
        """What a node of this capacity must know to train a slice of this share."""
        return {protocol.SCALE: self.scale(share)}

    def read_trained(self, reply: Message, sent: Params) -> Params:
        """The trained slice in a reply; raises `RejectedError` for what no node could have made.

        An update is added to the slice as the server has it, so that what the codec loses on the
        way down is not lost to the classifier.
        """
        codec, shapes = self.config.up_codec, shapes_of(sent)
        back = read_encoded(reply, protocol.SLICE, codec, shapes)
        if self.config.reply == "slice":
            return back
        return {name: array + back[name] for name, array in sent.items()}

    # --- rounds ------------------------------------------------------------------------------

    def ask(self, server_round: int, params: Params, grid: Grid) -> Iterable[Message]:
        """One message a node, each with its own slice."""
        self._params, _ = split(params)
        self._errands = {}
        self.counts = RoundCounts()
        self.wait_for_nodes(grid, self.config.round_timeout_s)
        self.prepare(grid, server_round)
        self.renew_fixed(grid, server_round)
        connected = self.available(grid)
        nodes = [i for i in connected if self.can_pay(server_round, i)]
        if len(nodes) < self.config.min_nodes:
            if len(connected) >= self.config.min_nodes:
                self.end_of_allowance(connected)
            log(WARNING, "Round skipped: %d of %d nodes", len(nodes), self.config.min_nodes)
            return []
        rng = generator(self.config.seed, "round", server_round)
        # Who rests is drawn and left out, so that the others' order is the same.
        awake = set(self.awake(server_round, nodes))
        order = [i for i in rng.permutation(len(nodes)) if nodes[i] in awake]
        drawn = order[: self.count_sampled(len(nodes))]
        sampled = [nodes[i] for i in drawn]
        widths = hidden_widths(self._params)
        capacities = [self.affordable_share(server_round, node_id) for node_id in sampled]
        places = np.argsort(np.argsort(drawn)).tolist()
        subnets = self.deal(Dealing(widths, capacities, places, server_round, rng))
        slices = {subnet: extract(self._params, subnet) for subnet in dict.fromkeys(subnets)}
        for i, node_id in enumerate(sampled):
            subnet = subnets[i % len(subnets)]
            if self.pays_for(server_round, node_id, shapes_of(slices[subnet])):
                n_examples = int(self.prepared[node_id].counts[protocol.NUM_EXAMPLES])
                self._errands[node_id] = Errand(
                    subnet, capacities[i], slices[subnet], n_examples, self.weight(node_id)
                )
        self.counts.asked = len(self._errands)
        self._encoded = {}
        # One after the other, so that they need not all be in memory.
        return (
            self._message(server_round, i, node_id, widths)
            for i, node_id in enumerate(self._errands)
        )

    def _message(
        self, server_round: int, number: int, node_id: int, widths: Mapping[str, int]
    ) -> Message:
        """The errand of a node, the `number`-th of the round."""
        errand = self._errands[node_id]
        data, self._slice_ids[node_id] = self._encode(server_round, number, errand)
        task: dict[str, Any] = {
            protocol.ROUND: server_round,
            protocol.WIDTHS: layer_widths(errand.sent),
            protocol.SLICE: data,
        }
        task |= self.task(errand.subnet.share(widths), errand.capacity)
        task |= self.fixed_for(node_id)
        message = Message(
            RecordDict({protocol.TASK: ConfigRecord(task)}),
            dst_node_id=node_id,
            message_type=MessageType.TRAIN,
            ttl=self.config.round_timeout_s,
            group_id=str(server_round),
        )
        self._enter(server_round, "down", message)
        return message

    def _encode(self, server_round: int, number: int, errand: Errand) -> tuple[bytes, str]:
        """The slice as it travels, and its id. Where nothing is drawn, nodes share the bytes."""
        config = self.config
        if errand.subnet in self._encoded:
            return self._encoded[errand.subnet]
        rng = generator(config.seed, "down", server_round, number)
        data = encode(errand.sent, config.down_codec, rng, config.zstd)
        encoded = data, protocol.slice_id(data, server_round)
        if config.down_codec not in STEPS:
            self._encoded[errand.subnet] = encoded
        return encoded

    def take(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[Params | None, float | None]:
        """Merge the replies that are fit; the others are logged, counted, and change nothing."""
        merger = self.merger(self._params, [errand.subnet for errand in self._errands.values()])
        losses: dict[int, float] = {}
        for reply in replies:
            node_id = reply.metadata.src_node_id
            self.counts.answered += 1
            try:
                if node_id not in self._errands or node_id in losses:
                    raise RejectedError("it was not asked, or has answered before")
                errand, n_bytes = self._errands[node_id], self._enter(server_round, "up", reply)
                require_size(reply, n_bytes, self.reply_bytes(shapes_of(errand.sent)))
                trained, loss = self._read(reply, errand, self._slice_ids[node_id])
                merger.add(errand.subnet, trained, errand.weight)
                losses[node_id] = loss
            except RejectedError as reason:
                self.counts.rejected += 1
                log(WARNING, "Reply of node %s rejected: %s", self._name(node_id), reason)
                if isinstance(reason, UnpreparedError):
                    self.prepared.pop(node_id, None)
        for node_id in self.leave_out_dissenters(merger, list(losses)):
            self.counts.rejected += 1
            del losses[node_id]
        if not losses:
            return None, None
        self._params = self.step(self._params, merger.merged())
        loss = math.fsum(losses.values()) / len(losses)  # whatever order the replies came in
        return self.whole(self._params), loss

    def _read(self, reply: Message, errand: Errand, slice_id: str) -> tuple[Params, float]:
        """The trained slice and its loss, if training can have made it."""
        with rejecting():
            loss, seconds = read_outcome(reply, slice_id, errand.n_examples)
            trained = self.read_trained(reply, errand.sent)
            for name, array in trained.items():
                if name.endswith(".var") and (array < 0).any():
                    raise RejectedError(f"'{name}' holds a variance below 0")
            require_possible_change(trained, errand.sent, dp_noise(self.config))
        n_seen = local_training(self.config).count_seen(errand.n_examples)
        self.counts.compute_s += seconds
        self.counts.multiply_adds += n_seen * multiply_adds(errand.sent)
        return trained, loss
