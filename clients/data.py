"""Where a node's examples come from: its own images, masked, packed and encoded on the node."""

from collections.abc import Callable
from logging import WARNING
from pathlib import Path
from typing import Protocol

import numpy as np
from flwr.app import ConfigRecord, Context
from flwr.common import log

from clients.node import Node, embed_images, open_images, unknown_classes
from fed_ist.config.run_config import RunConfig
from fed_ist.encoder.embeddings import load_cached
from fed_ist.errors import InputError
from fed_ist.images.masks import MASKS
from fed_ist.traffic import protocol
from fed_ist.training.local import Examples

STATE = "fed-ist"  # the record of context.state that outlives a message
EMBEDDINGS = "embeddings"
CLASSES = "class-names"


class NodeData(Protocol):
    """A node's examples. Flower may run each message in a new process: what is to last goes into
    `context.state`.
    """

    def prepare(
        self, context: Context, node: Node, config: RunConfig, class_names: tuple[str, ...]
    ) -> dict[str, int]:
        """Get the examples ready, labelled by these classes.

        Returns what `protocol.PREPARED` counts.
        """

    def passes(self, context: Context, node: Node, config: RunConfig) -> Callable[[int], Examples]:
        """A function from the number of a pass over the images to what is seen in it: embeddings,
        float32 (n, embed_dim), and labels, int64 (n,).

        Raises `InputError` where nothing was prepared.
        """


class OwnImages(NodeData):
    """Images in the node's folder, or its partition of the data set in a simulation."""

    def prepare(
        self, context: Context, node: Node, config: RunConfig, class_names: tuple[str, ...]
    ) -> dict[str, int]:
        own = open_images(node, config)
        if unknown := unknown_classes(own, class_names):
            told = ", ".join(f"{name} ({n} images)" for name, n in unknown.items())
            log(WARNING, "The server has no class of this name, so they are not used: %s", told)
        source = own.relabel(class_names)
        found, folder = embed_images(source, node, config, 0, _warn(node))
        context.state[STATE] = ConfigRecord({EMBEDDINGS: str(folder), CLASSES: list(class_names)})
        counts = found.counts
        return {
            protocol.NUM_EXAMPLES: counts.n_images,
            protocol.IMAGES_SKIPPED: counts.n_skipped,
            protocol.UNKNOWN_CLASSES: int(np.count_nonzero(source.labels < 0)),
            protocol.ORIGINAL_BYTES: counts.original_bytes,
            protocol.RAW_BYTES: counts.raw_bytes,
            protocol.PACKED_BYTES: counts.packed_bytes,
        }

    def passes(self, context: Context, node: Node, config: RunConfig) -> Callable[[int], Examples]:
        state = context.state.config_records.get(STATE)
        if state is None:
            raise InputError("This node was asked to work before it was asked to prepare.")
        if not MASKS[config.mask].per_pass:
            found = load_cached(Path(str(state[EMBEDDINGS])))
            if found is None:
                raise InputError("This node's embeddings are gone from its cache.")
            return lambda _: (found.values, found.labels)
        source = open_images(node, config).relabel(texts(state[CLASSES]))

        def at(number_of_pass: int) -> Examples:
            found, _ = embed_images(source, node, config, number_of_pass, _warn(node))
            return found.values, found.labels

        return at


def texts(value: object) -> tuple[str, ...]:
    """A list of texts in a record."""
    assert isinstance(value, list)
    return tuple(str(text) for text in value)


def _warn(node: Node) -> Callable[[str], None]:
    return lambda reason: log(WARNING, "node %s skips an image: %s", node.number, reason)
