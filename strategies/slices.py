"""What all strategies share: prepare the nodes, deal slices, check the replies, merge, count bytes.

A strategy is a rule for which slice of the classifier goes to which node; the rest stands here.
Flower's own `FedAvg` does not serve: it sends one payload to all, samples with the global random
state, and accepts arrays of any shape.
"""

import time
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from logging import INFO, WARNING

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.common import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fed_ist import protocol
from fed_ist.config import RunConfig
from fed_ist.errors import InputError
from fed_ist.heads import Params, hidden_widths
from fed_ist.ist import Subnet, extract, merge
from fed_ist.ledger import Ledger, Transfer
from fed_ist.rng import generator
from strategies.replies import RejectedError, read_metrics, read_slice
from strategies.wire import from_record, message_bytes, payload_bytes, to_record

POLL_S = 1.0


@dataclass
class Prepared:
    """A node that has its embeddings ready. `name` is its partition where it is simulated."""

    name: str
    counts: dict[str, float]


@dataclass
class RoundCounts:
    """Nodes asked in a round, replies that came, and how many of these were refused."""

    asked: int = 0
    answered: int = 0
    rejected: int = 0


@dataclass(frozen=True)
class Errand:
    """What one node was asked to train."""

    subnet: Subnet
    sent: Params


@dataclass
class SliceStrategy(Strategy):
    """A Flower strategy that deals slices of the classifier to nodes.

    class_names: the server's classes, by which nodes label their images.
    ledger: gets a line for each message.
    """

    config: RunConfig
    class_names: tuple[str, ...]
    ledger: Ledger
    prepared: dict[int, Prepared] = field(default_factory=dict)
    counts: RoundCounts = field(default_factory=RoundCounts)
    _passed_over: set[int] = field(default_factory=set)
    _errands: dict[int, Errand] = field(default_factory=dict)
    _params: Params = field(default_factory=dict)

    @abstractmethod
    def deal(
        self, widths: Mapping[str, int], n_nodes: int, rng: np.random.Generator
    ) -> list[Subnet]:
        """The subnets of this round; node i of those sampled trains number i modulo their count."""

    @abstractmethod
    def scale(self, n_groups: int) -> float:
        """What the hidden neurons of a slice are multiplied by while it trains."""

    # --- nodes -------------------------------------------------------------------------------

    def prepare(self, grid: Grid, server_round: int) -> None:
        """Have every node that is not prepared yet pack and encode its images.

        A node that fails or does not answer within `prepare-timeout-s` is passed over for the rest
        of the run.
        """
        new = sorted(set(grid.get_node_ids()) - set(self.prepared) - self._passed_over)
        if not new:
            return
        log(INFO, "Preparing %d nodes: they mask, pack and encode their images", len(new))
        task = ConfigRecord({protocol.CLASS_NAMES: list(self.class_names)})
        messages = [
            Message(
                RecordDict({protocol.TASK: task}),
                dst_node_id=node_id,
                message_type=MessageType.QUERY,
                ttl=self.config.prepare_timeout_s,
                group_id=str(server_round),
            )
            for node_id in new
        ]
        timeout_s = self.config.prepare_timeout_s
        replies = {
            reply.metadata.src_node_id: reply
            for reply in grid.send_and_receive(messages, timeout=timeout_s)
        }
        for message in messages:
            node_id = message.metadata.dst_node_id
            if node_id in replies:
                self._note_prepared(node_id, replies[node_id])
            if node_id not in self.prepared:
                self._passed_over.add(node_id)
                log(WARNING, "Node %d is passed over: it could not be prepared", node_id)
        for message in messages:  # entered only now, as the replies bring the nodes' names
            node_id = message.metadata.dst_node_id
            name = self.prepared[node_id].name if node_id in self.prepared else str(node_id)
            self._enter(server_round, name, "down", message)
            if node_id in replies:
                self._enter(server_round, name, "up", replies[node_id])

    def _note_prepared(self, node_id: int, reply: Message) -> None:
        try:
            counts = read_metrics(reply, protocol.PREPARED)
        except RejectedError as reason:
            log(WARNING, "Node %d: %s", node_id, reason)
            return
        name = reply.content.metric_records[protocol.METRICS].get(protocol.PARTITION, node_id)
        self.prepared[node_id] = Prepared(str(name), counts)

    def wait_for_nodes(self, grid: Grid, timeout_s: float) -> bool:
        """Whether `min-nodes` nodes are connected, waiting for them up to `timeout_s`."""
        deadline, told = time.monotonic() + timeout_s, -1
        while (n_connected := len(list(grid.get_node_ids()))) < self.config.min_nodes:
            if time.monotonic() > deadline:
                return False
            if n_connected != told:
                wanted = self.config.min_nodes
                log(INFO, "%d of %d nodes connected; waiting %g s", n_connected, wanted, timeout_s)
                told = n_connected
            time.sleep(POLL_S)
        return True

    def require_nodes(self, grid: Grid) -> None:
        """Wait for the nodes and prepare them; raises `InputError` where too few can take part."""
        wanted = self.config.min_nodes
        if not self.wait_for_nodes(grid, self.config.round_timeout_s):
            raise InputError(
                f"min-nodes = {wanted}, but only {len(list(grid.get_node_ids()))} nodes are "
                "connected. Start more (fed-ist run --nodes N in a simulation) or lower min-nodes."
            )
        self.prepare(grid, 0)
        if len(self.prepared) < wanted:
            raise InputError(
                f"min-nodes = {wanted}, but only {len(self.prepared)} nodes could prepare their "
                "images. The log above says what is wrong with the others."
            )

    def available(self, grid: Grid) -> list[int]:
        """Prepared nodes that are connected, in the order of their names."""
        # Flower draws a simulation's node ids at random; their names are the same in every run.
        names = {i: self.prepared[i].name for i in grid.get_node_ids() if i in self.prepared}
        return sorted(names, key=lambda i: (len(names[i]), names[i]))

    # --- rounds ------------------------------------------------------------------------------

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """One message a node, each with its own slice."""
        self._params = from_record(arrays)
        self._errands = {}
        self.counts = RoundCounts()
        self.wait_for_nodes(grid, self.config.round_timeout_s)
        self.prepare(grid, server_round)
        nodes = self.available(grid)
        if len(nodes) < self.config.min_nodes:
            log(WARNING, "Round skipped: %d of %d nodes", len(nodes), self.config.min_nodes)
            return []
        rng = generator(self.config.seed, "round", server_round)
        n_sampled = max(self.config.min_nodes, int(self.config.fraction_nodes * len(nodes)))
        sampled = [nodes[i] for i in rng.permutation(len(nodes))[:n_sampled]]
        subnets = self.deal(hidden_widths(self._params), len(sampled), rng)
        for i, node_id in enumerate(sampled):
            subnet = subnets[i % len(subnets)]
            self._errands[node_id] = Errand(subnet, extract(self._params, subnet))
        self.counts.asked = len(sampled)
        return self._messages(server_round, self.scale(len(subnets)))

    def _messages(self, server_round: int, scale: float) -> list[Message]:
        messages = []
        task = ConfigRecord({protocol.ROUND: server_round, protocol.SCALE: scale})
        for node_id, errand in self._errands.items():
            message = Message(
                RecordDict({protocol.ARRAYS: to_record(errand.sent), protocol.TASK: task}),
                dst_node_id=node_id,
                message_type=MessageType.TRAIN,
                ttl=self.config.round_timeout_s,
                group_id=str(server_round),
            )
            self._enter(server_round, self.prepared[node_id].name, "down", message)
            messages.append(message)
        return messages

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
                name = self.prepared[node_id].name
                self._enter(server_round, name, "up", reply)
                errand = self._errands[node_id]
                params, n_examples, losses[node_id] = read_slice(reply, errand.sent)
                accepted[node_id] = (errand.subnet, params, n_examples)
            except RejectedError as reason:
                self.counts.rejected += 1
                log(WARNING, "Reply of node %d rejected: %s", node_id, reason)
                if reply.has_error():  # it may have lost its embeddings: prepare it once more
                    self.prepared.pop(node_id, None)
        if not accepted:
            return None, None
        # Replies come in any order; sums of floats do not forgive that.
        order = [node_id for node_id in self._errands if node_id in accepted]
        self._params = merge(self._params, [accepted[node_id] for node_id in order])
        loss = float(np.mean([losses[node_id] for node_id in order]))
        return to_record(self._params), MetricRecord({protocol.LOSS: loss})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Nothing: the server evaluates, so that the classifier is never sent whole."""
        return []

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        return None

    def summary(self) -> None:
        log(INFO, "\t%s on %d nodes", type(self).__name__, len(self.prepared))

    def _enter(self, server_round: int, node: str, direction: str, message: Message) -> None:
        kinds = {MessageType.QUERY: "prepare", MessageType.TRAIN: "train"}
        kind = "error" if message.has_error() else kinds[message.metadata.message_type]
        payload = payload_bytes(message)
        self.ledger.add(
            Transfer(server_round, node, direction, kind, payload, message_bytes(message))
        )
