"""What all strategies share of dealing with nodes: wait for them, prepare, ask, count bytes."""

import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from logging import INFO, WARNING

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.common import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fed_ist import protocol
from fed_ist.allowance import Allowance
from fed_ist.capacity import Device, explain_misfit, largest_slice, plan_workload
from fed_ist.checkpoint import Checkpoint, State
from fed_ist.config import RunConfig
from fed_ist.errors import InputError
from fed_ist.heads import Params, init_params
from fed_ist.ledger import Ledger, Transfer
from fed_ist.link_bytes import bytes_of_message
from fed_ist.rng import generator
from strategies.exchange import Heard, exchange
from strategies.replies import (
    RejectedError,
    read_capacity,
    read_device,
    read_held,
    read_name,
    read_partition,
    read_prepared,
    require_size,
)
from strategies.wire import from_record, message_bytes, payload_bytes, to_record, weigh

POLL_S = 1.0
CAPACITIES = "capacities"  # key of a saved state: of nodes by name
PREPARED_BYTES = 1200  # of the answer of a node that is prepared, at most
KINDS = {
    MessageType.QUERY: "prepare",
    protocol.STATISTICS_QUERY: "statistics",
    MessageType.TRAIN: "train",
}


class AllowanceSpent(Exception):  # noqa: N818 - it ends a run as it should end
    """Too few nodes may receive and send another slice."""


class NameTakenError(Exception):
    """Two nodes with one name are connected."""


@dataclass
class Prepared:
    """A node that has its embeddings ready.

    name: its partition where it is simulated; else what its owner calls it, or Flower's id.
    capacity: the share of the neurons that it can train, in (0, 1]: what it was told, or less where
        a round has a deadline.
    held: the version of each part of the classifier from statistics that it has; 0 for none.
    """

    name: str
    counts: dict[str, float]
    capacity: float
    held: dict[str, int]


@dataclass
class RoundCounts:
    """Nodes asked to train in a round, slices that came back, and replies that were refused.

    rejected: of any kind; also of nodes that were to prepare or to send statistics.
    compute_s: seconds that nodes whose replies were accepted spent on training, summed.
    multiply_adds: of this training, as the sizes of slices and of local data tell.
    """

    asked: int = 0
    answered: int = 0
    rejected: int = 0
    compute_s: float = 0.0
    multiply_adds: float = 0.0


@dataclass
class NodeStrategy(Strategy):
    """A Flower strategy that knows its nodes and counts every byte.

    class_names: the server's classes, by which nodes label their images.
    embed_dim: numbers in an embedding.
    ledger: gets a line for each message.
    """

    config: RunConfig
    class_names: tuple[str, ...]
    embed_dim: int
    ledger: Ledger
    allowance: Allowance = field(init=False)
    prepared: dict[int, Prepared] = field(default_factory=dict)
    counts: RoundCounts = field(default_factory=RoundCounts)
    ended_early: str = ""  # why, if it did
    _names: dict[int, str] = field(default_factory=dict)
    _capacities: dict[str, float] = field(default_factory=dict)  # by name, of a resumed run
    _passed_over: set[int] = field(default_factory=set)
    _away: set[int] = field(default_factory=set)  # of the prepared
    _too_slow: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        limits = self.config.max_bytes_per_node_round, self.config.max_bytes_per_node
        self.allowance = Allowance(*limits)

    @property
    def num_rounds(self) -> int:
        """How many rounds are to be run."""
        return self.config.num_rounds

    def initial(self, params: Params, grid: Grid) -> Params:
        """What the run starts from, once the nodes are prepared: `params` unless a method knows
        better.
        """
        return params

    def run(
        self,
        grid: Grid,
        evaluate_fn: Callable[[int, Params], None],
        resumed: Checkpoint | None = None,
    ) -> None:
        """All rounds, or those after the checkpoint's. The nodes have been required.

        evaluate_fn: called after each round, and with round 0 and what the run starts from.
        Ends earlier where `max-bytes-per-node` leaves too few nodes another slice.
        """
        try:
            if resumed is None:
                params = self.initial(self._drawn(), grid)
                evaluate_fn(0, params)
            else:
                params = resumed.params
            done = 0 if resumed is None else resumed.round
            for server_round in range(done + 1, self.num_rounds + 1):
                log(INFO, "[ROUND %d/%d]", server_round, self.num_rounds)
                params = self._one_round(server_round, params, grid)
                evaluate_fn(server_round, params)
        except AllowanceSpent as reason:
            self.ended_early = str(reason)
            log(WARNING, "The run ends here: %s", reason)

    def _drawn(self) -> Params:
        """A classifier drawn from the run's seed."""
        config = self.config
        return init_params(
            self.embed_dim,
            config.hidden_dim,
            len(self.class_names),
            generator(config.seed, "init"),
            config.hidden_layers,
            config.norm,
        )

    def _one_round(self, server_round: int, params: Params, grid: Grid) -> Params:
        """The classifier after a round; Flower's own loop cannot begin but with the first."""
        messages = self.configure_train(server_round, to_record(params), ConfigRecord(), grid)
        heard = self.hear(grid, list(messages), self.config.round_timeout_s)
        merged, metrics = self.aggregate_train(server_round, heard.replies)
        if merged is None:
            return params
        log(INFO, "Round %d: %s", server_round, metrics)
        return from_record(merged)

    def save(self) -> State:
        """What the strategy remembers between rounds, beside what nodes say when they prepare."""
        known = {node.name: node.capacity for node in self.prepared.values()}
        return State(values={CAPACITIES: self._capacities | known})

    def restore(self, state: State) -> None:
        """Go on from what `save` gave, before any node is prepared."""
        self.allowance.resume(self.ledger.bytes_of_node)
        self._capacities = dict(state.values[CAPACITIES])

    def hear(self, grid: Grid, messages: Sequence[Message], timeout_s: float) -> Heard:
        """Send messages, one a node, and wait for the replies; who does not answer is logged."""
        heard = exchange(grid, messages, timeout_s)
        for node_id in heard.away:
            log(WARNING, "Node %s is away: it has not answered", self._name(node_id))
        self._away |= self.prepared.keys() & set(heard.away)
        for node_id in heard.silent:
            log(WARNING, "Node %s has not answered within %g s", self._name(node_id), timeout_s)
        return heard

    def prepare(self, grid: Grid, server_round: int) -> None:
        """Have every node that is not prepared yet pack and encode its images.

        A node that fails or does not answer within `prepare-timeout-s` is passed over until it has
        been away. One that was away is prepared again: it may have lost what it had in memory.
        """
        connected = set(grid.get_node_ids())
        self._forget_returned(connected)
        new = sorted(connected - set(self.prepared) - self._passed_over)
        if not new:
            return
        log(INFO, "Preparing %d nodes: they mask, pack and encode their images", len(new))
        timeout_s = self.config.prepare_timeout_s
        asked = {protocol.PROTOCOL: protocol.VERSION}
        queries = self._queries(MessageType.QUERY, asked, new, server_round, timeout_s)
        messages = self._affordable(queries, server_round, PREPARED_BYTES, "its preparation")
        if not messages and server_round == 0:
            needed = message_bytes(queries[0]) + PREPARED_BYTES
            raise InputError(f"{self.allowance.explain(needed, 'preparing a node')}.")
        self._passed_over |= set(new) - {message.metadata.dst_node_id for message in messages}
        heard = self.hear(grid, messages, timeout_s)
        replies = {reply.metadata.src_node_id: reply for reply in heard.replies}
        connected = set(grid.get_node_ids())
        for message in messages:
            node_id = message.metadata.dst_node_id
            try:
                if node_id in replies:
                    self._note_prepared(node_id, replies[node_id], connected)
            except NameTakenError as reason:
                self.counts.rejected += 1
                log(WARNING, "Node %d is asked again in the next round: %s", node_id, reason)
                continue
            if node_id not in self.prepared and node_id not in heard.away:
                self._passed_over.add(node_id)
                log(WARNING, "Node %d is passed over: it could not be prepared", node_id)
        for message in messages:  # entered only now, as the replies bring the nodes' names
            node_id = message.metadata.dst_node_id
            self._enter(server_round, "down", message)
            if node_id in replies:
                self._enter(server_round, "up", replies[node_id])

    def _forget_returned(self, connected: set[int]) -> None:
        """Forget that nodes were prepared, or passed over, that have been away in between."""
        self._passed_over &= connected
        for node_id in self._away & connected:
            self.prepared.pop(node_id, None)
        self._away = set(self.prepared) - connected

    def _queries(
        self,
        message_type: str,
        asked: Mapping[str, str | int],
        node_ids: Sequence[int],
        server_round: int,
        timeout_s: float,
    ) -> list[Message]:
        """The same question to each node, with the classes by which it labels its images."""
        task = ConfigRecord({**asked, protocol.CLASS_NAMES: list(self.class_names)})
        return [
            Message(
                RecordDict({protocol.TASK: task}),
                dst_node_id=node_id,
                message_type=message_type,
                ttl=timeout_s,
                group_id=str(server_round),
            )
            for node_id in node_ids
        ]

    def _note_prepared(self, node_id: int, reply: Message, connected: Container[int]) -> None:
        try:
            require_size(reply, message_bytes(reply), PREPARED_BYTES)
            counts, device, held = read_prepared(reply), read_device(reply), read_held(reply)
            partition = read_partition(reply)
            capacity = read_capacity(reply, self._usual_capacity(partition))
            name = read_name(reply) or str(node_id if partition is None else partition)
            self._make_way(name, node_id, connected)
        except RejectedError as reason:
            self.counts.rejected += 1
            log(WARNING, "Node %d: %s", node_id, reason)
            return
        self._names[node_id] = name
        if self.config.round_deadline_s:
            n_examples = int(counts[protocol.NUM_EXAMPLES])
            capacity = min(capacity, self._share_in_time(name, device, n_examples))
            capacity = self._capacities.get(name, capacity)  # measured again, it would differ
        self.prepared[node_id] = Prepared(name, counts, capacity, held)

    def _make_way(self, name: str, node_id: int, connected: Container[int]) -> None:
        """A device that returns under another id of Flower's takes the place that it had; raises
        `NameTakenError` while that one is connected, as it is for some seconds after a cut.

        With another's name it would spend the other's bytes, and keep its statistics out.
        """
        named = [i for i, node in self.prepared.items() if node.name == name and i != node_id]
        for other in named:
            if other in connected:
                raise NameTakenError(f"node {other}, which is connected, is called '{name}' too")
            del self.prepared[other]

    def _share_in_time(self, name: str, device: Device, n_examples: int) -> float:
        """The largest share of the neurons with which a node meets `round-deadline-s`."""
        deadline_s, width = self.config.round_deadline_s, self.config.hidden_dim
        work = plan_workload(self.config, self.embed_dim, len(self.class_names), n_examples)
        n_neurons = largest_slice(device, work, deadline_s)
        if n_neurons == 0 and name not in self._too_slow:
            self._too_slow.add(name)
            reason = explain_misfit(device, work, deadline_s)
            log(WARNING, "Node %s cannot meet round-deadline-s: %s", name, reason)
        n_neurons = max(1, n_neurons)
        log(INFO, "Node %s gets up to %d of %d neurons", name, n_neurons, width)
        return n_neurons / width

    def _usual_capacity(self, partition: int | None) -> float:
        """Simulated nodes take the levels in turn; others have the first until they say more."""
        levels = self.config.capacity_levels
        return levels[0] if partition is None else levels[partition % len(levels)]

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

    def require_nodes(self, grid: Grid, server_round: int = 0) -> None:
        """Wait for the nodes and prepare them; raises `InputError` where too few can take part.

        server_round: the last one that a resumed run has completed.
        """
        wanted = self.config.min_nodes
        if not self.wait_for_nodes(grid, self.config.round_timeout_s):
            raise InputError(
                f"min-nodes = {wanted}, but only {len(list(grid.get_node_ids()))} nodes are "
                "connected. Start more (fed-ist run --nodes N in a simulation) or lower min-nodes."
            )
        self.prepare(grid, server_round)
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

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        return []

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        return None, None

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

    def _affordable(
        self, messages: Sequence[Message], server_round: int, reply_bytes: int, what: str
    ) -> list[Message]:
        """Those that their nodes may receive and answer, with so many bytes at most."""
        found = []
        for message in messages:
            name = self._name(message.metadata.dst_node_id)
            left = self.allowance.left(server_round, name)
            if message_bytes(message) + reply_bytes <= left:
                found.append(message)
            else:
                log(INFO, "Node %s has %d bytes left, too few for %s", name, left, what)
        return found

    def _name(self, node_id: int) -> str:
        return self._names.get(node_id, str(node_id))

    def _enter(self, server_round: int, direction: str, message: Message) -> int:
        """Write a message to or from a node into the ledger; returns its bytes."""
        metadata = message.metadata
        node_id = metadata.dst_node_id if direction == "down" else metadata.src_node_id
        kind = "error" if message.has_error() else KINDS[metadata.message_type]
        payload, (whole, n_objects) = payload_bytes(message), weigh(message)
        link = bytes_of_message(direction, whole, n_objects)
        name = self._name(node_id)
        self.ledger.add(
            Transfer(
                server_round, name, direction, kind, payload, whole, n_objects, link.down, link.up
            )
        )
        self.allowance.enter(server_round, name, whole)
        return whole
