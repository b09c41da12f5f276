"""How much a node may count for: what it says of its own number of images is held against others'.

A count is what a node states of itself, and nobody can look. Left alone, one node that states a
thousand times the images that it has is the mean.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Node = TypeVar("Node")


def bounded_weights(counts: Mapping[Node, int], most: float) -> dict[Node, int]:
    """What each node counts for: its examples, or `most` times the median of all nodes' counts
    where that is less, and at least 1.

    counts: examples that each node states. most: 0 for no bound.
    """
    if not most or not counts:
        return dict(counts)
    bound = int(most * low_median(list(counts.values())))
    return {node: max(1, min(count, bound)) for node, count in counts.items()}


def low_median(values: Sequence[float] | NDArray[np.floating[Any]]) -> float:
    """The middle one of an odd number of values, the smaller of the two in the middle otherwise.

    So it is never larger than any value of an honest half: the mean of the middle two of
    [1, 10^9] would be what the larger one likes.
    """
    return float(np.sort(np.asarray(values, dtype=np.float64))[(len(values) - 1) // 2])
