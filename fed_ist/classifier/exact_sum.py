"""Sums that come out the same in whatever order their terms are added."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

CHUNK = 2**15  # numbers at a time: intermediate results then stay in the processor's cache


class ExactSum:
    """A sum of arrays that does not depend on the order in which they are added.

    shape: of the sum, and of each array that `add` gets.
    Each number is kept as two float64, the rounded sum and what rounding took off, which together
    have 106 bits. A float32 made of the total is the same for any order of terms, and so is the
    float64 total except for about one number in 2^50.
    Source: Knuth, "The Art of Computer Programming" 2, 4.2.2, theorem B (TwoSum).
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._sum = np.zeros(shape)
        self._lost = np.zeros(0)  # of the sum's shape, once it has more than one term
        self._is_empty = True

    def add(self, values: NDArray[np.floating[Any]], factor: int = 1) -> None:
        """Add `factor` times an array of the sum's shape, float32 or float64.

        The product is exact for float32 and factors below 2**29.
        """
        if self._is_empty:
            np.multiply(values, factor, out=self._sum, dtype=np.float64)
            self._is_empty = False
            return
        self._make_room()
        whole, lost, terms = self._sum.reshape(-1), self._lost.reshape(-1), values.reshape(-1)
        for first in range(0, whole.size, CHUNK):
            chunk = slice(first, first + CHUNK)
            term = np.multiply(terms[chunk], factor, dtype=np.float64)
            whole[chunk], rounded = _two_sum(whole[chunk], term)
            lost[chunk] += rounded

    def add_at(self, where: Any, values: NDArray[np.floating[Any]], factor: int = 1) -> None:
        """Add `factor` times an array to the numbers of the sum that the index `where` picks.

        where: anything that indexes a numpy array, and picks no number twice.
        values: float32 or float64, of the shape of what `where` picks.
        """
        self._make_room()
        self._is_empty = False
        term = np.multiply(values, factor, dtype=np.float64)
        self._sum[where], rounded = _two_sum(self._sum[where], term)
        self._lost[where] += rounded

    def _make_room(self) -> None:
        if self._lost.shape != self._sum.shape:
            self._lost = np.zeros(self._sum.shape)

    def total(self) -> NDArray[np.float64]:
        """The sum, float64 of the shape that was given."""
        return self._sum + self._lost if self._lost.shape == self._sum.shape else self._sum


def _two_sum(
    a: NDArray[np.float64], b: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """a + b rounded, and exactly what rounding took off, both float64 of the shape of a and b."""
    whole = a + b
    of_b = whole - a
    return whole, (a - (whole - of_b)) + (b - of_b)
