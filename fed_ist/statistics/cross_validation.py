"""How well a linear head predicts examples that it has not seen, told from sums over those it has.

Generalised cross-validation is the leave-one-out error with the leverage of each example replaced
by the mean leverage, so that it follows from the sums alone: squared error / (1 - degrees of
freedom / n)². It needs no held-out examples, hence no second set of statistics. Source: Golub,
Heath and Wahba, "Generalized Cross-Validation as a Method for Choosing a Good Ridge Parameter",
Technometrics 1979.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fed_ist.statistics.ridge import Centred, Gram, centre, penalty_of

# Penalties to try, in multiples of the mean eigenvalue of the features' scatter.
STRENGTHS = tuple(float(s) for s in np.logspace(-5, 3, 33))
MOST_FREEDOM = 0.7  # degrees of freedom of a fit, at most, over the number of examples
DEVIATIONS = 3  # by which a head must be better than one for random labels
# Whitened inputs also train faster. So they are used unless there are fewer than FEW examples for
# each dimension, where training would fit noise, and their gain is below LEAST_SHARE of the other.
LEAST_SHARE, FEW = 0.99, 10


@dataclass(frozen=True)
class Validated:
    """What cross-validation says of a ridge regression of one strength.

    error: its squared error over that of predicting each class with its share of the examples,
    which needs no features.
    chance: the standard deviation that `error` would have if the labels had nothing to do with the
    features, or if noise hid it.
    """

    strength: float
    error: float
    chance: float

    @property
    def gain(self) -> float:
        """The share of the error that the features take off; negative where they add to it."""
        return 1 - self.error

    def __str__(self) -> str:
        if not np.isfinite(self.error):
            return "nothing off the error of the class shares, of so few examples"
        return f"{100 * self.gain:.1f}% off the error of the class shares"

    @property
    def predicts(self) -> bool:
        """Whether it is better than chance explains."""
        return self.gain > DEVIATIONS * self.chance


def choose_strength(stats: Gram, strengths: Sequence[float] = STRENGTHS) -> float:
    """The strength with the least generalised cross-validation error; of equals, the first."""
    return validate(centre(stats), strengths).strength


def validate(
    centred: Centred, strengths: Sequence[float] = STRENGTHS, whitened: bool = False
) -> Validated:
    """The result for the best of these strengths.

    whitened: whether the regression is on inputs as `ridge.half_whitening` makes them.
    Strengths whose fit takes more than `MOST_FREEDOM` are not chosen, as their error says nothing.
    If all are like that, the result is for the largest strength, with an infinite error.
    """
    found = [_validate_one(centred, strength, whitened) for strength in strengths]
    best = min(found, key=lambda each: each.error)
    return best if np.isfinite(best.error) else max(found, key=lambda each: each.strength)


def whitening_pays(centred: Centred) -> tuple[Validated, Validated, bool]:
    """(results for the embeddings, results for half-whitened ones, whether to use the latter).

    Half-whitening does harm where the directions in which embeddings vary little are mostly noise.
    """
    plain, whitened = validate(centred), validate(centred, whitened=True)
    if centred.n >= FEW * len(centred.values):
        return plain, whitened, True
    return plain, whitened, whitened.gain > 0 and whitened.gain >= LEAST_SHARE * plain.gain


def _validate_one(centred: Centred, strength: float, whitened: bool) -> Validated:
    n, values = centred.n, centred.values
    penalties = penalty_of(centred, strength) * np.ones(len(values))
    if whitened:  # dividing inputs has the effect of multiplying the penalty on their weights
        roots = np.sqrt(centred.expected)
        penalties = np.maximum(penalties * roots / roots.mean(), centred.lost)
    kept = values / (values + penalties)
    freedom = float(1 + kept.sum())
    all_missed, n_classes = _error_of_shares(centred)
    if freedom >= MOST_FREEDOM * n or all_missed <= 0:
        # A fit with a degree of freedom for each example fits anything and predicts nothing.
        return Validated(strength, np.inf, np.inf)
    # Noise adds to the squared targets. Its mean is subtracted, its deviation counts as chance.
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
