"""What a node's statistics, sent once, give to the classifier that is then trained in slices.

Two things are solved in closed form from sums over all nodes' embeddings
(`fed_ist.statistics.ridge`):

- inputs in which no direction drowns the others. Embeddings of a transformer vary along a few
  directions many times as much as along the rest; a narrow slice, trained for few steps, gets no
  further than these. The inputs are rotated to the principal axes, and each axis is divided by the
  root of its deviation: half-way to whitening, which would make noise as loud as the rest.
- the anchor, a ridge regression on the embeddings or on random features of them, to whose logits
  the classifier adds its own. The run starts from its accuracy instead of from chance, and slices
  learn only what it leaves over.

In parameters they are `inputs.weight` (embed_dim, embed_dim) and `inputs.bias`, `anchor.weight`
(num_classes, n) and `anchor.bias`, and with random features `anchor.projection` (embed_dim, n),
which every node draws for itself from the run's seed. None of it is sliced or trained.
"""

import numpy as np
from numpy.typing import NDArray

from fed_ist.classifier.layout import Params, count_layers
from fed_ist.rng import generator
from fed_ist.statistics.cross_validation import choose_strength, validate, whitening_pays
from fed_ist.statistics.ridge import Gram, centre, half_whitening, solve_ridge

INPUTS_WEIGHT, INPUTS_BIAS = "inputs.weight", "inputs.bias"
WEIGHT, BIAS, PROJECTION = "anchor.weight", "anchor.bias", "anchor.projection"
ANCHORS = ("none", "inputs", "ridge")


def draw_projection(embed_dim: int, n_features: int, seed: int) -> NDArray[np.float32] | None:
    """The matrix of `n_features` random features, float32 (embed_dim, n_features); None for 0."""
    if n_features == 0:
        return None
    rng = generator(seed, "features")
    drawn: NDArray[np.float32] = rng.standard_normal((embed_dim, n_features), dtype=np.float32)
    return drawn


def with_projection(fixed: Params, embed_dim: int, n_features: int, seed: int) -> Params:
    """What statistics gave, and the matrix of the random features that its anchor sees, if any."""
    projection = draw_projection(embed_dim, n_features, seed)
    return fixed if projection is None or WEIGHT not in fixed else fixed | {PROJECTION: projection}


def features(
    embeddings: NDArray[np.float32], projection: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """What statistics are made of, float32 (n, n_features), each row of length 1 (or 0).

    relu(x P) with a projection P (McDonnell et al., "RanPAC", NeurIPS 2023), else the embeddings.
    The length is ours: it costs no accuracy, and bounds what one image adds to the statistics,
    without which no noise would hide it.
    """
    values = embeddings if projection is None else np.maximum(embeddings @ projection, 0)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    unit: NDArray[np.float32] = values / np.maximum(lengths, np.finfo(np.float32).tiny)
    return unit


def solve_inputs(stats: Gram) -> Params:
    """`inputs.weight` and `inputs.bias` from statistics of the embeddings."""
    weight, bias = half_whitening(stats)
    return {INPUTS_WEIGHT: weight, INPUTS_BIAS: bias}


def solve_anchor(stats: Gram, scale: float) -> Params:
    """The anchor, its logits multiplied by `scale`; the ridge's strength by cross-validation."""
    weight, bias = solve_ridge(stats, choose_strength(stats))
    scaled = np.float32(scale)
    return {WEIGHT: weight * scaled, BIAS: bias * scaled}


def judge_inputs(stats: Gram) -> str:
    """Why a run is better off without inputs from these statistics, or nothing."""
    plain, whitened, pays = whitening_pays(centre(stats))
    if pays:
        return ""
    return (
        f"a ridge on decorrelated inputs would take {whitened}, one on the embeddings as they are "
        f"{plain}"
    )


def judge_anchor(stats: Gram) -> str:
    """Why a run is better off without an anchor from these statistics, or nothing."""
    ridge = validate(centre(stats))
    if ridge.predicts:
        return ""
    return f"a ridge would take {ridge}, no more than chance may"


def inputs_shapes(embed_dim: int) -> dict[str, tuple[int, ...]]:
    """Name -> shape of what `solve_inputs` gives."""
    return {INPUTS_WEIGHT: (embed_dim, embed_dim), INPUTS_BIAS: (embed_dim,)}


def anchor_shapes(n_features: int, num_classes: int) -> dict[str, tuple[int, ...]]:
    """Name -> shape of what `solve_anchor` gives."""
    return {WEIGHT: (num_classes, n_features), BIAS: (num_classes,)}


def split(params: Params) -> tuple[Params, Params]:
    """(the trained classifier, what statistics gave it) of parameters; either may be empty."""
    fixed = {n: array for n, array in params.items() if n.startswith(("anchor.", "inputs."))}
    return {name: array for name, array in params.items() if name not in fixed}, fixed


def start_silent(params: Params) -> Params:
    """The classifier with its last layer at 0, so that at first the anchor alone speaks."""
    last = f"fc{count_layers(params)}."
    return {n: array * (0 if n.startswith(last) else 1) for n, array in params.items()}


def classifier_inputs(fixed: Params, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the first layer gets, float32 (n, embed_dim)."""
    if INPUTS_WEIGHT not in fixed:
        return embeddings
    inputs: NDArray[np.float32] = features(embeddings, None) @ fixed[INPUTS_WEIGHT].T
    return inputs + fixed[INPUTS_BIAS]


def anchor_logits(fixed: Params, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 (n, num_classes); (n, 1) zeros without an anchor.

    Regression onto one-hot gives logits within about 0 and `scale`.
    """
    if WEIGHT not in fixed:
        return np.zeros((len(embeddings), 1), dtype=np.float32)
    seen = features(embeddings, fixed.get(PROJECTION))
    logits: NDArray[np.float32] = seen @ fixed[WEIGHT].T + fixed[BIAS]
    return logits
