"""How much a node may count for: what it says of its own number of images is held against others'.

A count is what a node states of itself, and nobody can look. Left alone, one node that states a
thousand times the images that it has is the mean.
"""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def bounded_weight(count: int, counts: Collection[int], most: float) -> int:
    """A node's count of examples, or `most` times the median of all nodes' where that is less.

    counts: of all nodes, this one among them. most: 0 for no bound. At least 1.
    """
    if not most:
        return count
    return max(1, min(count, int(most * low_median(list(counts)))))


def low_median(values: Sequence[float] | NDArray[np.floating[Any]]) -> float:
    """The middle one of an odd number of values, the smaller of the two in the middle otherwise.

    So it is never larger than any value of an honest half: the mean of the middle two of
    [1, 10^9] would be what the larger one likes.
    """
    return float(np.sort(np.asarray(values, dtype=np.float64))[(len(values) - 1) // 2])
