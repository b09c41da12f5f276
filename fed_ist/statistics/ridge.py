"""What a node sends once, so that a linear head is solved in closed form on frozen embeddings.

Sums over examples add up over nodes, so the server gets just the head that one place with all the
examples would get, in one round, however the classes are spread: ridge regression as Fed3R (Fanì
et al., "Accelerating Heterogeneous Federated Learning with Closed-form Classifiers", ICML 2024), or
class means as FedNCM (Legate et al., "Guiding the Last Layer in Federated Learning with
Pre-Trained Models", NeurIPS 2023).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fed_ist.classifier.exact_sum import ExactSum
from fed_ist.errors import InputError

Floats = NDArray[np.floating[Any]]
Linear = tuple[NDArray[np.float32], NDArray[np.float32]]
BLOCK = 1024  # examples at a time
LOST = 1e-12  # of the largest eigenvalue, by rounding of sums in float64 in any order
NOBODY = -1e30  # logit of a class without examples: finite, so that softmax and loss are too


@dataclass(frozen=True, eq=False)
class Gram:
    """Sums over examples, with z = [embedding, 1]: float64, or float32 where sent.

    gram: ((d+1)(d+2)/2,) the upper triangle of the sum of z zᵀ, row by row.
    sums: (num_classes, d+1) the sum of z in each class; the last column counts.
    noise: the variance of the noise in each number.
    Raises `ValueError` where shapes disagree or a number is not finite or no floating-point number,
    as a reply's may.
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
    """Statistics of embeddings (n, d) with labels (n,), float64.

    Source: Fanì et al. 2024 (their A and b).
    """
    side = embeddings.shape[1] + 1
    gram, sums = np.zeros((side, side)), np.zeros((num_classes, side))
    for first in range(0, len(labels), BLOCK):  # lest a copy in float64 fill a device's memory
        rows = slice(first, first + BLOCK)
        z = np.concatenate([embeddings[rows], np.ones((len(labels[rows]), 1))], axis=1)
        gram += z.T @ z
        sums += np.eye(num_classes)[labels[rows]].T @ z
    return Gram(gram[np.triu_indices(side)], sums)


def class_sums(
    embeddings: NDArray[np.float32], labels: NDArray[np.int64], num_classes: int
) -> NDArray[np.float32]:
    """`Gram.sums` alone, for class means: float32 (num_classes, d+1)."""
    one_hot = np.eye(num_classes)[labels]
    sums: Floats = one_hot.T @ np.concatenate([embeddings, np.ones((len(labels), 1))], axis=1)
    return sums.astype(np.float32)


def add(a: Gram, b: Gram) -> Gram:
    """The statistics of both, float64. Raises `ValueError` where their shapes differ."""
    if a.sums.shape != b.sums.shape:
        raise ValueError(f"Sums {a.sums.shape} and {b.sums.shape} cannot be added.")
    gram, sums = a.gram.astype(np.float64) + b.gram, a.sums.astype(np.float64) + b.sums
    return Gram(gram, sums, a.noise + b.noise)


def scaled(stats: Gram, factor: float) -> Gram:
    """The statistics of `factor` times as many examples alike."""
    return Gram(factor * stats.gram, factor * stats.sums, factor**2 * stats.noise)


class GramSum:
    """Statistics of many nodes, added as they come: in any order the total is the same."""

    def __init__(self) -> None:
        self.n_terms = 0
        self._parts: tuple[ExactSum, ExactSum] | None = None
        self._noise = 0.0

    def add(self, stats: Gram) -> None:
        if self._parts is None:
            self._parts = ExactSum(stats.gram.shape), ExactSum(stats.sums.shape)
        gram, sums = self._parts
        gram.add(stats.gram)
        sums.add(stats.sums)
        self._noise += stats.noise
        self.n_terms += 1

    def total(self) -> Gram:
        """Their sum, float64. Raises `ValueError` for none."""
        if self._parts is None:
            raise ValueError("There are no statistics to sum.")
        gram, sums = self._parts
        return Gram(gram.total(), sums.total(), self._noise)


def with_noise(stats: Gram, sigma: float, rng: np.random.Generator) -> Gram:
    """Statistics with N(0, sigma²) added to every number, float32: the Gaussian mechanism.

    One embedding of norm 1 at most, as `anchors.features` makes them, moves the statistics by √5 at
    most, so sigma = √5 · √(2 ln(1.25 / delta)) / epsilon gives (epsilon, delta) privacy to each
    example, for epsilon below 1 (Dwork and Roth 2014, theorem A.1). The counts are noisy too.
    """
    noisy = (array + rng.normal(0.0, sigma, array.shape) for array in (stats.gram, stats.sums))
    gram, sums = (array.astype(np.float32) for array in noisy)
    return Gram(gram, sums, stats.noise + sigma**2)


def solve_ridge(stats: Gram, strength: float) -> Linear:
    """Weight (num_classes, d) and bias (num_classes,), float32: ridge regression onto one-hot.

    The bias is not penalised. The penalty is `strength` times the mean eigenvalue of the centred
    scatter (the trace of the covariance · n / d), so that it depends neither on the scale of the
    embeddings nor on how many there are. Negative eigenvalues, which only noise makes, count as 0;
    and the penalty never falls below the noise, nor below what rounding lost of the largest
    eigenvalue before centring, lest embeddings all alike get weights from rounding. Raises
    `InputError` for a negative strength. Source: Fanì et al. 2024.
    """
    return _solve(centre(stats), strength)


def half_whitening(stats: Gram) -> Linear:
    """Weight (d, d) and bias (d,), float32, of z -> inputs with mean 0 along the principal axes.

    Each axis is divided by the square root of its deviation, the fourth root of its variance, and
    all by one number that makes the mean variance 1. Variances are `expected` ones, and those below
    what the noise in the statistics may make count as that, lest noise be blown up.
    """
    centred = centre(stats)
    roots = np.sqrt(centred.expected / centred.n)
    weight = centred.vectors.T / np.sqrt(roots * roots.mean())[:, None]
    return weight.astype(np.float32), (-weight @ centred.mean).astype(np.float32)


def squared_error(stats: Gram, head: Linear) -> float:
    """Sum over examples and classes of (one-hot - logits)², from their statistics alone.

    It is tr(YᵀY) - 2 tr(WᵀS) + tr(W G Wᵀ), with the bias as the last column of W.
    """
    whole = np.column_stack(head).astype(np.float64)
    fit = np.sum(whole @ unpack(stats) * whole) - 2 * np.sum(whole * stats.sums)
    return float(stats.sums[:, -1].sum(dtype=np.float64) + fit)


def class_means(sums: Floats) -> Linear:
    """The nearest class mean as a linear head: logits 2 µ·x - |µ|², that is |x|² - |x - µ|².

    sums: (num_classes, d+1), as in `Gram`. A class that nobody has gets weight 0 and bias -1e30.
    Source: Legate et al. 2023.
    """
    counts = sums[:, -1:].astype(np.float64)
    present = counts >= 0.5  # noisy counts are not whole
    means = np.where(present, sums[:, :-1] / np.where(present, counts, 1.0), 0.0)
    bias = np.where(present[:, 0], -np.sum(means**2, axis=1), NOBODY)
    return (2 * means).astype(np.float32), bias.astype(np.float32)


def feature_dim_for_budget(n_bytes: int, num_classes: int, number_bytes: int = 4) -> int:
    """The largest d whose `Gram`, in numbers of so many bytes, takes n_bytes at most.

    With q = d + 1 and numbers of 4 bytes that is 4 (q (q + 1) / 2 + Cq) <= n_bytes. Raises
    `InputError` if not even d = 1 fits.
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
    """Ridge regression's sums in the eigenbasis of the centred scatter, for every strength.

    n: examples. values: (d,) the eigenvalues. vectors: (d, d), in columns. targets: (num_classes,
    d). mean: (d,). shares: (num_classes,) of the classes. lost: the eigenvalue that noise and
    rounding may make. noise: the variance of each number of `targets`.
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
        """The scatter (d,) that new examples have along the vectors, for as many examples.

        Of a direction in which few examples happen to vary little others vary more: without this
        the inputs of images that no node trained on were twice as long as of those that one did.
        Eigenvalues are drawn to their mean by the share that few examples call for, and not below
        1e-5 of it. Source: Chen, Wiesel, Eldar and Hero, "Shrinkage Algorithms for MMSE Covariance
        Estimation" (OAS), IEEE Transactions on Signal Processing 2010.
        """
        d, total = len(self.values), self.values.sum()
        squares = np.sum(self.values**2)
        apart = (self.n + 1 - 2 / d) * (squares - total**2 / d)
        along = (1 - 2 / d) * squares + total**2
        share = min(1.0, along / apart) if apart > 0 else 1.0
        drawn = self.values + share * (self.values.mean() - self.values)
        floor: NDArray[np.float64] = np.maximum(drawn, max(1e-5 * drawn.mean(), self.lost))
        return floor


def centre(stats: Gram) -> Centred:
    """The statistics about their mean."""
    gram, sums = unpack(stats), stats.sums.astype(np.float64)
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
    """What is added to each eigenvalue; raises `InputError` for a negative strength."""
    if not 0 <= strength < np.inf:
        raise InputError(f"A ridge strength of {strength} is not possible: give 0 or more.")
    return float(max(strength * centred.values.mean(), centred.lost))


def unpack(stats: Gram) -> NDArray[np.float64]:
    """The whole sum of z zᵀ, (d+1, d+1)."""
    side = stats.sums.shape[1]
    upper = np.zeros((side, side))
    upper[np.triu_indices(side)] = stats.gram
    return upper + np.triu(upper, 1).T
