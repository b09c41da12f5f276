"""Statistics of the nodes' embeddings: asked for once, checked, and counted."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from logging import WARNING
from typing import TypeVar

import numpy as np
from flwr.app import Message
from flwr.common import log
from flwr.serverapp import Grid

from fed_ist import protocol
from fed_ist.capacity import MESSAGE_OVERHEAD_BYTES
from fed_ist.codecs import Shapes, encoded_bytes
from fed_ist.config.derive import count_features
from fed_ist.errors import InputError
from fed_ist.factors import noisy, restore
from fed_ist.possible import require_possible_gram, require_possible_sums
from fed_ist.statistics import Floats, Gram, scaled
from fed_ist.statistics_check import find_dissenters, variance_of_unit
from fed_ist.weights import bounded_weight
from strategies.replies import RejectedError, read_encoded, rejecting, require_size
from strategies.rounds import RoundStrategy

Found = TypeVar("Found")


@dataclass
class GatheringStrategy(RoundStrategy):
    """A strategy that knows how to ask nodes for sums over their embeddings."""

    def weight(self, node_id: int) -> int:
        """How many images a prepared node counts for: what it states, within `max-weight`."""
        counts = [int(node.counts[protocol.NUM_EXAMPLES]) for node in self.prepared.values()]
        stated = int(self.prepared[node_id].counts[protocol.NUM_EXAMPLES])
        return bounded_weight(stated, counts, self.config.max_weight)

    def share_counted(self, node_id: int) -> float:
        """The share of its images that a prepared node counts for."""
        return self.weight(node_id) / int(self.prepared[node_id].counts[protocol.NUM_EXAMPLES])

    def agreed_grams(self, found: Mapping[int, Gram], before: Gram | None = None) -> list[Gram]:
        """Of statistics by node those that do not go against the rest, within `max-weight`.

        before: what was added up of nodes that came earlier.
        """
        within = {i: scaled(stats, self.share_counted(i)) for i, stats in found.items()}
        sums = {i: stats.sums for i, stats in within.items()}
        noise = max((stats.noise for stats in within.values()), default=0.0)
        gone = self.dissenters(sums, None, noise, before)
        return [stats for i, stats in within.items() if i not in gone]

    def dissenters(
        self,
        sums: Mapping[int, Floats],
        variance: float | None = None,
        noise: float = 0.0,
        before: Gram | None = None,
    ) -> set[int]:
        """The nodes whose class sums go against the others', logged and counted as rejected.

        sums, noise: as of `statistics_check.find_dissenters`. variance: the same, None where
        embeddings have length 1. before: what is trusted already.
        """
        if self.config.dissenters == "keep" or not sums:
            return set()
        if variance is None:
            known = [*sums.values()] if before is None else [*sums.values(), before.sums]
            variance = variance_of_unit(np.sum(known, axis=0, dtype=np.float64))
        names = {self._name(node_id): node_id for node_id in sums}
        by_name = {name: sums[node_id] for name, node_id in sorted(names.items())}
        trusted = (None, 0.0) if before is None else (before.sums, before.noise)
        gone = find_dissenters(by_name, variance, noise, *trusted)
        for name, agreement in gone.items():
            self.counts.rejected += 1
            log(
                WARNING,
                "Statistics of node %s left out: they go against the others', as those of wrong "
                "labels do (they agree by %.2f, where 1 is usual and 0 is chance)",
                *(name, agreement.share),
            )
        return {names[name] for name in gone}

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
                log(WARNING, "Statistics of node %s rejected: %s", self._name(node_id), reason)
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
        n_features = count_features(self.config, n_classes)
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
