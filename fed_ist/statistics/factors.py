"""Statistics as they are sent: a triangular factor of the scatter instead of sums of squares.

Embeddings deviate from their mean by little compared with its length, and their variance along some
directions is thousands of times that along others. In sums of squares, fp16 keeps only the largest
of these variances. A triangular R with RᵀR = scatter holds their square roots, so that fp16 keeps
variances a million times smaller. R has the same number of entries as a half of the scatter, and
however they are rounded, RᵀR is a scatter that some examples can have.
"""

import numpy as np
from numpy.typing import NDArray

from fed_ist.statistics.ridge import Floats, Gram, whole_gram

Sent = tuple[NDArray[np.float32], NDArray[np.float32]]  # triangle and sums, see `factorise`
FRACTION_BITS = {"fp32": 23, "fp16": 10}
STEPS = {"int8": 127, "int4": 7}  # on each side of zero; each row has a step of its own
LEAST_EXPONENT = {"fp32": -126, "fp16": -14}


def factorise(stats: Gram) -> Sent:
    """What a node sends for its statistics: (triangle, sums), float32 of the shapes of a `Gram`.

    Both are about a reference, the mean of the embeddings rounded to float16, which fp16 sends
    without loss.
    triangle: R with RᵀR = the sum of (embedding - reference)(embedding - reference)ᵀ. Its last
    column holds the reference and, at the end, the number of examples.
    sums: of embedding - reference in each class; the last column counts the examples.
    """
    whole, counts = whole_gram(stats), stats.sums[:, -1:]
    reference = whole[:-1, -1] / max(whole[-1, -1], 1.0)
    reference = reference.astype(np.float16).astype(np.float64)
    triangle = np.zeros_like(whole)
    triangle[:-1, :-1] = _root(_moved(whole, -reference))
    triangle[:-1, -1], triangle[-1, -1] = reference, whole[-1, -1]
    sums = np.column_stack([stats.sums[:, :-1] - counts * reference, counts])
    packed = triangle[np.triu_indices(len(triangle))]
    return packed.astype(np.float32), sums.astype(np.float32)


def from_factor(triangle: NDArray[np.float32], sums: NDArray[np.float32], codec: str) -> Gram:
    """The statistics that `factorise` was given, float64; the codec's rounding is their noise.

    triangle, sums: float32, of the shapes that `factorise` gives. codec: "fp32", "fp16" or "int8",
    in which they were sent. Raises `ValueError` where `Gram` does.
    """
    whole = whole_gram(Gram(triangle, sums))
    root, reference = np.triu(whole[:-1, :-1]), whole[:-1, -1]
    about, counts = sums[:, :-1].astype(np.float64), sums[:, -1:].astype(np.float64)
    moved = np.zeros_like(whole)
    moved[:-1, :-1] = root.T @ root
    moved[:-1, -1] = moved[-1, :-1] = about.sum(axis=0)
    moved[-1, -1] = counts.sum()
    total = moved.copy()
    total[:-1, :-1] = _moved(moved, reference)
    total[:-1, -1] += counts.sum() * reference
    # The variance of which `ridge.centre` makes this eigenvalue again.
    noise = _lost(root, codec) ** 2 / (4 * len(whole))
    classes = np.column_stack([about + counts * reference, counts])
    return Gram(total[np.triu_indices(len(total))], classes, noise)


def noisy(gram: NDArray[np.float32], sums: NDArray[np.float32], sigma: float, codec: str) -> Gram:
    """Statistics that a node sent as sums, after `ridge.with_noise` with this sigma.

    gram, sums: float32, of the shapes of a `Gram`. codec: "fp32" or "fp16", in which they were
    sent; its rounding is added to the noise.
    """
    return Gram(gram, sums, sigma**2 + float(np.mean(_variances(gram, codec))))


def _moved(whole: NDArray[np.float64], by: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sum of squares (d, d) of x + by, from those of [x, 1]."""
    across = np.outer(by, whole[:-1, -1])
    count = whole[-1, -1]
    moved: NDArray[np.float64] = whole[:-1, :-1] + across + across.T + count * np.outer(by, by)
    return moved


def _root(scatter: NDArray[np.float64]) -> NDArray[np.float64]:
    """The triangular R with RᵀR = scatter; by eigenvalues, as the scatter may be singular."""
    values, vectors = np.linalg.eigh(scatter)
    return np.linalg.qr((vectors * np.sqrt(values.clip(0))).T).R


def _lost(root: NDArray[np.float64], codec: str) -> float:
    """The largest eigenvalue of RᵀR that may come from rounding R alone.

    The norm of a random matrix is about that of its longest row and that of its longest column
    together (Bandeira and van Handel, "Sharp Nonasymptotic Bounds on the Norm of Random Matrices",
    Annals of Probability 2016).
    """
    variances = np.triu(_variances(root, codec))
    longest = np.sqrt(variances.sum(axis=1).max()) + np.sqrt(variances.sum(axis=0).max())
    return float(longest**2)


def _variances(numbers: Floats, codec: str) -> NDArray[np.float64]:
    """The variance of the rounding error of each number, float64 of the same shape.

    The error is taken to be uniform within a step of the codec, or, where numbers are rounded up or
    down at random, the place between two steps.
    """
    if codec in STEPS:
        largest = np.abs(numbers).max(axis=-1, keepdims=True).astype(np.float64)
        return np.broadcast_to((largest / STEPS[codec]) ** 2 / 6, numbers.shape)
    exponents = np.maximum(np.frexp(numbers)[1] - 1, LEAST_EXPONENT[codec])
    steps: NDArray[np.float64] = np.ldexp(1.0, exponents - FRACTION_BITS[codec])
    return steps**2 / 12
