"""Checks whether statistics can come from the number of examples that their node states.

Sums are over rows z = [u, 1], where u has length 1, or 0 where all of a few random features are
below 0 (see `anchors.features`). So limits for counts and lengths are known beforehand, except for
what rounding to float32, the codec and the noise that was asked for (`ridge.with_noise`) change.
A node that lies within these limits can still do harm, but no more than real images in the number
that it states.
"""

import numpy as np
from numpy.typing import NDArray

from fed_ist.statistics.factors import STEPS
from fed_ist.statistics.gaussians import Gaussians
from fed_ist.statistics.ridge import Floats, Gram, whole_gram

# The largest relative error of a sum: from lengths and sums in float32, and from the codec.
LOST = {"fp32": 1e-5, "fp16": 6e-4, "int8": 0.05}
DEVIATIONS = 8  # of the noise: beyond, not one of some million numbers will lie
LARGEST = 1e6  # a number in an embedding, at most: encoders normalise them to about 1


def require_possible_gram(stats: Gram, n_examples: int, codec: str) -> None:
    """Raise `ValueError` for statistics that `gram_statistics` cannot make of `n_examples`.

    stats: as they came; `stats.noise` is the variance of the noise that the node was asked to add.
    codec: "fp32", "fp16" or "int8", in which they were sent.
    """
    sigma = float(np.sqrt(stats.noise))
    require_possible_sums(stats.sums, n_examples, codec, sigma)
    gram = whole_gram(stats)
    n_rows, side = stats.sums.shape
    lost, far = LOST[codec] * n_examples, DEVIATIONS * sigma
    lengths = np.trace(gram) - gram[-1, -1]
    if lengths > n_examples + lost + far * np.sqrt(side):
        raise ValueError(f"its lengths sum up to {lengths:g}, more than {n_examples} images have")
    rows = stats.sums.sum(axis=0, dtype=np.float64)
    if np.abs(rows - gram[-1]).max() > 2 * lost + far * np.sqrt(n_rows + 1):
        raise ValueError("the sums of its classes do not add up to those of all its images")
    # Wigner's semicircle, as in `ridge.centre`: no eigenvalue of noise is beyond 2 sigma √side.
    least = float(np.linalg.eigvalsh(gram)[0])
    if least < -2 * lost - far - 2 * sigma * np.sqrt(side):
        raise ValueError(f"its gram has an eigenvalue of {least:g}, and no sum of squares has")


def require_possible_sums(sums: Floats, n_examples: int, codec: str, sigma: float = 0.0) -> None:
    """Raise `ValueError` for sums that `ridge.class_sums` cannot make of `n_examples`.

    sums: (num_classes, d+1), float32 or float64. codec: in which they were sent. sigma: the
    standard deviation of the noise that the node was asked to add.
    """
    lost, far = LOST[codec] * n_examples, DEVIATIONS * sigma
    counts = sums[:, -1].astype(np.float64)
    if counts.min() < -lost - far:
        raise ValueError(f"it counts {counts.min():g} images of a class")
    if abs(counts.sum() - n_examples) > lost + far * np.sqrt(len(counts)):
        raise ValueError(f"it counts {counts.sum():g} images, not {n_examples}")
    lengths = np.linalg.norm(sums[:, :-1].astype(np.float64), axis=1)
    allowed = counts + lost + 2 * far + sigma * np.sqrt(sums.shape[1])
    if (lengths > allowed).any():
        worst = int(np.argmax(lengths - allowed))
        raise ValueError(
            f"a class of {counts[worst]:g} images has a sum of length {lengths[worst]:g}"
        )


def require_possible_counts(counts: NDArray[np.int64], n_examples: int) -> None:
    """Raise `ValueError` for counts of images by class that are not those of `n_examples`.

    counts: int64 (num_classes,).
    """
    if counts.min() < 0 or counts.sum() != n_examples:
        raise ValueError(f"it counts {counts.tolist()} images, not {n_examples}")


def require_possible_means(means: Floats, codec: str) -> None:
    """Raise `ValueError` for class means in few bits that `coarse.coarse_sums` cannot make.

    means: (num_classes, d). codec: "int8" or "int4". A mean is no longer than 1. Rounding up or
    down at random moves each number by half a step at most, as a standard deviation.
    """
    exact = means.astype(np.float64)
    d, largest = exact.shape[1], np.abs(exact).max(axis=1)
    half = largest / STEPS[codec] / 2
    # The length of the error, its deviation, and twice its product with the mean.
    added = d * half**2 + DEVIATIONS * (np.sqrt(d) * half**2 + 2 * half)
    allowed = np.sqrt(1 + added) + LOST["fp32"]
    lengths = np.linalg.norm(exact, axis=1)
    if (largest > 1.01).any() or (lengths > allowed).any():
        worst = int(np.argmax(lengths - allowed))
        raise ValueError(f"a class has a mean of length {lengths[worst]:g}, more than 1")


def require_possible_gaussians(gaussians: Gaussians, n_examples: int) -> None:
    """Raise `ValueError` for what `gaussians.class_gaussians` cannot make of `n_examples`.

    The length of their embeddings is not known, so that the checks are wider.
    """
    counts = gaussians.counts
    if counts.min() < 0 or counts.sum(dtype=np.float64) != n_examples:
        raise ValueError(f"it counts {counts.tolist()} images, not {n_examples}")
    if gaussians.variances.min() < 0:
        raise ValueError(f"it has a variance of {gaussians.variances.min():g}")
    largest = max(float(np.abs(gaussians.means).max()), float(gaussians.variances.max()) ** 0.5)
    if largest > LARGEST:
        raise ValueError(f"it has a number of {largest:g}, and no embedding one beyond {LARGEST:g}")
