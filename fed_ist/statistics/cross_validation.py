"""How well a linear head predicts examples that it has not seen, by the sums over those it has.

Generalised cross-validation is leave-one-out's error with each example's leverage replaced by their
mean, so that it follows from the sums alone: squared error / (1 - degrees of freedom / n)². It
needs no held-out examples, hence no second set of statistics. Source: Golub, Heath and Wahba,
"Generalized Cross-Validation as a Method for Choosing a Good Ridge Parameter", Technometrics 1979.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fed_ist.statistics.ridge import Centred, Gram, centre, penalty_of

# Of the mean eigenvalue of the features' scatter.
STRENGTHS = tuple(float(s) for s in np.logspace(-5, 3, 33))
MOST_FREEDOM = 0.7  # of the number of examples, what a fit may use up
DEVIATIONS = 3  # by which a head is to be better than labels dealt at random make it
# Whitened inputs train faster too, so that they are left out only if they lose more than this, and
# only where so few examples a dimension leave training free to fit what is noise.
LEAST_SHARE, FEW = 0.99, 10


@dataclass(frozen=True)
class Validated:
    """What cross-validation says of a ridge of the best strength.

    error: over that of the class shares, which are what is known without any feature.
    chance: the deviation of `error` where labels have nothing to do with the features, or noise
    hides what they have.
    """

    strength: float
    error: float
    chance: float

    @property
    def gain(self) -> float:
        """The share of the class shares' error that it takes off; negative for a loss."""
        return 1 - self.error

    def __str__(self) -> str:
        if not np.isfinite(self.error):
            return "nothing off the error of the class shares, of so few examples"
        return f"{100 * self.gain:.1f}% off the error of the class shares"

    @property
    def predicts(self) -> bool:
        """Whether it is better than chance makes it."""
        return self.gain > DEVIATIONS * self.chance


def choose_strength(stats: Gram, strengths: Sequence[float] = STRENGTHS) -> float:
    """The strength with the least generalised cross-validation error; the first of equals."""
    return validate(centre(stats), strengths).strength


def validate(
    centred: Centred, strengths: Sequence[float] = STRENGTHS, whitened: bool = False
) -> Validated:
    """The best of these strengths. whitened: on inputs as `ridge.half_whitening` makes them.

    Strengths that leave few degrees of freedom over are not chosen, as the error says nothing of
    these; where there are no others it is the largest, and its error infinite.
    """
    found = [_validate_one(centred, strength, whitened) for strength in strengths]
    best = min(found, key=lambda each: each.error)
    return best if np.isfinite(best.error) else max(found, key=lambda each: each.strength)


def whitening_pays(centred: Centred) -> tuple[Validated, Validated, bool]:
    """(a ridge on the embeddings, the same on half-whitened ones, whether the latter are to be
    used). Where only noise varies little, they make it as loud as the rest.
    """
    plain, whitened = validate(centred), validate(centred, whitened=True)
    if centred.n >= FEW * len(centred.values):
        return plain, whitened, True
    return plain, whitened, whitened.gain > 0 and whitened.gain >= LEAST_SHARE * plain.gain


def _validate_one(centred: Centred, strength: float, whitened: bool) -> Validated:
    n, values = centred.n, centred.values
    penalties = penalty_of(centred, strength) * np.ones(len(values))
    if whitened:  # to divide inputs is to multiply the penalty on their weights
        roots = np.sqrt(centred.expected)
        penalties = np.maximum(penalties * roots / roots.mean(), centred.lost)
    kept = values / (values + penalties)
    freedom = float(1 + kept.sum())
    all_missed, n_classes = _error_of_shares(centred)
    if freedom >= MOST_FREEDOM * n or all_missed <= 0:
        # With as many degrees of freedom as examples everything is fitted and nothing is learnt.
        return Validated(strength, np.inf, np.inf)
    # What noise adds to squared targets is no sign of a class, and how far it may go is chance.
    squares = np.sum(centred.targets**2, axis=0) - len(centred.targets) * centred.noise
    weights = (1 + penalties / (values + penalties)) / (values + penalties)
    by_noise = centred.noise * np.sqrt(2 * len(centred.targets) * np.sum(weights**2)) / all_missed
    chance = np.hypot(np.sqrt(2 * freedom / max(1, n_classes - 1)) / n, by_noise)
    error = max(1 - float(squares @ weights) / all_missed, 0.0) * ((n - 1) / (n - freedom)) ** 2
    return Validated(strength, error, float(chance))


def _error_of_shares(centred: Centred) -> tuple[float, int]:
    """(the squared error of the class shares, the number of classes with examples)."""
    shares: NDArray[np.float64] = centred.shares.clip(0, 1)
    return float(centred.n * np.sum(shares * (1 - shares))), int(np.sum(centred.n * shares >= 0.5))
