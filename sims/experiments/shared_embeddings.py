"""Embeddings that all simulated nodes of an experiment share: computed once, dealt by index."""

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
    """The embeddings of a whole data set under one mask, and its classes' names.

    train: the training images under each draw of the mask, one draw unless it is drawn per pass.
    """

    train: tuple[Embeddings, ...]
    test: Embeddings
    class_names: tuple[str, ...]

    @property
    def embed_dim(self) -> int:
        return int(self.test.values.shape[1])


@dataclass(frozen=True)
class SharedFiles:
    """Where the parts of a `Shared` lie in the cache: what is handed to another process."""

    train: tuple[Path, ...]
    test: Path
    class_names: tuple[str, ...]


@lru_cache(maxsize=1)
def load_shared(files: SharedFiles) -> Shared:
    """The embeddings, memory-mapped; raises `InputError` where they are no longer in the cache."""
    return Shared(tuple(_load(path) for path in files.train), _load(files.test), files.class_names)


def _load(folder: Path) -> Embeddings:
    found = load_cached(folder)
    if found is None:
        raise InputError(f"The embeddings '{folder}' are gone from the cache. Run this again.")
    return found


@dataclass(frozen=True)
class SharedImages:
    """The training and the test images of an experiment, and the first lines of what they are."""

    train: ImageSource
    test: ImageSource
    lines: tuple[str, ...]


def open_shared(config: RunConfig, limit: int, whole_test: bool = False) -> SharedImages:
    """The images of an experiment.

    limit: a stratified choice of as many training images, and of test images unless these are to
    be whole; 0 for all. Raises `InputError` where there is nothing to learn from.
    """
    data = open_run_data(config)
    train, test = (
        limited(data.images(split), config.dataset, split, n, config.seed)
        for split, n in (("train", limit), ("test", 0 if whole_test else limit))
    )
    return SharedImages(train, test, tuple(inspect(data, reading(config)).first_lines()))


def embed_shared(config: RunConfig, encoder: AnyEncoder, images: SharedImages) -> SharedFiles:
    """Embed the training and the test images of an experiment, unless they are in its cache.

    A mask that is drawn at each pass is drawn N_PASSES times for the training images: to encode
    them anew in each of a hundred passes would take longer than all the rest. Test images, and
    those of other masks, keep one draw for the whole experiment.
    """

    def place(source: ImageSource, coordinates: tuple[int, ...]) -> Path:
        _, folder = embed(
            source,
            mask_spec(config, encoder, coordinates),
            encoder,
            cache_dir(config.cache_dir),
            lambda reason: log(WARNING, reason),
            keep_packed=False,  # read once, and those of all masks would fill the disk
        )
        return folder

    train, test = images.train, images.test
    count_features(config, len(train.class_names))  # too few anchor-bytes show before the encoding
    draws: list[tuple[int, ...]] = [()]
    if MASKS[config.mask].per_pass:
        draws = [(i,) for i in range(N_PASSES)]
    return SharedFiles(
        tuple(place(train, draw) for draw in draws), place(test, ()), train.class_names
    )


class SharedData:
    """The `NodeData` of nodes that take their part of shared embeddings.

    train: of all training images, each draw of the mask; pass i sees draw i modulo their number.
    """

    def __init__(self, train: Sequence[Embeddings], config: RunConfig, n_nodes: int) -> None:
        self._train = train
        self._parts = split_indices(
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
        """Its count of images, and as many bytes as an equal part of all images has."""
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
        rows = self._rows(node)

        @lru_cache(maxsize=1)
        def under(draw: int) -> Examples:
            found = self._train[draw]
            return np.asarray(found.values[rows]), found.labels[rows]

        return lambda number_of_pass: under(number_of_pass % len(self._train))

    def _rows(self, node: Node) -> NDArray[np.int64]:
        return self._parts[node.number]
