"""The parts of the classifier that are not trained.

Two are solved in closed form from statistics, which each node sends once: sums over all nodes'
embeddings (`fed_ist.statistics.ridge`). The rest of the classifier is then trained beside them:

- the inputs, a linear map after which no direction dominates. Embeddings of a transformer vary
  along a few directions many times as much as along the others; a narrow slice, trained for few
  steps, learns from these few alone. So embeddings are rotated to their principal axes, and each
  axis is divided by the square root of its standard deviation. That is half-way to whitening, which
  would make noise as large as everything else.
- the anchor, a ridge regression on the embeddings or on random features of them. The classifier
  adds its logits to the anchor's, so that a run starts from the anchor's accuracy instead of from
  chance, and slices learn only what the anchor lacks. Class means alone give one too, a little
  worse (`fed_ist.statistics.class_means`).

A third part comes from the run's seed alone:

- random features, which the classifier gets in place of the embeddings. A linear head on some
  hundreds of them tells classes apart that no line between embeddings does.

Among the parameters they are `inputs.projection` (embed_dim, n) for n random features;
`inputs.weight` (embed_dim, embed_dim) and `inputs.bias` (embed_dim,),
`anchor.weight` (num_classes, n_features) and `anchor.bias` (num_classes,), and with random features
`anchor.projection` (embed_dim, n_features), which every node draws for itself from the run's seed.
All are float32; none is sliced or trained.
"""

import numpy as np
from numpy.typing import NDArray

from fed_ist.classifier.layout import Params, count_layers
from fed_ist.rng import generator
from fed_ist.statistics.class_means import estimate_gram, means_apart
from fed_ist.statistics.cross_validation import choose_strength, validate, whitening_pays
from fed_ist.statistics.ridge import Gram, Linear, centre, half_whitening, solve_ridge

INPUTS_WEIGHT, INPUTS_BIAS = "inputs.weight", "inputs.bias"
INPUTS_PROJECTION = "inputs.projection"
WEIGHT, BIAS, PROJECTION = "anchor.weight", "anchor.bias", "anchor.projection"
ANCHORS = ("none", "inputs", "means", "ridge")


def draw_projection(
    embed_dim: int, n_features: int, seed: int, purpose: str = "features"
) -> NDArray[np.float32] | None:
    """The projection for random features: float32 (embed_dim, n_features); None for 0 features.

    purpose: which of the seed's streams it comes from.
    """
    if n_features == 0:
        return None
    rng = generator(seed, purpose)
    drawn: NDArray[np.float32] = rng.standard_normal((embed_dim, n_features), dtype=np.float32)
    return drawn


def with_projection(fixed: Params, embed_dim: int, n_features: int, seed: int) -> Params:
    """The inputs and the anchor, and the projection of random features where the anchor has one.

    fixed: float32 arrays, as in this module's list; n_features: 0 for an anchor on embeddings.
    Returns `fixed` itself, or a new dict with float32 (embed_dim, n_features) added.
    """
    projection = draw_projection(embed_dim, n_features, seed)
    return fixed if projection is None or WEIGHT not in fixed else fixed | {PROJECTION: projection}


def random_inputs(embed_dim: int, n_features: int, seed: int) -> Params:
    """`inputs.projection`, float32 (embed_dim, n_features), by the run's seed; empty for 0."""
    drawn = draw_projection(embed_dim, n_features, seed, "random-features")
    return {} if drawn is None else {INPUTS_PROJECTION: drawn}


def features(
    embeddings: NDArray[np.float32], projection: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """The features of which statistics are made: float32 (n, n_features), rows of length 1 (or 0).

    embeddings: float32 (n, embed_dim). projection: float32 (embed_dim, n_features), for features
    relu(embeddings @ projection) (McDonnell et al., "RanPAC", NeurIPS 2023); None for the
    embeddings themselves. Making the length 1 is ours: it costs no accuracy, and it bounds what one
    image adds to the statistics, so that noise can hide it.
    """
    values = embeddings if projection is None else np.maximum(embeddings @ projection, 0)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = values / np.maximum(lengths, np.finfo(np.float32).tiny)
    return scaled


def solve_inputs(stats: Gram) -> Params:
    """The inputs, solved from statistics of the embeddings.

    Returns `inputs.weight` float32 (embed_dim, embed_dim) and `inputs.bias` float32 (embed_dim,).
    """
    weight, bias = half_whitening(stats)
    return {INPUTS_WEIGHT: weight, INPUTS_BIAS: bias}


def solve_anchor(stats: Gram, scale: float) -> Params:
    """The anchor, solved from statistics of the features, with a strength by cross-validation.

    scale: by which its logits are multiplied.
    Returns `anchor.weight` float32 (num_classes, n_features) and `anchor.bias` (num_classes,).
    """
    return _as_anchor(solve_ridge(stats, choose_strength(stats)), scale)


def solve_means(stats: Gram, n_means: int, scale: float) -> Params:
    """The anchor, solved from class means alone.

    stats, n_means: see `class_means.estimate_gram`. scale: by which its logits are multiplied.
    Returns `anchor.weight` float32 (num_classes, embed_dim) and `anchor.bias` (num_classes,).
    """
    return _as_anchor(solve_ridge(estimate_gram(stats, n_means), 0.0), scale)


def _as_anchor(head: Linear, scale: float) -> Params:
    weight, bias = head
    return {WEIGHT: weight * np.float32(scale), BIAS: bias * np.float32(scale)}


def judge_inputs(stats: Gram) -> str:
    """Why a run should do without inputs from these statistics; empty where it should not."""
    plain, whitened, pays = whitening_pays(centre(stats))
    if pays:
        return ""
    return (
        f"a ridge on decorrelated inputs would take {whitened}, one on the embeddings as they are "
        f"{plain}"
    )


def judge_anchor(stats: Gram) -> str:
    """Why a run should do without an anchor from these statistics; empty where it should not."""
    ridge = validate(centre(stats))
    if ridge.predicts:
        return ""
    return f"a ridge would take {ridge}, no more than chance may"


def judge_means(stats: Gram) -> str:
    """Why a run should do without an anchor from these class means; empty where it should not."""
    apart, by_chance = means_apart(stats)
    return (
        "" if apart > by_chance else "class means lie no further apart than chance may bring them"
    )


def inputs_shapes(embed_dim: int) -> dict[str, tuple[int, ...]]:
    """The shapes of what `solve_inputs` returns, by name."""
    return {INPUTS_WEIGHT: (embed_dim, embed_dim), INPUTS_BIAS: (embed_dim,)}


def anchor_shapes(n_features: int, num_classes: int) -> dict[str, tuple[int, ...]]:
    """The shapes of what `solve_anchor` returns, by name."""
    return {WEIGHT: (num_classes, n_features), BIAS: (num_classes,)}


def trained_and_fixed(params: Params) -> tuple[Params, Params]:
    """The parameters that are trained, and the inputs and the anchor, which are not.

    params: float32 arrays of any shapes. Either dict may be empty.
    """
    fixed = {n: array for n, array in params.items() if n.startswith(("anchor.", "inputs."))}
    return {name: array for name, array in params.items() if name not in fixed}, fixed


def start_silent(params: Params) -> Params:
    """The classifier with its last layer at 0, so that at first all logits are the anchor's.

    params: the trained ones, float32. Returns new arrays of the same shapes.
    """
    last = f"fc{count_layers(params)}."
    return {n: array * (0 if n.startswith(last) else 1) for n, array in params.items()}


def classifier_inputs(fixed: Params, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the first layer of the classifier is given: float32 (n, its inputs).

    fixed: parameters; without any of `inputs` the embeddings come back as they are.
    embeddings: float32 (n, embed_dim).
    """
    if INPUTS_PROJECTION in fixed:
        projection = fixed[INPUTS_PROJECTION]
        # Their mean square becomes 1, as that of embeddings is.
        return features(embeddings, projection) * np.float32(np.sqrt(projection.shape[1]))
    if INPUTS_WEIGHT not in fixed:
        return embeddings
    inputs: NDArray[np.float32] = features(embeddings, None) @ fixed[INPUTS_WEIGHT].T
    return inputs + fixed[INPUTS_BIAS]


def anchor_logits(fixed: Params, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """The logits of the anchor: float32 (n, num_classes), or zeros (n, 1) where there is none.

    embeddings: float32 (n, embed_dim). As the anchor is a regression onto one-hot targets, its
    logits lie between about 0 and the `scale` of `solve_anchor`.
    """
    if WEIGHT not in fixed:
        return np.zeros((len(embeddings), 1), dtype=np.float32)
    seen = features(embeddings, fixed.get(PROJECTION))
    logits: NDArray[np.float32] = seen @ fixed[WEIGHT].T + fixed[BIAS]
    return logits
