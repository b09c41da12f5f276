"""Statistics of the nodes' embeddings: asked for once, checked, and held against each other."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from logging import WARNING
from typing import Any, Generic, TypeVar

import numpy as np
from flwr.app import Message
from flwr.common import log
from flwr.serverapp import Grid

from fed_ist.classifier.node_weights import low_median
from fed_ist.config.derive import count_features
from fed_ist.config.run_config import RunConfig
from fed_ist.errors import InputError
from fed_ist.statistics.class_means import ClassSums
from fed_ist.statistics.coarse import (
    COUNT_BYTES,
    MEANS,
    coarse_shapes,
    gram_of,
    rounding_of_sums,
    sums_of,
)
from fed_ist.statistics.factors import STEPS, from_factor, noisy
from fed_ist.statistics.gaussians import Gaussians, within_share
from fed_ist.statistics.plausible import (
    require_possible_counts,
    require_possible_gaussians,
    require_possible_gram,
    require_possible_means,
    require_possible_sums,
)
from fed_ist.statistics.ridge import Floats, Gram, scaled
from fed_ist.statistics.wrong_labels import find_dissenters, inner_variance
from fed_ist.traffic import protocol
from fed_ist.traffic.codecs import Shapes, encoded_bytes
from fed_ist.training.workload import MESSAGE_OVERHEAD_BYTES
from strategies.core.method import Layout
from strategies.core.post import Post
from strategies.core.replies import (
    RejectedError,
    read_arrays,
    read_counts,
    read_encoded,
    rejecting,
    require_size,
)
from strategies.core.roster import Roster

Stats = TypeVar("Stats")


@dataclass(frozen=True)
class Kind(Generic[Stats]):
    """One kind of statistics that nodes can be asked for.

    n_bytes: of a reply, at most. read: gets them out of a reply, given the number of the node's
    images, or raises `RejectedError` or `ValueError`. share: the same statistics of a share of the
    images, in (0, 1]. sums: each class's sum and count (num_classes, d + 1), by which nodes are
    held against each other. noise: the variance of what was added to each number of the sums.
    variance: of an embedding about its class's mean, by the statistics of some nodes and the total
    of all sums.
    """

    n_bytes: int
    read: Callable[[Message, int], Stats]
    share: Callable[[Stats, float], Stats]
    sums: Callable[[Stats], Floats]
    noise: Callable[[Stats], float] = lambda _: 0.0
    variance: Callable[[Sequence[Stats], Floats], float] = lambda _, total: inner_variance(total)


@dataclass
class Gathering:
    """Asks nodes for statistics of their embeddings, and leaves out what cannot be right."""

    config: RunConfig
    post: Post
    roster: Roster

    def kind(self, name: str) -> Kind[Any]:
        """What is asked for under one of the protocol's words for statistics."""
        if name == protocol.GAUSSIANS:
            return self._gaussians()
        if name == protocol.CLASS_SUMS:
            return self._class_sums()
        return self._gram(name)

    def collect(
        self, grid: Grid, server_round: int, node_ids: Sequence[int], name: str
    ) -> Iterator[tuple[int, Any]]:
        """The statistics of this kind, each with its node's id, as they come.

        Raises `InputError` where no node may send as many bytes.
        """
        kind, post = self.kind(name), self.post
        timeout_s, asked = self.config.round_timeout_s, {protocol.STATISTICS: name}
        query = protocol.STATISTICS_QUERY
        messages = post.questions(query, asked, node_ids, server_round, timeout_s)
        messages = post.affordable(messages, server_round, kind.n_bytes, "its statistics")
        if node_ids and not messages and not server_round:
            what = "preparing a node and its statistics"
            reason = post.allowance.explain(kind.n_bytes, what)
            raise InputError(f"{reason}, or do without statistics.")
        for message in messages:
            post.enter(server_round, "down", message)
        awaited = set(node_ids)
        n_had = len(self.roster.available(grid)) - len(node_ids)
        for reply in post.hear(grid, messages, timeout_s, n_had):
            node_id = reply.metadata.src_node_id
            try:
                if node_id not in awaited:
                    raise RejectedError("it was not asked, or has answered before")
                require_size(reply, post.enter(server_round, "up", reply), kind.n_bytes)
                with rejecting():
                    found = kind.read(reply, self.roster.prepared[node_id].n_examples)
            except RejectedError as reason:
                post.reject(node_id, "Statistics", reason)
            else:
                awaited.remove(node_id)
                yield node_id, found

    def agreed(
        self, name: str, found: Mapping[int, Any], before: Gram | None = None
    ) -> dict[int, Any]:
        """Of statistics by node those that do not go against the rest, within `max-weight`.

        before: what was added up of nodes that came earlier.
        """
        kind, weights, prepared = self.kind(name), self.roster.weights(), self.roster.prepared
        within = {
            node_id: kind.share(stats, weights[node_id] / prepared[node_id].n_examples)
            for node_id, stats in found.items()
        }
        gone = self._dissenters(kind, within, before)
        return {node_id: stats for node_id, stats in within.items() if node_id not in gone}

    def _dissenters(
        self, kind: Kind[Any], found: Mapping[int, Any], before: Gram | None
    ) -> set[int]:
        """The nodes whose class sums go against the others', logged and counted as rejected."""
        if self.config.dissenters == "keep" or not found:
            return set()
        sums = {node_id: kind.sums(stats) for node_id, stats in found.items()}
        trusted = (None, 0.0) if before is None else (before.sums, before.noise)
        known = [*sums.values()] if before is None else [*sums.values(), before.sums]
        stats = list(found.values())
        variance = kind.variance(stats, np.sum(known, axis=0, dtype=np.float64))
        noise = max(kind.noise(each) for each in stats)
        names = {self.post.names[node_id]: node_id for node_id in sums}
        by_name = {name: sums[node_id] for name, node_id in sorted(names.items())}
        gone = find_dissenters(by_name, variance, noise, *trusted)
        for name, agreement in gone.items():
            self.post.counts.rejected += 1
            log(
                WARNING,
                "Statistics of node %s left out: they go against the others', as those of wrong "
                "labels do (they agree by %.2f, where 1 is usual and 0 is chance)",
                *(name, agreement.share),
            )
        return {names[name] for name in gone}

    # --- kinds of statistics -----------------------------------------------------------------

    def _class_sums(self) -> Kind[ClassSums]:
        """Each class's sum of embeddings and count, as `ridge.class_sums` makes them."""
        codec, is_coarse = self.config.statistics_codec, self._is_coarse
        n_classes, embed_dim = self._n_classes, self.roster.embed_dim
        shapes: Shapes = {protocol.CLASS_SUMS: (n_classes, embed_dim + 1)}
        if is_coarse:
            shapes = coarse_shapes(n_classes, embed_dim, with_root=False)

        def read(reply: Message, n_examples: int) -> ClassSums:
            arrays = read_encoded(reply, protocol.STATISTICS, codec, shapes)
            if not is_coarse:
                sums = arrays[protocol.CLASS_SUMS]
                require_possible_sums(sums, n_examples, codec)
                return ClassSums(sums)
            counts = read_counts(reply, n_classes)
            require_possible_counts(counts, n_examples)
            require_possible_means(arrays[MEANS], codec)
            return ClassSums(sums_of(arrays, counts), rounding_of_sums(arrays, counts, codec))

        def share(found: ClassSums, part: float) -> ClassSums:
            return ClassSums(part * found.sums.astype(np.float64), part**2 * found.noise)

        return Kind(
            self._bytes(shapes), read, share, lambda found: found.sums, lambda found: found.noise
        )

    def _gram(self, name: str) -> Kind[Gram]:
        """Sums over products of embeddings, or of random features of them, beside class sums."""
        codec, sigma = self.config.statistics_codec, self.config.statistics_noise
        n_classes, is_coarse = self._n_classes, self._is_coarse
        n_features = count_features(self.config, n_classes)
        d = self.roster.embed_dim if name == protocol.GRAM else n_features
        shapes: Shapes = {
            protocol.GRAM: ((d + 1) * (d + 2) // 2,),
            protocol.CLASS_SUMS: (n_classes, d + 1),
        }
        if is_coarse:
            shapes = coarse_shapes(n_classes, d, with_root=True)

        def read(reply: Message, n_examples: int) -> Gram:
            arrays = read_encoded(reply, protocol.STATISTICS, codec, shapes)
            if is_coarse:
                about = read_encoded(reply, protocol.REFERENCE, "fp16", {protocol.REFERENCE: (d,)})
                counts = read_counts(reply, n_classes)
                require_possible_counts(counts, n_examples)
                stats = gram_of(arrays, counts, about[protocol.REFERENCE], codec)
            else:
                triangle, sums = arrays[protocol.GRAM], arrays[protocol.CLASS_SUMS]
                stats = (
                    noisy(triangle, sums, sigma, codec)
                    if sigma
                    else from_factor(triangle, sums, codec)
                )
            require_possible_gram(stats, n_examples, codec)
            return stats

        return Kind(
            self._bytes(shapes) + (2 * d if is_coarse else 0),
            read,
            scaled,
            lambda stats: stats.sums,
            lambda stats: stats.noise,
        )

    def _gaussians(self) -> Kind[Gaussians]:
        """A Gaussian of each class's embeddings."""
        n_classes, embed_dim = self._n_classes, self.roster.embed_dim
        wanted: Layout = {
            "means": ((n_classes, embed_dim), "float32"),
            "variances": ((n_classes, embed_dim), "float32"),
            "counts": ((n_classes,), "int64"),
        }
        # Three arrays, each with a header and a name.
        n_bytes = 4 * MESSAGE_OVERHEAD_BYTES + 8 * (embed_dim + 1) * n_classes

        def read(reply: Message, n_examples: int) -> Gaussians:
            found = Gaussians(**read_arrays(reply, wanted))
            require_possible_gaussians(found, n_examples)
            return found

        def variance(found: Sequence[Gaussians], total: Floats) -> float:
            # What a node says of its own variances must not decide by what it is judged.
            return low_median([each.variance for each in found])

        return Kind(n_bytes, read, within_share, lambda found: found.sums, variance=variance)

    @property
    def _n_classes(self) -> int:
        return len(self.post.class_names)

    @property
    def _is_coarse(self) -> bool:
        return self.config.statistics_codec in STEPS

    def _bytes(self, shapes: Shapes) -> int:
        """Of a reply with sums of these shapes, at most."""
        counts = COUNT_BYTES * self._n_classes if self._is_coarse else 0
        return encoded_bytes(shapes, self.config.statistics_codec) + counts + MESSAGE_OVERHEAD_BYTES
