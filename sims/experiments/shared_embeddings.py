"""Embeddings that all simulated nodes of an experiment share: computed once, divided by index."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from logging import WARNING
from pathlib import Path

import numpy as np
from flwr.app import Context
from flwr.common import log
from numpy.typing import NDArray

from clients.node import Node
from fed_ist.comparisons.probe_table import N_PASSES, limited
from fed_ist.config.derive import count_features, mask_spec, open_run_data, reading
from fed_ist.config.run_config import RunConfig
from fed_ist.datasets.inspection import inspect
from fed_ist.datasets.partitions import split_indices
from fed_ist.encoder.embeddings import Embeddings, embed, load_cached
from fed_ist.encoder.known import AnyEncoder
from fed_ist.errors import InputError
from fed_ist.files.paths import cache_dir
from fed_ist.images.masks import MASKS
from fed_ist.images.source import ImageSource
from fed_ist.traffic import protocol
from fed_ist.training.local import Examples


@dataclass(frozen=True)
class Shared:
    """The embeddings of a whole data set under one mask, and the names of its classes.

    train: the training images under each draw of the mask: one draw, or several for a mask that is
    drawn anew at each pass. embed_dim: the width of an embedding. decorrelated: whether the encoder
    decorrelates its embeddings itself.
    """

    train: tuple[Embeddings, ...]
    test: Embeddings
    class_names: tuple[str, ...]
    decorrelated: bool

    @property
    def embed_dim(self) -> int:
        """The width of an embedding."""
        return int(self.test.values.shape[1])


@dataclass(frozen=True)
class SharedFiles:
    """Where the embeddings of a `Shared` are in the cache, for use in another process."""

    train: tuple[Path, ...]
    test: Path
    class_names: tuple[str, ...]
    decorrelated: bool


@lru_cache(maxsize=1)
def load_shared(files: SharedFiles) -> Shared:
    """The embeddings, memory-mapped; raises `InputError` where they are no longer in the cache."""
    train = tuple(_load(path) for path in files.train)
    return Shared(train, _load(files.test), files.class_names, files.decorrelated)


def _load(folder: Path) -> Embeddings:
    found = load_cached(folder)
    if found is None:
        raise InputError(f"The embeddings '{folder}' are gone from the cache. Run this again.")
    return found


@dataclass(frozen=True)
class SharedImages:
    """The training and the test images of an experiment. lines: sentences on what they are."""

    train: ImageSource
    test: ImageSource
    lines: tuple[str, ...]


def open_shared(config: RunConfig, limit: int, whole_test: bool = False) -> SharedImages:
    """The images of an experiment.

    limit: how many training images to choose, stratified, and how many test images unless
    `whole_test`; 0 for all. Raises `InputError` where there is nothing to learn from.
    """
    data = open_run_data(config)
    train, test = (
        limited(data.images(split), config.dataset, split, n, config.seed)
        for split, n in (("train", limit), ("test", 0 if whole_test else limit))
    )
    return SharedImages(train, test, tuple(inspect(data, reading(config)).first_lines()))


def embed_shared(config: RunConfig, encoder: AnyEncoder, images: SharedImages) -> SharedFiles:
    """Embed the training and the test images of an experiment, unless they are in the cache.

    A mask that is drawn anew at each pass is drawn N_PASSES times for the training images: to
    encode them in each of a hundred passes would take longer than everything else. Other masks, and
    those of test images, are drawn once for the whole experiment.
    """

    def place(source: ImageSource, coordinates: tuple[int, ...]) -> Path:
        _, folder = embed(
            source,
            mask_spec(config, encoder, coordinates),
            encoder,
            cache_dir(config.cache_dir),
            lambda reason: log(WARNING, reason),
            keep_packed=False,  # they are read once, and all masks' would fill the disk
        )
        return folder

    train, test = images.train, images.test
    count_features(config, len(train.class_names))  # raises for too few anchor-bytes
    draws: list[tuple[int, ...]] = [()]
    if MASKS[config.mask].per_pass:
        draws = [(i,) for i in range(N_PASSES)]
    return SharedFiles(
        tuple(place(train, draw) for draw in draws),
        place(test, ()),
        train.class_names,
        encoder.decorrelated,
    )


class SharedData:
    """The `NodeData` of nodes that divide shared embeddings among them.

    train: all training images under each draw of the mask; pass i has draw i modulo their number.
    """

    def __init__(self, train: Sequence[Embeddings], config: RunConfig, n_nodes: int) -> None:
        self._train = train
        self._rows_by_node = split_indices(
            train[0].labels,
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
        """The number of the node's images, and their share of the bytes of all images."""
        rows, counts = self._rows(node), self._train[0].counts
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
        """The function from a pass to the examples, float32 (n, embed_dim) and int64 (n,)."""
        rows = self._rows(node)

        @lru_cache(maxsize=1)
        def under(draw: int) -> Examples:
            found = self._train[draw]
            return np.asarray(found.values[rows]), found.labels[rows]

        return lambda number_of_pass: under(number_of_pass % len(self._train))

    def _rows(self, node: Node) -> NDArray[np.int64]:
        return self._rows_by_node[node.number]
