"""Statistics as they are sent in 8 or 4 bits a number: class means, counts, a triangular factor.

A codec of so few bits has one step for each row of a matrix, so what is of unlike size is in rows
of its own: the means of each class, and each row of the factor R with RᵀR = scatter (`factors` says
why a factor). The numbers of images are sent as they are.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fed_ist.classifier.layout import Params
from fed_ist.statistics.factors import STEPS, factorise, from_factor
from fed_ist.statistics.ridge import Floats, Gram

COUNT_BYTES = 5  # of a number of images in a message, at most: a varint of 32 bits
MEANS, ROOT = "means", "root."  # names of the arrays: rows of R are `root.0000` and so on


@dataclass(frozen=True, eq=False)
class Coarse:
    """What a node sends for its statistics.

    arrays: float32, to be sent in few bits: `means` (num_classes, d) of the embeddings less the
    reference, and for a `Gram` the rows of R, `root.<row>` (d - row,).
    counts: the images of each class. reference: float32 (d,), values of float16, near the mean of
    the embeddings; 0 where there is no R.
    """

    arrays: Params
    counts: tuple[int, ...]
    reference: NDArray[np.float32]


def coarse_sums(sums: Floats) -> Coarse:
    """Class sums (num_classes, d+1), of the form of `Gram.sums`, as they are sent."""
    counts = np.rint(sums[:, -1]).astype(np.int64)
    means = sums[:, :-1] / np.maximum(counts, 1)[:, None]
    none = np.zeros(means.shape[1], dtype=np.float32)
    return Coarse({MEANS: means.astype(np.float32)}, tuple(counts.tolist()), none)


def coarse_gram(stats: Gram) -> Coarse:
    """The statistics of a node as they are sent."""
    triangle, about = factorise(stats)
    d = about.shape[1] - 1
    whole = np.zeros((d + 1, d + 1), dtype=np.float32)
    whole[np.triu_indices(d + 1)] = triangle
    sums = coarse_sums(about)
    rows = {f"{ROOT}{row:04d}": whole[row, row:d] for row in range(d)}
    return Coarse(sums.arrays | rows, sums.counts, whole[:d, d].copy())


def sums_of(arrays: Params, counts: NDArray[np.int64]) -> Floats:
    """The class sums, float64 (num_classes, d+1), of what `coarse_sums` gave."""
    exact = counts[:, None].astype(np.float64)
    return np.column_stack([arrays[MEANS] * exact, exact])


def gram_of(
    arrays: Params, counts: NDArray[np.int64], reference: NDArray[np.float32], codec: str
) -> Gram:
    """The statistics, float64, of what `coarse_gram` gave; the codec's rounding is their noise.

    Raises `ValueError` where `Gram` does.
    """
    d = len(reference)
    whole = np.zeros((d + 1, d + 1), dtype=np.float32)
    for row in range(d):
        whole[row, row:d] = arrays[f"{ROOT}{row:04d}"]
    whole[:d, d], whole[d, d] = reference, counts.sum()
    sums = sums_of(arrays, counts)
    return from_factor(whole[np.triu_indices(d + 1)], sums.astype(np.float32), codec)


def coarse_shapes(num_classes: int, d: int, *, with_root: bool) -> dict[str, tuple[int, ...]]:
    """The shapes of the arrays of a `Coarse`. with_root: whether it is that of a `Gram`."""
    rows = {f"{ROOT}{row:04d}": (d - row,) for row in range(d)} if with_root else {}
    return {MEANS: (num_classes, d), **rows}


def rounding_of_sums(arrays: Params, counts: NDArray[np.int64], codec: str) -> float:
    """The mean variance of the rounding error of the numbers in the class sums.

    arrays: of a `Coarse`, float32. counts: int64 (num_classes,), images of each class.
    A number is rounded up or down at random so that the mean is right; its place between the two
    steps is taken to be uniform.
    """
    steps = np.abs(arrays[MEANS]).max(axis=1).astype(np.float64) / STEPS[codec]
    return float(np.mean((counts * steps) ** 2 / 6))
