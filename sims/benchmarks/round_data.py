"""Random embeddings for the benchmark of rounds: written once, and mapped by every process."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from flwr.app import Context
from numpy.typing import NDArray

from clients.node import Node
from fed_ist.config.run_config import RunConfig
from fed_ist.rng import generator
from fed_ist.traffic import protocol
from fed_ist.training.local import Examples

EMBED_DIM = 192  # of the bundled encoder
N_CLASSES = 30
N_TEST = 1000
CLASS_NAMES = tuple(f"class {i}" for i in range(N_CLASSES))


def write_examples(folder: Path, n_train: int) -> None:
    """Write embeddings of classes that a classifier can tell apart, for training and evaluation."""
    rng = generator(0, "round bench")
    means = rng.normal(size=(N_CLASSES, EMBED_DIM)).astype(np.float32)
    for split, n in (("train", n_train), ("test", N_TEST)):
        labels = rng.integers(0, N_CLASSES, n)
        noise = rng.normal(size=(n, EMBED_DIM)).astype(np.float32)
        np.save(folder / f"{split}-labels.npy", labels)
        np.save(folder / f"{split}.npy", means[labels] + 2 * noise)


def read_examples(folder: Path, split: str) -> Examples:
    """The examples of a split, mapped: embeddings float32 (n, EMBED_DIM), labels int64 (n,)."""
    values = np.load(folder / f"{split}.npy", mmap_mode="r")
    return values, np.load(folder / f"{split}-labels.npy", mmap_mode="r")


def share_of(number: int, n_nodes: int, folder: Path) -> Examples:
    """A node's equal share of the training examples, float32 (m, EMBED_DIM) and int64 (m,)."""
    values, labels = read_examples(folder, "train")
    size = len(labels) // n_nodes
    rows = slice(number * size, (number + 1) * size)
    own: NDArray[np.int64] = np.asarray(labels[rows])
    return np.asarray(values[rows]), own


class DrawnData:
    """The `NodeData` of nodes that divide what `write_examples` wrote to `dataset` among them."""

    def prepare(
        self, context: Context, node: Node, config: RunConfig, class_names: tuple[str, ...]
    ) -> dict[str, int]:
        """The number of the node's examples; everything else that is counted of images is 0."""
        _, labels = share_of(node.number, node.n_nodes, Path(config.dataset))
        return dict.fromkeys(protocol.PREPARED, 0) | {protocol.NUM_EXAMPLES: len(labels)}

    def passes(self, context: Context, node: Node, config: RunConfig) -> Callable[[int], Examples]:
        """The function from a pass to the examples, float32 (m, EMBED_DIM) and int64 (m,)."""
        examples = share_of(node.number, node.n_nodes, Path(config.dataset))
        return lambda _: examples
