"""Whether a node's class sums go against those of all other nodes: one with wrong labels does.

What the others' class means say of the node's own: is its mean of class c on the side of the
others' class c, seen from their other classes? This asks nothing of classes that only this node
has, so nodes may have classes as unlike as they come.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fed_ist.classifier.dissent import LEAST_NODES
from fed_ist.statistics.ridge import Floats

LEAST_AGREEMENT = 0.5  # 1 is what others have, 0 is chance
DEVIATIONS = 3.0  # of chance, by which a node must fall below


@dataclass(frozen=True)
class Agreement:
    """How far the images of a node lie where the others have those of the same classes.

    share: 1 if they lie just there, 0 for labels dealt at random. chance: its standard deviation,
    infinite where nothing can be said.
    """

    share: float
    chance: float

    @property
    def highest(self) -> float:
        """What it may be in truth."""
        return self.share + DEVIATIONS * self.chance


def find_dissenters(
    sums: Mapping[str, Floats],
    variance: float,
    noise: float = 0.0,
    before: Floats | None = None,
    noise_before: float = 0.0,
) -> dict[str, Agreement]:
    """The nodes whose sums are better left out, by name, fewer than half of them.

    sums: of each node (num_classes, d+1), as of `statistics.Gram.sums`. variance: of single images
    about their class's mean, summed over the d numbers. noise: the variance that was added to each
    number of a node's sums. before, noise_before: sums that are trusted already, of nodes that came
    earlier, and the variance that was added to each of their numbers.
    Where half of the nodes or more would have to go, nobody can say who is right, and none goes.
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
    """How far a node's sums agree with those of all others; see `find_dissenters`.

    noise: the variance that was added to each number, of the node's and of the others'.
    A class mean counts as its difference from the mean of the others' other class means; means of
    few images are longer than those of many, by what images vary, and that is taken off.
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
    # The same of images that lie where the others' do.
    expected = np.sum(means * apart, axis=1) - lost - lengths_apart / 2
    total = float(n_own[judged] @ expected[judged])
    if total <= 0:
        return Agreement(1.0, np.inf)
    # Images vary along some directions more than along others, so that their mean may lie further
    # from the others' along `apart` than if all were alike.
    along = variance / np.sqrt(embed_dim)
    shares = n_own[judged] / n_others[judged]
    spread = along * n_own[judged] * (1 + shares) + noise[0] + shares**2 * noise[1]
    chance = float(np.sqrt(spread @ np.sum(apart[judged] ** 2, axis=1)))
    return Agreement(float(n_own[judged] @ margins[judged]) / total, chance / total)


def variance_of_unit(sums: Floats) -> float:
    """Of embeddings of length 1 about the means of their classes, by their sums."""
    counts = np.maximum(sums[:, -1].astype(np.float64), 1)
    lengths = np.sum(sums[:, :-1].astype(np.float64) ** 2, axis=1) / counts
    return float(np.clip(1 - lengths.sum() / counts.sum(), 1e-6, 1))
