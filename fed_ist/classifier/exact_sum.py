"""Sums that come out the same in whatever order their terms are added."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

CHUNK = 2**15  # numbers at a time, whose intermediate results then stay in the processor's cache


class ExactSum:
    """The sum of arrays of one shape, or of parts of it: float64, kept with what rounding took off.

    The two float64 of each number have 106 bits between them, so that replies may be added as they
    come: their order shows in no float32 that is made of the total, and with few exceptions, of one
    in 2^50, not in the float64 either.
    Source: Knuth, "The Art of Computer Programming" 2, 4.2.2, theorem B (TwoSum).
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._sum = np.zeros(shape)
        self._lost = np.zeros(0)  # of the sum's shape, once it has more than one term
        self._is_empty = True

    def add(self, values: NDArray[np.floating[Any]], factor: int = 1) -> None:
        """Add `factor` times an array of the sum's shape.

        float32 times a whole number below 2**29 is exact in float64.
        """
        if self._is_empty:
            np.multiply(values, factor, out=self._sum, dtype=np.float64)
            self._is_empty = False
            return
        self._make_room()
        whole, lost, terms = self._sum.reshape(-1), self._lost.reshape(-1), values.reshape(-1)
        for first in range(0, whole.size, CHUNK):
            part = slice(first, first + CHUNK)
            term = np.multiply(terms[part], factor, dtype=np.float64)
            whole[part], rounded = _two_sum(whole[part], term)
            lost[part] += rounded

    def add_at(self, where: Any, values: NDArray[np.floating[Any]], factor: int = 1) -> None:
        """The same where an index picks a part of the sum's shape, each number once at most."""
        self._make_room()
        self._is_empty = False
        term = np.multiply(values, factor, dtype=np.float64)
        self._sum[where], rounded = _two_sum(self._sum[where], term)
        self._lost[where] += rounded

    def _make_room(self) -> None:
        if self._lost.shape != self._sum.shape:
            self._lost = np.zeros(self._sum.shape)

    def total(self) -> NDArray[np.float64]:
        return self._sum + self._lost if self._lost.shape == self._sum.shape else self._sum


def _two_sum(
    a: NDArray[np.float64], b: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """a + b rounded, and what rounding took off it, exactly."""
    whole = a + b
    of_b = whole - a
    return whole, (a - (whole - of_b)) + (b - of_b)
