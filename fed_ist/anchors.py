"""The anchor: a linear head, solved in closed form, to whose logits the classifier adds its own.

It is ridge regression on the embeddings or on random features of them, made of sums that nodes send
once (see `fed_ist.statistics`). The subnets then only learn what it leaves over, so that their
small share of the neurons is spent on what a linear head cannot do, and a round with few of them
starts from a good classifier instead of from nothing.

In parameters it is `anchor.weight` (num_classes, n) and `anchor.bias` (num_classes,), and with
random features `anchor.projection` (embed_dim, n), which every node draws for itself from the run's
seed. None of it is sliced or trained.
"""

import numpy as np
from numpy.typing import NDArray

from fed_ist.heads import Params
from fed_ist.rng import generator
from fed_ist.statistics import Gram, choose_strength, solve_ridge

WEIGHT, BIAS, PROJECTION = "anchor.weight", "anchor.bias", "anchor.projection"
SENT = (WEIGHT, BIAS)
ANCHORS = ("none", "ridge")

# Of the mean eigenvalue of the features' scatter.
STRENGTHS = tuple(float(s) for s in np.logspace(-5, 1, 25))


def draw_projection(embed_dim: int, n_features: int, seed: int) -> NDArray[np.float32]:
    """The matrix of `n_features` random features, float32 (embed_dim, n_features)."""
    rng = generator(seed, "features")
    drawn: NDArray[np.float32] = rng.standard_normal((embed_dim, n_features), dtype=np.float32)
    return drawn


def features(
    embeddings: NDArray[np.float32], projection: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """What the ridge regression sees, float32 (n, n_features), each row of length 1 (or 0).

    relu(x P) with a projection P (McDonnell et al., "RanPAC", NeurIPS 2023), else the embeddings.
    The length is ours: it costs no accuracy, and bounds what one image adds to the statistics,
    without which no noise would hide it.
    """
    values = embeddings if projection is None else np.maximum(embeddings @ projection, 0)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    unit: NDArray[np.float32] = values / np.maximum(lengths, np.finfo(np.float32).tiny)
    return unit


def solve_anchor(stats: Gram, scale: float) -> Params:
    """The anchor, its logits multiplied by `scale`; the ridge's strength by cross-validation."""
    weight, bias = solve_ridge(stats, choose_strength(stats, STRENGTHS))
    scaled = np.float32(scale)
    return {WEIGHT: weight * scaled, BIAS: bias * scaled}


def anchor_logits(params: Params, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 (n, num_classes). Regression onto one-hot gives logits within about 0 and `scale`."""
    seen = features(embeddings, params.get(PROJECTION))
    logits: NDArray[np.float32] = seen @ params[WEIGHT].T + params[BIAS]
    return logits


def split(params: Params) -> tuple[Params, Params]:
    """(the trained classifier, the anchor) of parameters; either may be empty."""
    anchor = {name: array for name, array in params.items() if name.startswith("anchor.")}
    return {name: array for name, array in params.items() if name not in anchor}, anchor
