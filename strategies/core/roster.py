"""Which nodes there are: wait for them, have them prepare, know them when they return."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from logging import INFO, WARNING

from flwr.app import Message, MessageType
from flwr.common import log
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid

from fed_ist.classifier.node_weights import bounded_weights
from fed_ist.config.derive import capacity_levels, plan_workload
from fed_ist.config.run_config import RunConfig
from fed_ist.errors import InputError
from fed_ist.runs.checkpoint import State
from fed_ist.traffic import protocol
from fed_ist.training.boards import Device
from fed_ist.training.workload import explain_misfit, largest_slice
from strategies.core.naming import by_age, connected_nodes, key_name, own_name
from strategies.core.post import Post
from strategies.core.replies import (
    RejectedError,
    read_capacity,
    read_device,
    read_held,
    read_name,
    read_partition,
    read_prepared,
    rejecting,
    require_size,
)
from strategies.core.wire import message_bytes

POLL_S = 1.0
CAPACITIES = "capacities"  # key of a saved state: of nodes by name
PREPARED_BYTES = 1200  # of the answer of a node that is prepared, at most


class NameTakenError(Exception):
    """A node has the name of another, which is connected and had it first."""


@dataclass
class Prepared:
    """A node that has its embeddings ready.

    name: its partition where it is simulated; else what its owner calls it, or Flower's id.
    counts: what it states of its images, by the keys of `protocol.PREPARED`.
    capacity: the share of the neurons that it can train, in (0, 1]: what it was told, or less where
        a round has a deadline.
    held: the version of each part of the classifier from statistics that it has; 0 for none.
    """

    name: str
    counts: dict[str, float]
    capacity: float
    held: dict[str, int]

    @property
    def n_examples(self) -> int:
        """Images that it states to have."""
        return int(self.counts[protocol.NUM_EXAMPLES])


@dataclass
class Roster:
    """The nodes that are prepared, by Flower's ids, and what each can do.

    embed_dim: numbers in an embedding.
    prepared: nodes that have their embeddings ready. passed_over: ids of nodes that could not
    prepare, and are not asked again until they have been away.
    """

    config: RunConfig
    embed_dim: int
    post: Post
    prepared: dict[int, Prepared] = field(default_factory=dict)
    passed_over: set[int] = field(default_factory=set)
    _capacities: dict[str, float] = field(default_factory=dict)  # by name, of a resumed run
    _too_slow: set[str] = field(default_factory=set)
    _activated: dict[int, str] = field(default_factory=dict)  # when nodes came in, by the SuperLink
    _key_names: set[str] = field(default_factory=set)  # of registered keys that were seen

    def save(self) -> State:
        """The nodes' capacities; whatever else is known of nodes, they say when they prepare."""
        known = {node.name: node.capacity for node in self.prepared.values()}
        return State(values={CAPACITIES: self._capacities | known})

    def restore(self, state: State) -> None:
        """Go on from what `save` gave, before any node is prepared."""
        self._capacities = dict(state.values[CAPACITIES])

    # --- who takes part ----------------------------------------------------------------------

    def available(self, grid: Grid) -> list[int]:
        """Prepared nodes that are connected, in the order of their names."""
        # Flower draws a simulation's node ids at random; their names are the same in every run.
        names = {i: self.prepared[i].name for i in grid.get_node_ids() if i in self.prepared}
        return sorted(names, key=lambda i: (len(names[i]), names[i]))

    def weights(self) -> dict[int, int]:
        """How many images each prepared node counts for: what it states, within `max-weight`."""
        counts = {node_id: node.n_examples for node_id, node in self.prepared.items()}
        return bounded_weights(counts, self.config.max_weight)

    def wait(self, grid: Grid, timeout_s: float) -> bool:
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

    def require(self, grid: Grid, server_round: int = 0) -> None:
        """Wait for the nodes and prepare them; raises `InputError` where too few can take part.

        server_round: the last one that a resumed run has completed.
        """
        wanted = self.config.min_nodes
        if not self.wait(grid, self.config.round_timeout_s):
            raise InputError(
                f"min-nodes = {wanted}, but only {len(list(grid.get_node_ids()))} nodes are "
                "connected. Start more (fed-ist run --nodes N in a simulation) or lower min-nodes."
            )
        deadline = time.monotonic() + self.config.prepare_timeout_s
        seen, waiting = set(grid.get_node_ids()), self.post.waiting
        self.prepare(grid, server_round)
        # One that was away when it was asked may return, as over a link that loses much.
        while len(self.prepared) < wanted and time.monotonic() < deadline:
            seen |= set(grid.get_node_ids())
            names = self.post.names
            resting = {i for i in seen if waiting.rests.rests(names[i], server_round)}
            if not seen - self.passed_over - set(self.prepared) - resting:
                break
            time.sleep(POLL_S)
            self.prepare(grid, server_round)
        if len(self.prepared) < wanted:
            raise InputError(
                f"min-nodes = {wanted}, but only {len(self.prepared)} nodes could prepare their "
                "images. The log above says what is wrong with the others."
            )

    # --- preparation -------------------------------------------------------------------------

    def prepare(self, grid: Grid, server_round: int) -> None:
        """Have every node that is not prepared yet pack and encode its images.

        A node that fails is passed over until it has been away. One that was away is prepared
        again: it may have lost what it had in memory. One that takes long is heard when it is
        ready; if it is not within `prepare-timeout-s`, it is asked again some rounds later.
        """
        post, waiting = self.post, self.post.waiting
        known = connected_nodes(grid)
        connected = set(known)
        self._forget_returned(known)
        post.hear_late(grid, connected, server_round)
        unanswered = waiting.unanswered.items()
        earlier = {i: asked for i, asked in unanswered if asked.kind == MessageType.QUERY}
        at_work = {asked.node_id for asked in earlier.values()}
        left = connected - set(self.prepared) - self.passed_over - at_work
        new = sorted(i for i in left if not waiting.rests.rests(post.names[i], server_round))
        messages = self._questions(new, server_round)
        if not messages and not earlier:
            return
        n_had = len(connected & set(self.prepared))
        heard = post.hear(grid, messages, self.config.prepare_timeout_s, n_had, earlier)
        replies = {reply.metadata.src_node_id: reply for reply in heard}
        self._note_replies(replies, connected_nodes(grid))
        for message in messages:  # entered only now, as the replies bring the nodes' names
            post.enter(server_round, "down", message)
        for reply in replies.values():
            post.enter(server_round, "up", reply)

    def _questions(self, node_ids: Sequence[int], server_round: int) -> list[Message]:
        """What asks these nodes to prepare; who may not receive it is passed over from now on.

        Raises `InputError` where a run could not even begin.
        """
        if not node_ids:
            return []
        n = len(node_ids)
        log(INFO, "Preparing %d nodes: they mask, pack and encode what they have not yet", n)
        asked, post = {protocol.PROTOCOL: protocol.VERSION}, self.post
        timeout_s = self.config.prepare_timeout_s
        every = post.questions(MessageType.QUERY, asked, node_ids, server_round, timeout_s)
        messages = post.affordable(every, server_round, PREPARED_BYTES, "its preparation")
        if not messages and server_round == 0:
            needed = message_bytes(every[0]) + PREPARED_BYTES
            raise InputError(f"{post.allowance.explain(needed, 'preparing a node')}.")
        self.passed_over |= set(node_ids) - {m.metadata.dst_node_id for m in messages}
        return messages

    def _forget_returned(self, known: Mapping[int, NodeInfo]) -> None:
        """Forget that nodes were prepared, passed over or asked, that have been away in between.

        known: the nodes that are connected.
        """
        activated = {i: info.last_activated_at for i, info in known.items()}
        # One that restarts sooner than it is missed is told by when the SuperLink took it in.
        restarted = {i for i, at in activated.items() if self._activated.get(i, at) != at}
        away = self.post.away | restarted
        self._activated |= activated
        self.passed_over &= known.keys() - away
        for node_id in away & known.keys():
            self.prepared.pop(node_id, None)
        self.post.waiting.forget(away)
        self.post.away = self.prepared.keys() - known.keys()

    def _note_replies(self, replies: Mapping[int, Message], known: Mapping[int, NodeInfo]) -> None:
        """Take in the nodes that are prepared, those that registered first before the others."""
        late = set()
        for node_id in by_age(replies, known):
            try:
                self._take_in(node_id, replies[node_id], known)
            except NameTakenError as reason:
                late.add(node_id)
                self.post.counts.rejected += 1
                log(WARNING, "Node %d came later, and is asked again: %s", node_id, reason)
        for node_id in replies.keys() - self.prepared.keys() - late:
            self.passed_over.add(node_id)
            log(WARNING, "Node %d is passed over: it could not be prepared", node_id)

    def _take_in(self, node_id: int, reply: Message, known: Mapping[int, NodeInfo]) -> None:
        """known: the nodes that are connected. Raises `NameTakenError`."""
        try:
            with rejecting():
                require_size(reply, message_bytes(reply), PREPARED_BYTES)
                counts, device, held = read_prepared(reply), read_device(reply), read_held(reply)
                partition = read_partition(reply)
                capacity = read_capacity(reply, self._usual_capacity(partition))
                said = read_name(reply) or ("" if partition is None else str(partition))
            self._key_names |= {key_name(info) for info in known.values()} - {""}
            name = own_name(node_id, said, known.get(node_id), bool(self._key_names))
        except RejectedError as reason:
            self.post.counts.rejected += 1
            log(WARNING, "Node %d: %s", node_id, reason)
            return
        self._make_way(name, node_id, known)
        self.post.names[node_id] = name
        node = Prepared(name, counts, capacity, held)
        if self.config.round_deadline_s:
            in_time = min(capacity, self._share_in_time(node, device))
            node.capacity = self._capacities.get(name, in_time)  # measured again, it would differ
        self.prepared[node_id] = node

    def _make_way(self, name: str, node_id: int, known: Mapping[int, NodeInfo]) -> None:
        """Have a node take the place of the one that had its name so far, if that is gone, as where
        a device returns under another id of Flower's, or if the name is this one's key's alone.

        Raises `NameTakenError` otherwise: with another's name it would spend the other's bytes, and
        keep its statistics out. An id stays connected for some seconds after a cut.
        """
        named = [i for i, node in self.prepared.items() if node.name == name and i != node_id]
        for other in named:
            if other in known:
                if key_name(known.get(node_id)) != name or key_name(known[other]) == name:
                    raise NameTakenError(f"node {other}, which is connected, has the name '{name}'")
                why = f"'{name}' is the name of another node's key"
                log(WARNING, "Node %d is passed over: %s", other, why)
                self.passed_over.add(other)
                self.post.names[other] = str(other)
            del self.prepared[other]

    def _share_in_time(self, node: Prepared, device: Device) -> float:
        """The largest share of the neurons with which a node meets `round-deadline-s`."""
        deadline_s, width = self.config.round_deadline_s, self.config.hidden_dim
        n_classes = len(self.post.class_names)
        work = plan_workload(self.config, self.embed_dim, n_classes, node.n_examples)
        n_neurons = largest_slice(device, work, deadline_s)
        if n_neurons == 0 and node.name not in self._too_slow:
            self._too_slow.add(node.name)
            reason = explain_misfit(device, work, deadline_s)
            log(WARNING, "Node %s cannot meet round-deadline-s: %s", node.name, reason)
        n_neurons = max(1, n_neurons)
        log(INFO, "Node %s gets up to %d of %d neurons", node.name, n_neurons, width)
        return n_neurons / width

    def _usual_capacity(self, partition: int | None) -> float:
        """Simulated nodes take the levels in turn; others have the first until they say more."""
        levels = capacity_levels(self.config)
        return levels[0] if partition is None else levels[partition % len(levels)]
