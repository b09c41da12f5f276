"""What crosses the wire: messages are made, weighed, and kept within nodes' limits."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from logging import INFO

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.common import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fed_ist import protocol
from fed_ist.allowance import Allowance
from fed_ist.config.run_config import RunConfig
from fed_ist.ledger import Ledger, Transfer
from fed_ist.link_bytes import bytes_of_message
from strategies.wire import message_bytes, payload_bytes, weigh

KINDS = {
    MessageType.QUERY: "prepare",
    protocol.STATISTICS_QUERY: "statistics",
    MessageType.TRAIN: "train",
}


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
class CountingStrategy(Strategy):
    """A Flower strategy that counts every byte.

    class_names: the server's classes, by which nodes label their images.
    embed_dim: numbers in an embedding.
    ledger: gets a line for each message.
    """

    config: RunConfig
    class_names: tuple[str, ...]
    embed_dim: int
    ledger: Ledger
    allowance: Allowance = field(init=False)
    counts: RoundCounts = field(default_factory=RoundCounts)
    _names: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        limits = self.config.max_bytes_per_node_round, self.config.max_bytes_per_node
        self.allowance = Allowance(*limits)

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
        # A node may give its answer any type.
        kind = "error" if message.has_error() else KINDS.get(metadata.message_type, "unknown")
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

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Nothing: the server evaluates, so that the classifier is never sent whole."""
        return []

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        return None
