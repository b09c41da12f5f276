"""Embeddings that all simulated nodes of an experiment share: computed once, dealt by index."""

from collections.abc import Callable
from dataclasses import dataclass
from logging import WARNING

import numpy as np
from flwr.app import Context
from flwr.common import log
from numpy.typing import NDArray

from clients.node import Node
from clients.work import Examples
from fed_ist import protocol
from fed_ist.config import RunConfig
from fed_ist.embeddings import Embeddings, embed, mask_spec
from fed_ist.encoder import Encoder
from fed_ist.partitions import split_indices
from fed_ist.paths import cache_dir
from fed_ist.probe_table import open_images


@dataclass(frozen=True)
class Shared:
    """The embeddings of a whole data set under one mask, and its classes' names."""

    train: Embeddings
    test: Embeddings
    class_names: tuple[str, ...]

    @property
    def embed_dim(self) -> int:
        return int(self.train.values.shape[1])


def embed_shared(config: RunConfig, encoder: Encoder, limit: int) -> Shared:
    """Embed both parts of the configuration's data set, unless they are in its cache.

    Each image keeps one draw of its mask for the whole experiment, also where `mask` is `random`.
    limit: a stratified choice of as many training images, and of test images; 0 for all.
    """
    found = {}
    class_names: tuple[str, ...] = ()
    for split in ("train", "test"):
        source = open_images(
            config.dataset, config.test_dataset, split, limit, config.seed, config.band_choice
        )
        spec = mask_spec(config, encoder, ())
        cache = cache_dir(config.cache_dir)
        found[split], _ = embed(source, spec, encoder, cache, lambda reason: log(WARNING, reason))
        class_names = source.class_names
    return Shared(found["train"], found["test"], class_names)


class SharedData:
    """The `NodeData` of nodes that take their part of shared embeddings."""

    def __init__(self, train: Embeddings, config: RunConfig, n_nodes: int) -> None:
        self._train = train
        self._parts = split_indices(
            train.labels,
            config.partitioner,
            n_nodes,
            alpha=config.partition_alpha,
            classes_per_node=config.classes_per_node,
            by=None,
            seed=config.seed,
        )

    def prepare(
        self, context: Context, node: Node, config: RunConfig, class_names: tuple[str, ...]
    ) -> dict[str, int]:
        """Its count of images, and as many bytes as an equal part of all images has."""
        rows, counts = self._rows(node), self._train.counts
        share = len(rows) / counts.n_images
        return {
            protocol.NUM_EXAMPLES: len(rows),
            protocol.IMAGES_SKIPPED: 0,
            protocol.UNKNOWN_CLASSES: 0,
            protocol.ORIGINAL_BYTES: round(counts.original_bytes * share),
            protocol.RAW_BYTES: round(counts.raw_bytes * share),
            protocol.PACKED_BYTES: round(counts.packed_bytes * share),
        }

    def passes(self, context: Context, node: Node, config: RunConfig) -> Callable[[int], Examples]:
        rows = self._rows(node)
        examples = np.asarray(self._train.values[rows]), self._train.labels[rows]
        return lambda _: examples

    def _rows(self, node: Node) -> NDArray[np.int64]:
        return self._parts[node.number]
