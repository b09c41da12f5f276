"""Statistics of an encoder's embeddings, which it carries beside its weights, and their use.

An encoder knows, from images without labels, the mean and the covariance of its embeddings. With
these it gives embeddings of mean 0 that are half-way to being decorrelated, (x - m) Σ^(-1/4):
embeddings of a transformer vary along a few directions many times as much as along all others, and
a classifier that is trained for few steps, or a node that has few images, learns from these alone.
No byte of it crosses a link but with the weights.

In a checkpoint they are float32 arrays with a row for each way of pooling, of `cls` and then of
`avg`, or one row where there is one way: `fed_ist.feature_mean` (rows, dim) and
`fed_ist.feature_covariance` (rows, dim (dim + 1) / 2), upper triangles row by row. Checkpoints of
earlier versions have `fed_ist.feature_std` (rows, dim) instead, by which embeddings are divided.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from fed_ist.errors import InputError

FEATURE_MEAN, FEATURE_STD = "fed_ist.feature_mean", "fed_ist.feature_std"
FEATURE_COVARIANCE = "fed_ist.feature_covariance"
NAMES = (FEATURE_MEAN, FEATURE_STD, FEATURE_COVARIANCE)

FEATURE_AXES = 2
ANEW = "Make them anew: fed-ist calibrate."

# (mean, deviation, matrix), see `feature_maps`.
FeatureMaps = tuple[Tensor, Tensor, Tensor | None]

POWER = 0.5  # of Σ^(-power / 2): 0 leaves embeddings as they are, 1 whitens them
ROUNDING = 1e-3  # of a variance, in the share of the largest
LEAST_VARIANCE = 1e-10  # in the share of squared embeddings; what is less is rounding
FLOOR = 0.01  # no eigenvalue counts as less than this share of their mean


def take_features(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove the statistics from the weights of a checkpoint, and return them."""
    return {name: weights.pop(name) for name in NAMES if name in weights}


class Moments:
    """Sums over embeddings, from which their mean and covariance come.

    Sums are about the first embedding, so that a large mean costs no precision.
    """

    def __init__(self) -> None:
        self._n = 0
        self._origin = torch.zeros(0)
        self._sum = torch.zeros(0)
        self._products = torch.zeros(0)

    def add(self, embeddings: Tensor) -> None:
        """Add embeddings. embeddings: float (n, dim)."""
        rows = embeddings.double()
        if not self._n:
            self._origin = rows[0]
            self._sum = torch.zeros_like(rows[0])
            self._products = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
        rows = rows - self._origin
        self._n += len(rows)
        self._sum += rows.sum(dim=0)
        self._products += rows.T @ rows

    @property
    def mean(self) -> Tensor:
        """float64 (dim,)."""
        return self._origin + self._sum / self._n

    @property
    def covariance(self) -> Tensor:
        """float64 (dim, dim)."""
        mean = self._sum / self._n
        return self._products / self._n - torch.outer(mean, mean)

    @property
    def vary(self) -> bool:
        """Whether embeddings differ by more than rounding."""
        squares = self._origin.square().sum() + self.covariance.trace()
        return bool(self.covariance.trace() > LEAST_VARIANCE * squares)


def features_of(moments: list[Moments]) -> dict[str, Tensor]:
    """The statistics as a checkpoint holds them. moments: of each way of pooling.

    Raises `InputError` where the embeddings are all the same.
    """
    if not all(one.vary for one in moments):
        raise InputError(
            "All images have the same embedding, so there is no way in which embeddings vary. Give "
            "images that differ."
        )
    upper = torch.triu_indices(*moments[0].covariance.shape)
    triangles = [one.covariance[upper[0], upper[1]] for one in moments]
    return {
        FEATURE_MEAN: torch.stack([one.mean for one in moments]).float(),
        FEATURE_COVARIANCE: torch.stack(triangles).float(),
    }


def feature_maps(features: Mapping[str, Tensor], dim: int, rows: list[int]) -> FeatureMaps:
    """(mean, deviation, matrix) of the pooled outputs, all rows one after another, float32.

    Embeddings are (x - mean) / deviation, times the matrix where there is one: (n,), (n,) and
    (n, n) with n = dim * len(rows). features: of a checkpoint, maybe none. dim: of one row.
    Raises `InputError` where they are of another encoder, or a covariance is none.
    """
    for name, values in features.items():
        if why := _trouble(name, values, dim, max(rows) + 1):
            raise InputError(f"The statistics '{name}' of this checkpoint are {why}. {ANEW}")
    none = torch.zeros(max(rows) + 1, dim)
    mean = features.get(FEATURE_MEAN, none)[rows].flatten()
    deviation = features.get(FEATURE_STD, none + 1)[rows].flatten()
    if FEATURE_COVARIANCE not in features:
        return mean, deviation, None
    matrix = torch.zeros(len(mean), len(mean))
    for i, row in enumerate(rows):
        own = slice(i * dim, (i + 1) * dim)
        matrix[own, own] = decorrelating(whole(features[FEATURE_COVARIANCE][row], dim))
    return mean, deviation, matrix


def _trouble(name: str, values: Tensor, dim: int, n_rows: int) -> str:
    """Why statistics are none of an encoder of `dim` numbers; empty where they may be."""
    width = dim * (dim + 1) // 2 if name == FEATURE_COVARIANCE else dim
    if values.ndim != FEATURE_AXES or len(values) < n_rows or values.shape[1] != width:
        return f"{tuple(values.shape)}, which does not fit an encoder of {dim} numbers"
    if not values.isfinite().all():
        return "not finite"
    return "not above 0" if name == FEATURE_STD and not (values > 0).all() else ""


def whole(triangle: Tensor, dim: int) -> Tensor:
    """A symmetric matrix, float64 (dim, dim), of its upper triangle, row by row."""
    upper = torch.triu_indices(dim, dim)
    matrix = torch.zeros(dim, dim, dtype=torch.float64)
    matrix[upper[0], upper[1]] = triangle.double()
    return matrix + matrix.triu(1).T


def decorrelating(covariance: Tensor, power: float = POWER, floor: float = FLOOR) -> Tensor:
    """Σ^(-power / 2), scaled so that the mean variance of a number becomes 1: float32 (dim, dim).

    covariance: float64 (dim, dim), finite. The matrix is symmetric. Raises `InputError` where no
    numbers have this covariance, or only such as do not vary.
    """
    values, vectors = torch.linalg.eigh(covariance)
    if not values[-1] > 0 or values[0] < -ROUNDING * values[-1]:
        raise InputError(
            f"The statistics '{FEATURE_COVARIANCE}' of this checkpoint are no covariance, as "
            f"variances go from {float(values[0]):.3g} to {float(values[-1]):.3g}. {ANEW}"
        )
    values = values.clamp(min=0)
    floored = values.clamp(min=max(float(floor * values.mean()), torch.finfo(torch.float32).tiny))
    scales = floored ** (-power / 2)
    scales = scales / (scales.square() * values).mean().clamp(min=1e-30).sqrt()
    matrix: Tensor = (vectors * scales) @ vectors.T
    return matrix.float()


def apply_features(
    pooled: Tensor, mean: Tensor, deviation: Tensor, matrix: Tensor | None
) -> Tensor:
    """The embeddings of pooled outputs: float32 (n, embed_dim). For the rest see `feature_maps`."""
    embeddings = (pooled.float() - mean) / deviation
    return embeddings if matrix is None else embeddings @ matrix
