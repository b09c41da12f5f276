"""The weight of each node in a mean, bounded by the numbers of images that other nodes state.

Nobody can check how many images a node has. Without a bound, a node that states a thousand times
what it has would decide the mean alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Node = TypeVar("Node")


def bounded_weights(counts: Mapping[Node, int], most: float) -> dict[Node, int]:
    """The weight of each node: its count, but at most `most` times the median of all counts.

    counts: the number of examples that each node states. most: 0 for no bound. With a bound, each
    weight is at least 1.
    """
    if not most or not counts:
        return dict(counts)
    bound = int(most * low_median(list(counts.values())))
    return {node: max(1, min(count, bound)) for node, count in counts.items()}


def low_median(values: Sequence[float] | NDArray[np.floating[Any]]) -> float:
    """The middle one of an odd number of values, or the smaller of the middle two: float64.

    values: numbers, or an array (n,) of any floating-point dtype.
    So one large value among two cannot raise it: the mean of [1, 10^9] is whatever the larger one
    makes it.
    """
    return float(np.sort(np.asarray(values, dtype=np.float64))[(len(values) - 1) // 2])
