"""What the strategies that train in rounds share: deal slices, check the replies, merge.

A strategy is a rule for which slice of the classifier goes to which node and how replies merge; the
rest stands here and in what it builds on. Flower's own `FedAvg` does not serve: it sends one
payload to all, samples with the global random state, and accepts arrays of any shape.
"""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from logging import WARNING
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.common import log
from flwr.serverapp import Grid

from fed_ist import protocol
from fed_ist.anchors import split
from fed_ist.codecs import encode, shapes_of
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
from strategies.wire import from_record, to_record


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
    n_examples: that the node was prepared with.
    """

    subnet: Subnet
    capacity: float
    sent: Params
    n_examples: int


@dataclass
class SliceStrategy(MergingStrategy):
    """A Flower strategy that deals slices of the classifier to nodes."""

    _errands: dict[int, Errand] = field(default_factory=dict)
    _slice_ids: dict[int, str] = field(default_factory=dict)  # of what nodes got in this round
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

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """One message a node, each with its own slice."""
        self._params, _ = split(from_record(arrays))
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
        drawn = rng.permutation(len(nodes))[: self.count_sampled(len(nodes))]
        sampled = [nodes[i] for i in drawn]
        widths = hidden_widths(self._params)
        capacities = [self.affordable_share(server_round, node_id) for node_id in sampled]
        places = np.argsort(np.argsort(drawn)).tolist()
        subnets = self.deal(Dealing(widths, capacities, places, server_round, rng))
        for i, node_id in enumerate(sampled):
            subnet = subnets[i % len(subnets)]
            slice_ = extract(self._params, subnet)
            if self.pays_for(server_round, node_id, shapes_of(slice_)):
                n_examples = int(self.prepared[node_id].counts[protocol.NUM_EXAMPLES])
                self._errands[node_id] = Errand(subnet, capacities[i], slice_, n_examples)
        self.counts.asked = len(self._errands)
        return [
            self._message(server_round, i, node_id, widths)
            for i, node_id in enumerate(self._errands)
        ]

    def _message(
        self, server_round: int, number: int, node_id: int, widths: Mapping[str, int]
    ) -> Message:
        """The errand of a node, the `number`-th of the round."""
        errand, config = self._errands[node_id], self.config
        rng = generator(config.seed, "down", server_round, number)
        data = encode(errand.sent, config.down_codec, rng, config.zstd)
        self._slice_ids[node_id] = protocol.slice_id(data, server_round)
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

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Merge the replies that are fit; the others are logged, counted, and change nothing."""
        accepted: dict[int, tuple[Subnet, Params, int]] = {}
        losses: dict[int, float] = {}
        for reply in replies:
            node_id = reply.metadata.src_node_id
            self.counts.answered += 1
            try:
                if node_id not in self._errands or node_id in accepted:
                    raise RejectedError("it was not asked, or has answered before")
                errand, n_bytes = self._errands[node_id], self._enter(server_round, "up", reply)
                require_size(reply, n_bytes, self.reply_bytes(shapes_of(errand.sent)))
                trained, losses[node_id] = self._read(reply, errand, self._slice_ids[node_id])
                accepted[node_id] = (errand.subnet, trained, errand.n_examples)
            except RejectedError as reason:
                self.counts.rejected += 1
                log(WARNING, "Reply of node %d rejected: %s", node_id, reason)
                if isinstance(reason, UnpreparedError):
                    self.prepared.pop(node_id, None)
        if not accepted:
            return None, None
        # Replies come in any order; sums of floats do not forgive that.
        order = [node_id for node_id in self._errands if node_id in accepted]
        returned = [accepted[node_id] for node_id in order]
        self._params = self.combine(self._params, returned)
        loss = float(np.mean([losses[node_id] for node_id in order]))
        return to_record(self.whole(self._params)), MetricRecord({protocol.LOSS: loss})

    def _read(self, reply: Message, errand: Errand, slice_id: str) -> tuple[Params, float]:
        """The trained slice and its loss, if training can have made it."""
        loss, seconds = read_outcome(reply, slice_id, errand.n_examples)
        trained = self.read_trained(reply, errand.sent)
        for name, array in trained.items():
            if name.endswith(".var") and (array < 0).any():
                raise RejectedError(f"'{name}' holds a variance below 0")
        with rejecting():
            require_possible_change(trained, errand.sent, self.config.dp_noise)
        n_seen = self.config.count_seen(errand.n_examples)
        self.counts.compute_s += seconds
        self.counts.multiply_adds += n_seen * multiply_adds(errand.sent)
        return trained, loss
