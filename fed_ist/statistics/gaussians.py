"""A Gaussian for each class, sent once, from which the server draws embeddings to train a head on.

After FedPFT (Beitollahi et al., "Parametric Feature Transfer: One-shot Federated Learning with
Foundation Models", 2024), with one diagonal Gaussian for each class and node.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Gaussians:
    """One diagonal Gaussian for each class of a node; zeros where it has no example.

    means, variances: float32 (num_classes, d); counts: int64 (num_classes,).
    """

    means: NDArray[np.float32]
    variances: NDArray[np.float32]
    counts: NDArray[np.int64]

    @property
    def sums(self) -> NDArray[np.float64]:
        """The sum of embeddings in each class, and their number: float64 (num_classes, d+1).

        They have the form of `ridge.Gram.sums`.
        """
        counts = self.counts[:, None].astype(np.float64)
        return np.hstack([counts * self.means, counts])

    @property
    def variance(self) -> float:
        """The variance of an example about its class's mean, summed over the d numbers."""
        total = self.counts @ self.variances.sum(axis=1, dtype=np.float64)
        return float(total / max(1, self.counts.sum()))


def within_share(gaussians: Gaussians, share: float) -> Gaussians:
    """The same Gaussians for a share of the examples, in (0, 1], rounded up in each class."""
    return replace(gaussians, counts=np.ceil(gaussians.counts * share).astype(np.int64))


def class_gaussians(
    embeddings: NDArray[np.float32], labels: NDArray[np.int64], num_classes: int
) -> Gaussians:
    """The maximum-likelihood Gaussians of a node's examples.

    embeddings: float32 (n, d); labels: int64 (n,). Source: Beitollahi et al. 2024.
    """
    counts = np.bincount(labels, minlength=num_classes)
    means = np.zeros((num_classes, embeddings.shape[1]), dtype=np.float32)
    variances = np.zeros_like(means)
    for label in np.flatnonzero(counts):
        own = embeddings[labels == label].astype(np.float64)
        means[label], variances[label] = own.mean(axis=0), own.var(axis=0)
    return Gaussians(means, variances, counts)


def sample_gaussians(
    nodes: Sequence[Gaussians], n_samples: int, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Drawn embeddings, float32 (n_samples, d), and their labels, int64 (n_samples,).

    Each Gaussian gives a number of samples in proportion to its count, rounded up or down
    (systematic sampling), in the order of the nodes and classes. Raises `ValueError` where no node
    has an example.
    """
    total_by_gaussian = np.cumsum(np.concatenate([node.counts for node in nodes]))
    total = total_by_gaussian[-1]
    if total < 1:
        raise ValueError("No node has an example: there is nothing to draw from.")
    at = np.minimum((np.arange(n_samples) + rng.random()) * total / n_samples, total - 1)
    which = np.searchsorted(total_by_gaussian, at, side="right")
    means = np.concatenate([node.means for node in nodes])[which]
    deviations = np.sqrt(np.concatenate([node.variances for node in nodes]).clip(0))[which]
    noise = rng.standard_normal(means.shape, dtype=np.float32)
    return means + deviations * noise, which % len(nodes[0].counts)
