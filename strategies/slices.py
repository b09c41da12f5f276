"""What the strategies that train in rounds share: deal slices, check the replies, merge.

A strategy is a rule for which slice of the classifier goes to which node and how replies merge; the
rest stands here and in `strategies.nodes`. Flower's own `FedAvg` does not serve: it sends one
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
from fed_ist.anchors import (
    split,
)
from fed_ist.codecs import encode, shapes_of
from fed_ist.heads import Params, hidden_widths, layer_widths, multiply_adds
from fed_ist.ist import Subnet, extract, merge
from fed_ist.rng import generator
from strategies.nodes import RoundCounts
from strategies.paying import PayingStrategy
from strategies.replies import RejectedError, read_encoded, read_outcome
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
    """

    subnet: Subnet
    capacity: float
    sent: Params


@dataclass
class SliceStrategy(PayingStrategy):
    """A Flower strategy that deals slices of the classifier to nodes."""

    _errands: dict[int, Errand] = field(default_factory=dict)
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

    def combine(self, params: Params, returned: Sequence[tuple[Subnet, Params, int]]) -> Params:
        """The next classifier, of the slices that came back (see `ist.merge`)."""
        return merge(params, returned)

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
        n_sampled = max(self.config.min_nodes, int(self.config.fraction_nodes * len(nodes)))
        drawn = rng.permutation(len(nodes))[:n_sampled]
        sampled = [nodes[i] for i in drawn]
        widths = hidden_widths(self._params)
        capacities = [self.affordable_share(server_round, node_id) for node_id in sampled]
        places = np.argsort(np.argsort(drawn)).tolist()
        subnets = self.deal(Dealing(widths, capacities, places, server_round, rng))
        for i, node_id in enumerate(sampled):
            subnet = subnets[i % len(subnets)]
            slice_ = extract(self._params, subnet)
            if self.pays_for(server_round, node_id, shapes_of(slice_)):
                self._errands[node_id] = Errand(subnet, capacities[i], slice_)
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
        task: dict[str, Any] = {
            protocol.ROUND: server_round,
            protocol.WIDTHS: layer_widths(errand.sent),
            protocol.SLICE: encode(errand.sent, config.down_codec, rng, config.zstd),
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
                self._enter(server_round, "up", reply)
                accepted[node_id], losses[node_id] = self._read(reply, self._errands[node_id])
            except RejectedError as reason:
                self.counts.rejected += 1
                log(WARNING, "Reply of node %d rejected: %s", node_id, reason)
                if reply.has_error():  # it may have lost its embeddings: prepare it once more
                    self.prepared.pop(node_id, None)
        if not accepted:
            return None, None
        # Replies come in any order; sums of floats do not forgive that.
        order = [node_id for node_id in self._errands if node_id in accepted]
        returned = [accepted[node_id] for node_id in order]
        self._params = self.combine(self._params, returned)
        loss = float(np.mean([losses[node_id] for node_id in order]))
        return to_record(self.whole(self._params)), MetricRecord({protocol.LOSS: loss})

    def _read(self, reply: Message, errand: Errand) -> tuple[tuple[Subnet, Params, int], float]:
        trained = self.read_trained(reply, errand.sent)
        n_examples, loss, seconds = read_outcome(reply)
        for name, array in trained.items():
            if name.endswith(".var") and (array < 0).any():
                raise RejectedError(f"'{name}' holds a variance below 0")
        self.counts.compute_s += seconds
        self.counts.multiply_adds += self.config.count_seen(n_examples) * multiply_adds(errand.sent)
        return (errand.subnet, trained, n_examples), loss
