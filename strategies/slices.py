"""What the strategies that train in rounds share: deal slices, check the replies, merge.

A strategy is a rule for which slice of the classifier goes to which node and how replies merge; the
rest stands here and in `strategies.nodes`. Flower's own `FedAvg` does not serve: it sends one
payload to all, samples with the global random state, and accepts arrays of any shape.
"""

from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from logging import INFO, WARNING
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.common import log
from flwr.serverapp import Grid

from fed_ist import protocol
from fed_ist.anchors import (
    INPUTS_WEIGHT,
    WEIGHT,
    solve_anchor,
    solve_inputs,
    split,
    start_silent,
    with_projection,
)
from fed_ist.capacity import MESSAGE_OVERHEAD_BYTES
from fed_ist.codecs import Shapes, decode, encode, encoded_bytes, shapes_of
from fed_ist.config import SLICED
from fed_ist.errors import InputError
from fed_ist.heads import Params, hidden_widths, layer_widths, multiply_adds, param_shapes
from fed_ist.ist import Subnet, extract, merge
from fed_ist.rng import generator
from fed_ist.statistics import Gram, add
from strategies.nodes import AllowanceSpent, NodeStrategy, RoundCounts
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
class SliceStrategy(NodeStrategy):
    """A Flower strategy that deals slices of the classifier to nodes."""

    fixed: Params = field(default_factory=dict)
    _fixed_data: bytes = b""
    _sums: dict[str, Gram] = field(default_factory=dict)
    _counted: dict[str, set[str]] = field(default_factory=dict)
    _version: int = 0
    _has_version: dict[int, int] = field(default_factory=dict)
    _errands: dict[int, Errand] = field(default_factory=dict)
    _last_cost: dict[str, int] = field(default_factory=dict)
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

    # --- what statistics give ----------------------------------------------------------------

    def initial(self, params: Params, grid: Grid) -> Params:
        self._renew_fixed(grid, 0)
        return self._whole(start_silent(params) if WEIGHT in self.fixed else params)

    def _whole(self, params: Params) -> Params:
        """The classifier as it is evaluated: with what statistics gave it."""
        n_features = self.config.count_features(len(self.class_names))
        fixed = with_projection(self.fixed, self.embed_dim, n_features, self.config.seed)
        return params | fixed

    def _renew_fixed(self, grid: Grid, server_round: int) -> None:
        """Solve the inputs, once, and the anchor, again with each node whose statistics are new.

        Another rotation of the inputs would leave the weights that learnt from them without sense.
        """
        if self.config.anchor == "none":
            return
        first = INPUTS_WEIGHT not in self.fixed
        n_features = self.config.count_features(len(self.class_names))
        seen = protocol.RANDOM_GRAM if n_features else protocol.GRAM  # by the anchor
        kinds = {protocol.GRAM: first} | ({seen: True} if self.config.anchor == "ridge" else {})
        came = [
            kind
            for kind, is_wanted in kinds.items()
            if is_wanted and self._add_statistics(grid, server_round, kind)
        ]
        if not came:
            return
        if first and protocol.GRAM in came:
            self.fixed = self.fixed | solve_inputs(self._sums[protocol.GRAM])
        if self.config.anchor == "ridge" and seen in came:
            self.fixed = self.fixed | solve_anchor(self._sums[seen], self.config.anchor_scale)
        self._version += 1
        # The server evaluates what the nodes train on, codec and all.
        codec, rng = self.config.fixed_codec, generator(self.config.seed, "fixed", self._version)
        self._fixed_data = encode(self.fixed, codec, rng, self.config.zstd)
        self.fixed = decode(self._fixed_data, codec, shapes_of(self.fixed))

    def _add_statistics(self, grid: Grid, server_round: int, kind: str) -> bool:
        """Ask nodes that sent no sums of this kind so far, and add what comes: whether any did."""
        counted = self._counted.setdefault(kind, set())
        new = [i for i in self.available(grid) if self.prepared[i].name not in counted]
        found = self.collect_gram(grid, server_round, new, kind) if new else {}
        for node_id, stats in found.items():
            self._sums[kind] = add(self._sums[kind], stats) if kind in self._sums else stats
            counted.add(self.prepared[node_id].name)
        if found:
            log(INFO, "Statistics of %d nodes added; %d in all", len(found), len(counted))
        return bool(found)

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
        self._renew_fixed(grid, server_round)
        connected = self.available(grid)
        nodes = [i for i in connected if self._can_pay(server_round, i)]
        if len(nodes) < self.config.min_nodes:
            if len(connected) >= self.config.min_nodes:
                self._end_of_allowance(connected)
            log(WARNING, "Round skipped: %d of %d nodes", len(nodes), self.config.min_nodes)
            return []
        rng = generator(self.config.seed, "round", server_round)
        n_sampled = max(self.config.min_nodes, int(self.config.fraction_nodes * len(nodes)))
        drawn = rng.permutation(len(nodes))[:n_sampled]
        sampled = [nodes[i] for i in drawn]
        widths = hidden_widths(self._params)
        capacities = [self._affordable_share(server_round, node_id) for node_id in sampled]
        places = np.argsort(np.argsort(drawn)).tolist()
        subnets = self.deal(Dealing(widths, capacities, places, server_round, rng))
        for i, node_id in enumerate(sampled):
            subnet = subnets[i % len(subnets)]
            slice_ = extract(self._params, subnet)
            name, cost = self._name(node_id), self._cost(node_id, shapes_of(slice_))
            self._last_cost[name] = cost
            if cost <= self.allowance.left(server_round, name):
                self._errands[node_id] = Errand(subnet, capacities[i], slice_)
        self.counts.asked = len(self._errands)
        return [self._message(server_round, node_id, widths) for node_id in self._errands]

    # --- what a node may still receive and send ----------------------------------------------

    def reply_bytes(self, shapes: Shapes) -> int:
        """What a node answers to a slice of these shapes, at most."""
        return encoded_bytes(shapes, self.config.up_codec) + MESSAGE_OVERHEAD_BYTES

    def _cost(self, node_id: int, shapes: Shapes) -> int:
        """Bytes of a node's round with a slice of these shapes, down and up, at most."""
        down = encoded_bytes(shapes, self.config.down_codec) + MESSAGE_OVERHEAD_BYTES
        if self.fixed and self._has_version.get(node_id) != self._version:
            down += len(self._fixed_data)
        return down + self.reply_bytes(shapes)

    def _slice_cost(self, node_id: int, n_neurons: int) -> int:
        config = self.config
        widths = (self.embed_dim, *[n_neurons] * config.hidden_layers, len(self.class_names))
        return self._cost(node_id, param_shapes(widths, config.norm))

    def _least_cost(self, node_id: int) -> int:
        """Of the smallest slice that the strategy may deal."""
        is_sliced = self.config.strategy in SLICED
        return self._slice_cost(node_id, 1 if is_sliced else self.config.hidden_dim)

    def _can_pay(self, server_round: int, node_id: int) -> bool:
        """Whether a node may get a slice, and the run leaves it another one like its last."""
        name, least = self._name(node_id), self._least_cost(node_id)
        like_last = max(least, self._last_cost.get(name, 0))
        in_round = self.allowance.left_in_round(server_round, name)
        return least <= in_round and like_last <= self.allowance.left_in_run(name)

    def _affordable_share(self, server_round: int, node_id: int) -> float:
        """The node's capacity, or as many of the neurons as its allowance pays for."""
        capacity, width = self.prepared[node_id].capacity, self.config.hidden_dim
        left = self.allowance.left(server_round, self._name(node_id))
        if self.config.strategy not in SLICED or left == float("inf"):
            return capacity
        sizes = range(1, width + 1)
        too_many = bisect_left(sizes, True, key=lambda n: self._slice_cost(node_id, n) > left)
        return min(capacity, max(1, too_many) / width)

    def _end_of_allowance(self, node_ids: Sequence[int]) -> None:
        """Raise `AllowanceSpent`, or `InputError` where no round was possible at all."""
        if self._last_cost:
            limit = self.config.max_bytes_per_node or self.config.max_bytes_per_node_round
            raise AllowanceSpent(
                f"a limit of {limit} bytes per node leaves too few of them a slice"
            )
        needed = min(self._least_cost(node_id) for node_id in node_ids)
        raise InputError(f"{self.allowance.explain(needed, 'a round of a node')}.")

    def _message(self, server_round: int, node_id: int, widths: Mapping[str, int]) -> Message:
        errand, config = self._errands[node_id], self.config
        rng = generator(config.seed, "down", server_round, list(self._errands).index(node_id))
        task: dict[str, Any] = {
            protocol.ROUND: server_round,
            protocol.WIDTHS: layer_widths(errand.sent),
            protocol.SLICE: encode(errand.sent, config.down_codec, rng, config.zstd),
        }
        task |= self.task(errand.subnet.share(widths), errand.capacity)
        if self.fixed:
            task[protocol.FIXED_VERSION] = self._version
            if self._has_version.get(node_id) != self._version:
                task[protocol.FIXED_NAMES] = list(self.fixed)
                task[protocol.FIXED] = self._fixed_data
                self._has_version[node_id] = self._version
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
                    self._has_version.pop(node_id, None)
        if not accepted:
            return None, None
        # Replies come in any order; sums of floats do not forgive that.
        order = [node_id for node_id in self._errands if node_id in accepted]
        returned = [accepted[node_id] for node_id in order]
        self._params = self.combine(self._params, returned)
        loss = float(np.mean([losses[node_id] for node_id in order]))
        return to_record(self._whole(self._params)), MetricRecord({protocol.LOSS: loss})

    def _read(self, reply: Message, errand: Errand) -> tuple[tuple[Subnet, Params, int], float]:
        trained = self.read_trained(reply, errand.sent)
        n_examples, loss, seconds = read_outcome(reply)
        for name, array in trained.items():
            if name.endswith(".var") and (array < 0).any():
                raise RejectedError(f"'{name}' holds a variance below 0")
        self.counts.compute_s += seconds
        self.counts.multiply_adds += self.config.count_seen(n_examples) * multiply_adds(errand.sent)
        return (errand.subnet, trained, n_examples), loss
