"""Linear heads on frozen embeddings, solved from sums over examples that each node sends once.

Such sums add up over nodes. So in one round, and whatever classes each node has, the server gets
the same head as if it had all examples: ridge regression as Fed3R (Fanì et al., "Accelerating
Heterogeneous Federated Learning with Closed-form Classifiers", ICML 2024), or class means as FedNCM
(Legate et al., "Guiding the Last Layer in Federated Learning with Pre-Trained Models", NeurIPS
2023).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fed_ist.classifier.exact_sum import ExactSum
from fed_ist.errors import InputError

Floats = NDArray[np.floating[Any]]
Linear = tuple[NDArray[np.float32], NDArray[np.float32]]  # weight (n_out, d), bias (n_out,)
BLOCK = 1024  # examples at a time
LOST = 1e-12  # rounding of sums in float64 in any order, over the largest eigenvalue
NOBODY = -1e30  # logit of a class without examples: finite, so that softmax and loss are too


@dataclass(frozen=True, eq=False)
class Gram:
    """Sums over examples, with z = [embedding, 1]: float64, or float32 as they are sent.

    gram: ((d+1)(d+2)/2,), the upper triangle of the sum of z zᵀ, row by row.
    sums: (num_classes, d+1), the sum of z in each class; the last column counts the examples.
    noise: the variance of the noise in each number.
    Raises `ValueError` where the shapes do not fit each other, and where a dtype is not
    floating-point or a number is not finite, as those of a reply may be.
    """

    gram: Floats
    sums: Floats
    noise: float = 0.0

    def __post_init__(self) -> None:
        side = self.sums.shape[1] if self.sums.ndim == 2 else 0
        if side < 2 or self.gram.shape != (side * (side + 1) // 2,):
            raise ValueError(f"A gram {self.gram.shape} does not fit sums {self.sums.shape}.")
        if not (self.gram.dtype.kind == self.sums.dtype.kind == "f"):
            dtypes = f"{self.gram.dtype} and {self.sums.dtype}"
            raise ValueError(f"Statistics of {dtypes} are not floating-point.")
        if not (np.isfinite(self.gram).all() and np.isfinite(self.sums).all()):
            raise ValueError("Some statistics are not finite.")


def gram_statistics(
    embeddings: NDArray[np.float32], labels: NDArray[np.int64], num_classes: int
) -> Gram:
    """The sums over a node's examples, float64.

    embeddings: float32 (n, d); labels: int64 (n,). Source: Fanì et al. 2024 (their A and b).
    """
    side = embeddings.shape[1] + 1
    gram, sums = np.zeros((side, side)), np.zeros((num_classes, side))
    for first in range(0, len(labels), BLOCK):  # a float64 copy of all may not fit in memory
        rows = slice(first, first + BLOCK)
        z = np.concatenate([embeddings[rows], np.ones((len(labels[rows]), 1))], axis=1)
        gram += z.T @ z
        sums += np.eye(num_classes)[labels[rows]].T @ z
    return Gram(gram[np.triu_indices(side)], sums)


def class_sums(
    embeddings: NDArray[np.float32], labels: NDArray[np.int64], num_classes: int
) -> NDArray[np.float32]:
    """The sums of a `Gram` alone, which suffice for class means: float32 (num_classes, d+1).

    embeddings: float32 (n, d); labels: int64 (n,).
    """
    one_hot = np.eye(num_classes)[labels]
    sums: Floats = one_hot.T @ np.concatenate([embeddings, np.ones((len(labels), 1))], axis=1)
    return sums.astype(np.float32)


def add(a: Gram, b: Gram) -> Gram:
    """The statistics of the examples of both, float64.

    Raises `ValueError` where their shapes differ.
    """
    if a.sums.shape != b.sums.shape:
        raise ValueError(f"Sums {a.sums.shape} and {b.sums.shape} cannot be added.")
    gram, sums = a.gram.astype(np.float64) + b.gram, a.sums.astype(np.float64) + b.sums
    return Gram(gram, sums, a.noise + b.noise)


def scaled(stats: Gram, factor: float) -> Gram:
    """The statistics that each example would give if it were counted `factor` times."""
    return Gram(factor * stats.gram, factor * stats.sums, factor**2 * stats.noise)


class GramSum:
    """The sum of the statistics of many nodes, the same in whatever order they are added.

    n_terms: how many were added.
    """

    def __init__(self) -> None:
        self.n_terms = 0
        self._exact: tuple[ExactSum, ExactSum] | None = None
        self._noise = 0.0

    def add(self, stats: Gram) -> None:
        """Add the statistics of one node, of the same shapes as those before."""
        if self._exact is None:
            self._exact = ExactSum(stats.gram.shape), ExactSum(stats.sums.shape)
        gram, sums = self._exact
        gram.add(stats.gram)
        sums.add(stats.sums)
        self._noise += stats.noise
        self.n_terms += 1

    def total(self) -> Gram:
        """The sum of all that were added, float64; raises `ValueError` where none were."""
        if self._exact is None:
            raise ValueError("There are no statistics to sum.")
        gram, sums = self._exact
        return Gram(gram.total(), sums.total(), self._noise)


def with_noise(stats: Gram, sigma: float, rng: np.random.Generator) -> Gram:
    """Statistics with N(0, sigma²) added to every number, float32: the Gaussian mechanism.

    An embedding of length 1 at most, as `anchors.features` makes it, changes the statistics by √5
    at most. So sigma = √5 · √(2 ln(1.25 / delta)) / epsilon gives each example (epsilon, delta)
    privacy, for epsilon below 1 (Dwork and Roth 2014, theorem A.1). The counts get noise too.
    """
    noisy = (array + rng.normal(0.0, sigma, array.shape) for array in (stats.gram, stats.sums))
    gram, sums = (array.astype(np.float32) for array in noisy)
    return Gram(gram, sums, stats.noise + sigma**2)


def solve_ridge(stats: Gram, strength: float) -> Linear:
    """Ridge regression onto one-hot targets.

    Returns weight float32 (num_classes, d) and bias float32 (num_classes,). The bias is not
    penalised. The penalty is `strength` times the mean eigenvalue of the centred scatter (the trace
    of the covariance · n / d), so that it depends neither on the scale of the embeddings nor on
    their number. Negative eigenvalues, which only noise makes, count as 0. The penalty is never
    below the eigenvalues that noise makes, nor below those that rounding makes: otherwise,
    embeddings that are all alike would get weights from rounding alone. Raises `InputError` for a
    negative strength. Source: Fanì et al. 2024.
    """
    return _solve(centre(stats), strength)


def half_whitening(stats: Gram) -> Linear:
    """The linear map of embeddings to inputs of mean 0 along their principal axes.

    Returns weight float32 (d, d) and bias float32 (d,). Each axis is divided by the square root of
    its standard deviation, and all by one number that makes the mean variance 1. The variances are
    those of `Centred.expected`, which are never below what noise in the statistics can make: so
    noise is not made larger.
    """
    centred = centre(stats)
    roots = np.sqrt(centred.expected / centred.n)
    weight = centred.vectors.T / np.sqrt(roots * roots.mean())[:, None]
    return weight.astype(np.float32), (-weight @ centred.mean).astype(np.float32)


def squared_error(stats: Gram, head: Linear) -> float:
    """The sum over examples and classes of (one-hot - logits)², from the statistics alone.

    head: weight (num_classes, d) and bias (num_classes,), float32.
    With Y the one-hot targets, S the sums, G the whole gram and the bias as the last column of W,
    it is tr(YᵀY) - 2 tr(WᵀS) + tr(W G Wᵀ).
    """
    whole = np.column_stack(head).astype(np.float64)
    fit = np.sum(whole @ whole_gram(stats) * whole) - 2 * np.sum(whole * stats.sums)
    return float(stats.sums[:, -1].sum(dtype=np.float64) + fit)


def class_means(sums: Floats) -> Linear:
    """The nearest class mean as a linear head: logits 2 µ·x - |µ|², that is |x|² - |x - µ|².

    sums: (num_classes, d+1), as in `Gram`. Returns weight float32 (num_classes, d) and bias float32
    (num_classes,). A class that nobody has gets weight 0 and bias -1e30.
    Source: Legate et al. 2023.
    """
    counts = sums[:, -1:].astype(np.float64)
    present = counts >= 0.5  # noisy counts are not whole
    means = np.where(present, sums[:, :-1] / np.where(present, counts, 1.0), 0.0)
    bias = np.where(present[:, 0], -np.sum(means**2, axis=1), NOBODY)
    return (2 * means).astype(np.float32), bias.astype(np.float32)


def feature_dim_for_budget(n_bytes: int, num_classes: int, number_bytes: int = 4) -> int:
    """The largest number d of features whose `Gram` takes `n_bytes` at most.

    number_bytes: of each number. With q = d + 1, a gram in numbers of 4 bytes takes
    4 (q (q + 1) / 2 + Cq) bytes for C classes. Raises `InputError` if not even d = 1 fits.
    """
    linear = 1 + 2 * num_classes
    q = (math.isqrt(linear**2 + 8 * max(0, n_bytes // number_bytes)) - linear) // 2
    if q < 2:
        raise InputError(
            f"anchor-bytes = {n_bytes} is too little for the statistics of {num_classes} classes: "
            f"give {number_bytes * (3 + 2 * num_classes)} or more."
        )
    return q - 1


@dataclass(frozen=True, eq=False)
class Centred:
    """The sums for ridge regression in the eigenbasis of the centred scatter; arrays are float64.

    They serve every strength of the penalty.
    n: the number of examples.
    values: (d,), the eigenvalues. vectors: (d, d), the eigenvectors in columns.
    targets: (num_classes, d), the class sums about the mean, along the eigenvectors.
    mean: (d,), of the embeddings. shares: (num_classes,), of the examples in each class.
    lost: the largest eigenvalue that noise and rounding can make.
    noise: the variance of the noise in each number of `targets`.
    """

    n: float
    values: NDArray[np.float64]
    vectors: NDArray[np.float64]
    targets: NDArray[np.float64]
    mean: NDArray[np.float64]
    shares: NDArray[np.float64]
    lost: float
    noise: float

    @property
    def expected(self) -> NDArray[np.float64]:
        """The scatter that `n` new examples would have along the eigenvectors: float64 (d,).

        Where few examples happen to vary little in some direction, new examples vary more. Without
        this correction, the inputs of images that no node trained on were twice as long as those of
        training images. So the eigenvalues are moved towards their mean, the further the fewer
        examples there are (`share_of_mean`), and never below 1e-5 of the mean.
        """
        share = share_of_mean(self.values, self.n)
        drawn = self.values + share * (self.values.mean() - self.values)
        floor: NDArray[np.float64] = np.maximum(drawn, max(1e-5 * drawn.mean(), self.lost))
        return floor


def share_of_mean(values: NDArray[np.float64], n: float) -> float:
    """How far the eigenvalues of a covariance are to be moved towards their mean, from 0 to 1.

    values: float64 (d,), of n examples. Source: Chen, Wiesel, Eldar and Hero, "Shrinkage Algorithms
    for MMSE Covariance Estimation" (OAS), IEEE Transactions on Signal Processing 2010.
    """
    d, total = len(values), values.sum()
    squares = np.sum(values**2)
    apart = (n + 1 - 2 / d) * (squares - total**2 / d)
    along = (1 - 2 / d) * squares + total**2
    return float(min(1.0, along / apart)) if apart > 0 else 1.0


def centre(stats: Gram) -> Centred:
    """The statistics about the mean of the embeddings, in the eigenbasis of their scatter."""
    gram, sums = whole_gram(stats), stats.sums.astype(np.float64)
    n = max(gram[-1, -1], 1.0)  # a noisy count may be anything
    mean, counts = gram[:-1, -1] / n, sums[:, -1]
    values, vectors = np.linalg.eigh(gram[:-1, :-1] - n * np.outer(mean, mean))
    targets = (sums[:, :-1] - np.outer(counts, mean)) @ vectors
    values = values.clip(0)
    # The largest eigenvalue before centring is no larger than this.
    largest = float(values[-1] + n * np.sum(mean**2))
    lost = LOST * largest + float(np.finfo(np.float32).tiny)
    # Wigner's semicircle: no eigenvalue of symmetric noise of deviation σ is beyond 2 σ √d.
    lost = max(lost, 2 * np.sqrt(stats.noise * len(gram)))
    n_counted = max(float(counts.sum()), 1.0)
    return Centred(n_counted, values, vectors, targets, mean, counts / n, lost, stats.noise)


def _solve(centred: Centred, strength: float) -> Linear:
    penalty = penalty_of(centred, strength)
    weight = centred.targets / (centred.values + penalty) @ centred.vectors.T
    bias = centred.shares - weight @ centred.mean
    return weight.astype(np.float32), bias.astype(np.float32)


def penalty_of(centred: Centred, strength: float) -> float:
    """The penalty that is added to each eigenvalue; raises `InputError` for a negative strength."""
    if not 0 <= strength < np.inf:
        raise InputError(f"A ridge strength of {strength} is not possible: give 0 or more.")
    return float(max(strength * centred.values.mean(), centred.lost))


def whole_gram(stats: Gram) -> NDArray[np.float64]:
    """The whole sum of z zᵀ, float64 (d+1, d+1), of which a `Gram` holds the upper triangle."""
    side = stats.sums.shape[1]
    upper = np.zeros((side, side))
    upper[np.triu_indices(side)] = stats.gram
    return upper + np.triu(upper, 1).T
