"""Statistics of the nodes' embeddings: asked for once, checked, and counted."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from logging import WARNING
from typing import TypeVar

from flwr.app import Message
from flwr.common import log
from flwr.serverapp import Grid

from fed_ist import protocol
from fed_ist.capacity import MESSAGE_OVERHEAD_BYTES
from fed_ist.codecs import Shapes, encoded_bytes
from fed_ist.errors import InputError
from fed_ist.factors import noisy, restore
from fed_ist.possible import require_possible_gram, require_possible_sums
from fed_ist.statistics import Floats, Gram
from strategies.replies import RejectedError, read_encoded, rejecting, require_size
from strategies.rounds import RoundStrategy

Found = TypeVar("Found")


@dataclass
class GatheringStrategy(RoundStrategy):
    """A strategy that knows how to ask nodes for sums over their embeddings."""

    def collect(
        self,
        grid: Grid,
        server_round: int,
        node_ids: Sequence[int],
        kind: str,
        read: Callable[[Message, int], Found],
        n_bytes: int,
    ) -> Iterator[tuple[int, Found]]:
        """Statistics of the nodes' embeddings with their node's id, as they come.

        read: gets them out of a reply of a node with so many images, or raises `RejectedError`.
        n_bytes: of a reply, at most.
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
        awaited = set(node_ids)
        n_had = len(self.available(grid)) - len(node_ids)
        for reply in self.hear(grid, messages, timeout_s, n_had):
            node_id = reply.metadata.src_node_id
            try:
                if node_id not in awaited:
                    raise RejectedError("it was not asked, or has answered before")
                require_size(reply, self._enter(server_round, "up", reply), n_bytes)
                n_examples = int(self.prepared[node_id].counts[protocol.NUM_EXAMPLES])
                with rejecting():
                    found = read(reply, n_examples)
            except RejectedError as reason:
                self.counts.rejected += 1
                log(WARNING, "Statistics of node %d rejected: %s", node_id, reason)
            else:
                awaited.remove(node_id)
                yield node_id, found

    def collect_class_sums(
        self, grid: Grid, server_round: int, node_ids: Sequence[int]
    ) -> Iterator[tuple[int, Floats]]:
        """With a node's id, its sums of each class, as of `statistics.class_sums`."""
        codec = self.config.statistics_codec
        shapes = {protocol.CLASS_SUMS: (len(self.class_names), self.embed_dim + 1)}

        def read(reply: Message, n_examples: int) -> Floats:
            arrays = read_encoded(reply, protocol.STATISTICS, codec, shapes)
            sums = arrays[protocol.CLASS_SUMS]
            require_possible_sums(sums, n_examples, codec)
            return sums

        return self.collect(
            grid, server_round, node_ids, protocol.CLASS_SUMS, read, self._bytes(shapes)
        )

    def collect_gram(
        self, grid: Grid, server_round: int, node_ids: Sequence[int], kind: str
    ) -> Iterator[tuple[int, Gram]]:
        """With a node's id, sums over its embeddings, or over random features of them."""
        codec, n_classes = self.config.statistics_codec, len(self.class_names)
        n_features = self.config.count_features(n_classes)
        width = (self.embed_dim if kind == protocol.GRAM else n_features) + 1
        shapes = {
            protocol.GRAM: (width * (width + 1) // 2,),
            protocol.CLASS_SUMS: (n_classes, width),
        }
        sigma = self.config.statistics_noise

        def read(reply: Message, n_examples: int) -> Gram:
            arrays = read_encoded(reply, protocol.STATISTICS, codec, shapes)
            triangle, sums = arrays[protocol.GRAM], arrays[protocol.CLASS_SUMS]
            stats = noisy(triangle, sums, sigma, codec) if sigma else restore(triangle, sums, codec)
            require_possible_gram(stats, n_examples, codec)
            return stats

        return self.collect(grid, server_round, node_ids, kind, read, self._bytes(shapes))

    def _bytes(self, shapes: Shapes) -> int:
        """Of a reply with sums of these shapes, at most."""
        return encoded_bytes(shapes, self.config.statistics_codec) + MESSAGE_OVERHEAD_BYTES
