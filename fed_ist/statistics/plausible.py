"""Which statistics some examples can have made: what a node sends is held against its own count.

Sums are over rows z = [u, 1], where u has length 1, or 0 where all of a few random features are
below 0 (see `anchors.features`). So counts, lengths and signs of what comes are known beforehand,
but for what float32, the codec and the noise that was asked for (`ridge.with_noise`) do to
them. Who lies within these limits still does harm, but no more than as many images as the node says
that it has.
"""

import numpy as np

from fed_ist.statistics.gaussians import Gaussians
from fed_ist.statistics.ridge import Floats, Gram, unpack

# How far a sum may be off, for each unit in it: by lengths and sums in float32, and the codec.
LOST = {"fp32": 1e-5, "fp16": 6e-4}
DEVIATIONS = 8  # of the noise, beyond which none of some million numbers will lie
# Of a number in an embedding: encoders normalise what they give, to about 1.
LARGEST = 1e6


def require_possible_gram(stats: Gram, n_examples: int, codec: str) -> None:
    """Raise `ValueError` for statistics that `gram_statistics` makes of no such examples.

    codec: in which they came. stats.noise: the variance of the noise that they are to have.
    """
    sigma = float(np.sqrt(stats.noise))
    require_possible_sums(stats.sums, n_examples, codec, sigma)
    gram = unpack(stats)
    n_rows, side = stats.sums.shape
    lost, far = LOST[codec] * n_examples, DEVIATIONS * sigma
    lengths = np.trace(gram) - gram[-1, -1]
    if lengths > n_examples + lost + far * np.sqrt(side):
        raise ValueError(f"its lengths sum up to {lengths:g}, more than {n_examples} images have")
    rows = stats.sums.sum(axis=0, dtype=np.float64)
    if np.abs(rows - gram[-1]).max() > 2 * lost + far * np.sqrt(n_rows + 1):
        raise ValueError("the sums of its classes do not add up to those of all its images")
    # Wigner's semicircle, as in `statistics`: no eigenvalue of the noise is beyond 2 sigma √side.
    least = float(np.linalg.eigvalsh(gram)[0])
    if least < -2 * lost - far - 2 * sigma * np.sqrt(side):
        raise ValueError(f"its gram has an eigenvalue of {least:g}, and no sum of squares has")


def require_possible_sums(sums: Floats, n_examples: int, codec: str, sigma: float = 0.0) -> None:
    """The same for `ridge.class_sums`; sigma: the deviation of its noise."""
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


def require_possible_gaussians(gaussians: Gaussians, n_examples: int) -> None:
    """The same for `gaussians.class_gaussians`, of embeddings whose length is not known."""
    counts = gaussians.counts
    if counts.min() < 0 or counts.sum(dtype=np.float64) != n_examples:
        raise ValueError(f"it counts {counts.tolist()} images, not {n_examples}")
    if gaussians.variances.min() < 0:
        raise ValueError(f"it has a variance of {gaussians.variances.min():g}")
    largest = max(float(np.abs(gaussians.means).max()), float(gaussians.variances.max()) ** 0.5)
    if largest > LARGEST:
        raise ValueError(f"it has a number of {largest:g}, and no embedding one beyond {LARGEST:g}")
