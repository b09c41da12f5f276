"""What the class means of all nodes tell, which are the least that a node can send.

Class means alone say nothing of how the images of a class vary. But the means of one class differ
from node to node, and for that reason alone: so their covariance is that of the images, up to their
number. With it the sums of products can be estimated that nodes have not sent, and a ridge
regression be solved from these. Source: Guo et al., "Covariances for Free: Exploiting Mean
Distributions for Training-free Federated Learning" (FedCOF), NeurIPS 2025. How few means are dealt
with is ours.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fed_ist.statistics.ridge import Floats, Gram, share_of_mean, whole_gram
from fed_ist.statistics.wrong_labels import inner_variance

LEAST_VARIANCE = 1e-6  # of embeddings about the mean of their class, over their square length
DEVIATIONS = 3.0  # of chance, by which class means must lie apart


@dataclass(frozen=True, eq=False)
class ClassSums:
    """A node's class sums, of the form of `Gram.sums`, and the variance of the noise in them.

    sums: (num_classes, d+1). noise: the variance in each number.
    """

    sums: Floats
    noise: float = 0.0


def scatter_of_means(found: ClassSums) -> Gram:
    """A node's statistics if each image were the mean of its class: they add up over nodes."""
    exact = found.sums.astype(np.float64)
    whole = (exact / np.where(exact[:, -1:] > 0, exact[:, -1:], 1.0)).T @ exact
    return Gram(whole[np.triu_indices(len(whole))], exact, found.noise)


def count_means(found: ClassSums) -> int:
    """The number of class means in a node's sums: of classes that it has."""
    return int(np.sum(found.sums[:, -1] > 0))


def estimate_gram(stats: Gram, n_means: int) -> Gram:
    """The statistics of all nodes' images, whose products are estimated.

    stats: the sum of the nodes' `scatter_of_means`. n_means: the sum of their `count_means`.
    Of few means the covariance within classes is moved towards a multiple of the identity, the
    further the fewer they are (`ridge.share_of_mean`), and all the way where no class is on two
    nodes. How large it is on the whole follows from the length of embeddings, which is 1.
    """
    means, present = _means(stats)
    counted = stats.sums[:, -1:].astype(np.float64) * means
    n, d = float(stats.sums[:, -1].sum(dtype=np.float64)), means.shape[1]
    shape = np.eye(d)
    if (n_free := n_means - int(present.sum())) >= 1:
        between_nodes = whole_gram(stats)[:-1, :-1] - means.T @ counted
        values, vectors = np.linalg.eigh(between_nodes)
        values = values.clip(0)
        share = share_of_mean(values, n_free)
        moved = values + share * (values.mean() - values)
        if values.mean() > 0:
            shape = (vectors * (moved / values.mean())) @ vectors.T
    whole = np.zeros((d + 1, d + 1))
    whole[:-1, :-1] = between = means.T @ counted
    whole[:-1, :-1] += max(n - float(np.trace(between)), LEAST_VARIANCE * n) / d * shape
    whole[-1] = whole[:, -1] = stats.sums.sum(axis=0)
    return Gram(whole[np.triu_indices(d + 1)], stats.sums)


def means_apart(stats: Gram) -> tuple[float, float]:
    """(how far class means lie apart, how far they would by chance at most), as sums of squares.

    stats: as in `estimate_gram`.
    """
    means, present = _means(stats)
    counts = stats.sums[present, -1].astype(np.float64)
    means = means[present]
    if len(means) < 2:
        return 0.0, 0.0
    middle = counts @ means / counts.sum()
    apart = float(counts @ np.sum((means - middle) ** 2, axis=1))
    n_free = len(means) - 1
    by_noise = stats.noise * float(np.sum(means.shape[1] / counts))
    # No direction takes up more than all of the variance.
    most = n_free * inner_variance(stats.sums) * (1 + DEVIATIONS * np.sqrt(2 / n_free))
    return apart, float(most) + 2 * by_noise


def _means(stats: Gram) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    counts = stats.sums[:, -1:].astype(np.float64)
    present = counts >= 0.5
    means = np.where(present, stats.sums[:, :-1] / np.where(present, counts, 1.0), 0.0)
    return means, present[:, 0]
