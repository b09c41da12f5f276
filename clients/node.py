"""A node's own images: where they are, and their embeddings."""

import hashlib
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import lru_cache
from logging import INFO
from pathlib import Path

from flwr.app import Context
from flwr.common import log

from fed_ist.config.derive import encoder_spec, mask_spec, open_run_data, reading
from fed_ist.config.run_config import RunConfig
from fed_ist.datasets.data_set import open_own
from fed_ist.datasets.partitions import partition
from fed_ist.datasets.walk import left_at
from fed_ist.encoder.embeddings import Embeddings, embed
from fed_ist.encoder.known import open_encoder
from fed_ist.errors import InputError
from fed_ist.files.paths import cache_dir
from fed_ist.images.masks import MASKS
from fed_ist.images.source import ImageSource
from fed_ist.traffic.protocol import NAME_PATTERN


@dataclass(frozen=True)
class Node:
    """Who this node is.

    number: what its random streams depend on: its partition in a simulation; in a deployment its
        name if that is a number, so that nodes named 0, 1, ... repeat a simulation.
    n_nodes: nodes in the simulation; 0 in a deployment.
    data_path: its own image folder; empty in a simulation.
    name: what its owner calls it; empty where nobody said.
    """

    number: int
    n_nodes: int
    data_path: str
    name: str = ""


def identify(context: Context) -> Node:
    """Who this node is, from its node config."""
    settings = context.node_config
    if "partition-id" in settings and "data-path" not in settings:
        return Node(int(settings["partition-id"]), int(settings["num-partitions"]), "")
    name, data_path = (str(settings.get(key, "")) for key in ("name", "data-path"))
    return device(context.node_id, name, data_path)


def device(node_id: int, name: str, data_path: str) -> Node:
    """A node of a deployment; without a name its number is Flower's id.

    Raises `InputError` for a name that would not fit into a line of a table.
    """
    if not name:
        return Node(node_id, 0, data_path)
    if not NAME_PATTERN.fullmatch(name):
        raise InputError(
            f"name = {name!r} is not possible: give up to 40 letters, digits, '.', '_' or '-'."
        )
    if name.isdecimal():
        return Node(int(name), 0, data_path, name)
    digest = hashlib.sha256(name.encode()).digest()  # hash() differs between processes
    return Node(int.from_bytes(digest[:8], "big"), 0, data_path, name)


_encoder = lru_cache(maxsize=1)(open_encoder)


def open_images(node: Node, config: RunConfig) -> ImageSource:
    """The node's images, labelled by the names that their classes have there."""
    if node.data_path:
        path = Path(node.data_path)
        if not path.exists():
            raise InputError(
                f"data-path = '{path}' is not a folder on this node. Start its SuperNode with "
                "--node-config \"data-path='/absolute/path'\" to a folder of <class>/<image>."
            )
        # A run's name says nothing of when this device last looked at its folder.
        return open_own(str(path), replace(reading(config), run=""), lambda s: log(INFO, "%s", s))
    if node.n_nodes == 0:
        raise InputError(
            "This node has no images. Start its SuperNode with "
            "--node-config \"data-path='/absolute/path'\" to a folder of <class>/<image>."
        )
    return partition(
        _training_images(config),
        config.partitioner,
        node.n_nodes,
        node.number,
        alpha=config.partition_alpha,
        classes_per_node=config.classes_per_node,
        column=config.partition_column,
        seed=config.seed,
        cache=cache_dir(config.cache_dir),
    )


def _training_images(config: RunConfig) -> ImageSource:
    """What all simulated nodes share, opened once a run in each process."""
    path = Path(config.dataset)
    known = left_at(path, cache_dir(config.cache_dir), config.name)
    if not known and path.is_file():
        known = path.stat().st_mtime_ns
    return _open_once(config, known) if known else open_run_data(config).images("train")


@lru_cache(maxsize=1)
def _open_once(config: RunConfig, known_ns: int) -> ImageSource:
    """The training images; known_ns: when the data set was looked at, or changed.

    With another time it is opened anew.
    """
    return open_run_data(config).images("train")


def embed_images(
    source: ImageSource,
    node: Node,
    config: RunConfig,
    number_of_pass: int,
    on_skip: Callable[[str], None],
) -> tuple[Embeddings, Path]:
    """Embeddings of the node's images as seen in one pass over them, and their cache folder."""
    cache = cache_dir(config.cache_dir)
    encoder = _encoder(encoder_spec(config), cache)
    redrawn = MASKS[config.mask].per_pass
    spec = mask_spec(config, encoder, (number_of_pass,) if redrawn else ())
    # A mask that is drawn anew needs the images again, so its packed files serve just once.
    return embed(source, spec, encoder, cache, on_skip, keep_packed=not redrawn)


def unknown_classes(source: ImageSource, class_names: Collection[str]) -> dict[str, int]:
    """The source's classes that are none of `class_names`, with how many images each has."""
    counts = Counter(source.class_names[label] for label in source.labels if label >= 0)
    return {name: n for name, n in sorted(counts.items()) if name not in class_names}
