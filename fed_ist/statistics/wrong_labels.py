"""Finds nodes with wrong labels: their class sums contradict those of all other nodes.

The node's mean of class c is compared with the class means of the others: is it nearer to their
class c than to their other classes? Classes that no other node has do not enter, so nodes may have
entirely different classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fed_ist.classifier.dissent import LEAST_NODES
from fed_ist.statistics.ridge import Floats

LEAST_AGREEMENT = 0.5  # 1 is full agreement with the others, 0 is chance
DEVIATIONS = 3.0  # of chance, by which a node must fall below `LEAST_AGREEMENT`


@dataclass(frozen=True)
class Agreement:
    """How far the images of a node lie where other nodes have images of the same classes.

    share: 1 where they lie at the same places, about 0 for random labels.
    chance: the standard deviation of `share`; infinite where nothing can be said.
    """

    share: float
    chance: float

    @property
    def highest(self) -> float:
        """The largest share that chance allows the node to have in truth."""
        return self.share + DEVIATIONS * self.chance


def find_dissenters(
    sums: Mapping[str, Floats],
    variance: float,
    noise: float = 0.0,
    before: Floats | None = None,
    noise_before: float = 0.0,
) -> dict[str, Agreement]:
    """The nodes to leave out because their sums contradict the others': name -> agreement.

    sums: name -> (num_classes, d+1), float32 or float64, in the form of `ridge.Gram.sums`.
    variance: of single images about the mean of their class, summed over the d numbers.
    noise: the variance of the noise in each number of a node's sums.
    before: sums of the same shape that are trusted, of nodes that came earlier; None where there
    are none. noise_before: the variance of the noise in each number of these.
    Without trusted sums, fewer than half of the nodes are left out: where half or more contradict
    the others, nobody can say who is right, and the result is empty.
    """
    left, gone = dict(sums), dict[str, Agreement]()
    if before is None and len(sums) < LEAST_NODES:
        return gone
    trusted = 0.0 if before is None else before.astype(np.float64)
    while left:
        total = trusted + sum(own.astype(np.float64) for own in left.values())
        of_others = noise * (len(left) - 1) + noise_before
        found = {
            name: agree(own, total - own, variance, (noise, of_others))
            for name, own in left.items()
        }
        worst = min(found, key=lambda name: (found[name].highest, name))
        if found[worst].highest >= LEAST_AGREEMENT:
            return gone
        gone[worst] = found[worst]
        del left[worst]
        if before is None and 2 * len(gone) >= len(sums):
            return {}
    return gone


def agree(
    own: Floats, others: Floats, variance: float, noise: tuple[float, float] = (0.0, 0.0)
) -> Agreement:
    """How far a node's sums agree with those of all other nodes.

    own, others: (num_classes, d+1), float32 or float64, in the form of `ridge.Gram.sums`.
    variance: of single images about the mean of their class, summed over the d numbers.
    noise: the variance of the noise in each number of `own` and in each of `others`.
    Each class mean is taken relative to the mean of the others' means of the other classes. Means
    of few images are longer than those of many, because images vary; that is subtracted.
    """
    n_own, n_others = own[:, -1].astype(np.float64), others[:, -1].astype(np.float64)
    known = n_others >= 1
    judged = known & (n_own >= 1)
    n_known = int(known.sum())
    if n_known < 2 or not judged.any():
        return Agreement(1.0, np.inf)
    middle = others[known, :-1].sum(axis=0) / n_others[known].sum()
    means, own_means = np.zeros((2, len(own), own.shape[1] - 1))
    means[known] = others[known, :-1] / n_others[known, None] - middle
    own_means[judged] = own[judged, :-1] / n_own[judged, None] - middle
    embed_dim = own.shape[1] - 1
    n_safe = np.maximum(n_others, 1)
    lost = np.where(known, variance / n_safe + embed_dim * noise[1] / n_safe**2, 0.0)
    lengths = np.sum(means**2, axis=1) - lost
    apart = (n_known * means - means.sum(axis=0)) / (n_known - 1)
    lengths_apart = (n_known * lengths - lengths.sum()) / (n_known - 1)
    margins = np.sum(own_means * apart, axis=1) - lengths_apart / 2
    # The margins that images at the same places as the others' would have.
    expected = np.sum(means * apart, axis=1) - lost - lengths_apart / 2
    total = float(n_own[judged] @ expected[judged])
    if total <= 0:
        return Agreement(1.0, np.inf)
    # Images vary more along some directions than along others, so that their mean may lie further
    # from the others' along `apart` than if they varied equally along all.
    along = variance / np.sqrt(embed_dim)
    shares = n_own[judged] / n_others[judged]
    spread = along * n_own[judged] * (1 + shares) + noise[0] + shares**2 * noise[1]
    chance = float(np.sqrt(spread @ np.sum(apart[judged] ** 2, axis=1)))
    return Agreement(float(n_own[judged] @ margins[judged]) / total, chance / total)


def inner_variance(sums: Floats) -> float:
    """The variance within classes, about their means, of embeddings of length 1, from their sums.

    sums: (num_classes, d+1), in the form of `ridge.Gram.sums`. The result is a sum over d numbers.
    """
    counts = np.maximum(sums[:, -1].astype(np.float64), 1)
    lengths = np.sum(sums[:, :-1].astype(np.float64) ** 2, axis=1) / counts
    return float(np.clip(1 - lengths.sum() / counts.sum(), 1e-6, 1))
