"""Statistics of the nodes' embeddings: asked for once, checked, and counted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from logging import WARNING
from typing import Any

from flwr.app import Message
from flwr.common import log
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fed_ist import protocol
from fed_ist.capacity import MESSAGE_OVERHEAD_BYTES
from fed_ist.codecs import Shapes, encoded_bytes
from fed_ist.errors import InputError
from fed_ist.statistics import Gram
from strategies.nodes import NodeStrategy
from strategies.replies import RejectedError, read_encoded

Arrays = dict[str, NDArray[Any]]


@dataclass
class GatheringStrategy(NodeStrategy):
    """A strategy that knows how to ask nodes for sums over their embeddings."""

    def collect(
        self,
        grid: Grid,
        server_round: int,
        node_ids: Sequence[int],
        kind: str,
        read: Callable[[Message], Arrays],
        n_bytes: int,
    ) -> dict[int, Arrays]:
        """Statistics of the nodes' embeddings, node id -> arrays; who sends none is left out.

        read: gets them out of a reply, or raises `RejectedError`. n_bytes: of a reply, at most.
        Raises `InputError` where no node may send as much.
        """
        timeout_s, asked = self.config.round_timeout_s, {protocol.STATISTICS: kind}
        query = protocol.STATISTICS_QUERY
        messages = self._queries(query, asked, node_ids, server_round, timeout_s)
        messages = self._affordable(messages, server_round, n_bytes, "its statistics")
        if node_ids and not messages and not server_round:
            reason = self.allowance.explain(n_bytes, "preparing a node and its statistics")
            raise InputError(f"{reason}, or do without statistics.")
        for message in messages:
            self._enter(server_round, "down", message)
        found: dict[int, Arrays] = {}
        for reply in self.hear(grid, messages, timeout_s).replies:
            node_id = reply.metadata.src_node_id
            try:
                if node_id not in node_ids or node_id in found:
                    raise RejectedError("it was not asked, or has answered before")
                self._enter(server_round, "up", reply)
                found[node_id] = read(reply)
            except RejectedError as reason:
                log(WARNING, "Statistics of node %d rejected: %s", node_id, reason)
        return {node_id: found[node_id] for node_id in node_ids if node_id in found}

    def collect_sums(
        self, grid: Grid, server_round: int, node_ids: Sequence[int], kind: str, shapes: Shapes
    ) -> dict[int, Arrays]:
        """The same for those that come in `statistics-codec`."""

        def read(reply: Message) -> Arrays:
            codec = self.config.statistics_codec
            return dict(read_encoded(reply, protocol.STATISTICS, codec, shapes))

        n_bytes = encoded_bytes(shapes, self.config.statistics_codec) + MESSAGE_OVERHEAD_BYTES
        return self.collect(grid, server_round, node_ids, kind, read, n_bytes)

    def collect_gram(
        self, grid: Grid, server_round: int, node_ids: Sequence[int], kind: str
    ) -> dict[int, Gram]:
        """Sums over a node's embeddings, or over random features of them, by node id."""
        n_classes = len(self.class_names)
        n_features = self.config.count_features(n_classes)
        width = (self.embed_dim if kind == protocol.GRAM else n_features) + 1
        shapes = {
            protocol.GRAM: (width * (width + 1) // 2,),
            protocol.CLASS_SUMS: (n_classes, width),
        }
        found = self.collect_sums(grid, server_round, node_ids, kind, shapes)
        noise = self.config.statistics_noise**2
        return {
            node_id: Gram(arrays[protocol.GRAM], arrays[protocol.CLASS_SUMS], noise)
            for node_id, arrays in found.items()
        }
