"""The server's post: messages are made, weighed, sent, heard, and written into the ledger."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from logging import INFO, WARNING

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.common import log
from flwr.serverapp import Grid
from flwr.superlink.grid import InMemoryGrid

from fed_ist.config.run_config import RunConfig
from fed_ist.traffic import protocol
from fed_ist.traffic.allowance import Allowance
from fed_ist.traffic.ledger import Ledger, Transfer
from fed_ist.traffic.packets import bytes_of_message
from strategies.core.exchange import OF_SUPERLINK, Asked, Progress, exchange, pull
from strategies.core.waiting import Names, Waiting
from strategies.core.wire import message_bytes, payload_bytes, weigh

KINDS = {
    MessageType.QUERY: "prepare",
    protocol.STATISTICS_QUERY: "statistics",
    MessageType.TRAIN: "train",
}


@dataclass
class RoundCounts:
    """How many nodes were asked to train in a round, and how many of their replies were used.

    answered: slices that came back. rejected: replies of any kind that were refused; also of nodes
    that were to prepare or to send statistics.
    compute_s: seconds that nodes whose replies were accepted spent on training, summed.
    multiply_adds: of this training, as the sizes of slices and of local data tell.
    """

    asked: int = 0
    answered: int = 0
    rejected: int = 0
    compute_s: float = 0.0
    multiply_adds: float = 0.0


@dataclass
class Post:
    """Sends messages to nodes, hears their replies, and counts every byte.

    class_names: the server's classes, by which nodes label their images.
    ledger: gets a line for each message.
    names: what nodes are called. away: ids of nodes that were found to be away, until the roster
    has taken note of them. counts: of the present round.
    """

    config: RunConfig
    class_names: tuple[str, ...]
    ledger: Ledger
    allowance: Allowance = field(init=False)
    names: Names = field(default_factory=Names)
    waiting: Waiting = field(init=False)
    away: set[int] = field(default_factory=set)
    counts: RoundCounts = field(default_factory=RoundCounts)

    def __post_init__(self) -> None:
        limits = self.config.max_bytes_per_node_round, self.config.max_bytes_per_node
        self.allowance = Allowance(*limits)
        self.waiting = Waiting(self.config, self.names)

    def reject(self, node_id: int, what: str, reason: object) -> None:
        """Count something of a node that is not used, and log why."""
        self.counts.rejected += 1
        log(WARNING, "%s of node %s rejected: %s", what, self.names[node_id], reason)

    # --- messages ----------------------------------------------------------------------------

    def questions(
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

    def affordable(
        self, messages: Sequence[Message], server_round: int, reply_bytes: int, what: str
    ) -> list[Message]:
        """Those messages that their nodes may receive and answer.

        reply_bytes: of an answer, at most. what: it is for, in the log.
        """
        found = []
        for message in messages:
            name = self.names[message.metadata.dst_node_id]
            left = self.allowance.left(server_round, name)
            if message_bytes(message) + reply_bytes <= left:
                found.append(message)
            else:
                log(INFO, "Node %s has %d bytes left, too few for %s", name, left, what)
        return found

    def enter(self, server_round: int, direction: str, message: Message) -> int:
        """Write a message to or from a node into the ledger; returns its bytes.

        direction: "down" to the node, "up" from it.
        """
        metadata = message.metadata
        node_id = metadata.dst_node_id if direction == "down" else metadata.src_node_id
        # A node may give its answer any type.
        kind = "error" if message.has_error() else KINDS.get(metadata.message_type, "unknown")
        payload, (whole, n_objects) = payload_bytes(message), weigh(message)
        link = bytes_of_message(direction, whole, n_objects)
        name = self.names[node_id]
        self.ledger.add(
            Transfer(
                server_round, name, direction, kind, payload, whole, n_objects, link.down, link.up
            )
        )
        self.allowance.enter(server_round, name, whole)
        return whole

    # --- what comes back ---------------------------------------------------------------------

    def hear(
        self,
        grid: Grid,
        messages: Iterable[Message],
        timeout_s: float,
        n_had: int = 0,
        earlier: Mapping[str, Asked] | None = None,
    ) -> Iterator[Message]:
        """Send messages, one a node, and yield the replies; who does not answer is logged.

        It ends once `enough-share` of the nodes, and `min-nodes`, have answered and a grace time is
        over. n_had: nodes that count as if they had, and are not asked. earlier: messages of before
        to which replies are taken too, though they are not waited for once there are enough.
        """
        kind, group = "", ""
        share = self.awaited_share(grid)

        def noted() -> Iterator[Message]:
            nonlocal kind, group
            for message in messages:
                kind, group = message.metadata.message_type, message.metadata.group_id
                yield message

        def lacking(progress: Progress) -> int:
            return self.waiting.count_lacking(progress, n_had, share)

        def until_s(progress: Progress) -> float:
            return self.waiting.until_s(kind, int(group or 0), progress, lacking(progress))

        missing = yield from exchange(grid, noted(), timeout_s, until_s, earlier)
        for message_id in earlier or {}:
            self.waiting.unanswered.pop(message_id, None)
        is_enough = lacking(missing.progress) <= 0
        self.waiting.note(kind, int(group or 0), missing, is_enough)
        self.away |= set(missing.away)
        if missing.n_foreign:
            self.counts.rejected += missing.n_foreign
            log(WARNING, "%d replies rejected: of other nodes than they say", missing.n_foreign)

    def awaited_share(self, grid: Grid) -> float:
        """The share of the nodes that can answer which are waited for at any rate."""
        # A simulation's nodes take turns on this machine: none of them is late.
        return 1.0 if isinstance(grid, InMemoryGrid) else self.config.enough_share

    def hear_late(self, grid: Grid, connected: Collection[int], server_round: int) -> None:
        """Take note of answers that came when nobody waited for them any more."""
        waiting = self.waiting
        waiting.drop_closed(connected, server_round)
        ids = [i for i, a in waiting.unanswered.items() if a.kind != MessageType.QUERY]
        before_s = dict(waiting.heard_s)
        for reply in pull(grid, ids):
            found = waiting.unanswered.pop(reply.metadata.reply_to_message_id, None)
            if found is None or (reply.has_error() and reply.error.code in OF_SUPERLINK):
                continue
            self.enter(server_round, "up", reply)
            waiting.note_late(found, before_s)
