"""The paper's two findings on masks, checked against accuracies and their noise, in sentences.

The findings are those of Kariotakis et al. (CPAL 2024): a mask that is drawn once is no worse than
a mask that is drawn anew at each pass, and half of the image is enough.
"""

import math
from dataclasses import dataclass

from fed_ist.words import percent

# Half of the image suffices if it keeps this share of the accuracy of the whole image.
ENOUGH = 0.97
# A difference of up to this many standard errors is noise.
N_ERRORS = 2


@dataclass(frozen=True)
class Measured:
    """A test accuracy in [0, 1], or the mean of several.

    n_test: the number of test images. seed_variance: of the mean over seeds; 0 if unknown.
    """

    accuracy: float
    n_test: int
    seed_variance: float = 0.0

    @property
    def squared_error(self) -> float:
        """The squared standard error: the binomial one of the test images plus the seeds' own."""
        return self.accuracy * (1 - self.accuracy) / self.n_test + self.seed_variance


def difference_noise(a: Measured, b: Measured) -> float:
    """The size up to which a difference of two accuracies is noise."""
    return N_ERRORS * math.sqrt(a.squared_error + b.squared_error)


def fixed_against_random(fixed: Measured, random: Measured) -> str:
    """Two sentences on whether the fixed mask is no worse."""
    difference = fixed.accuracy - random.accuracy
    noise = difference_noise(fixed, random)
    if difference < -noise:
        verdict = "beyond the noise: fixed is worse, and the finding does not hold."
    elif difference > noise:
        verdict = "beyond the noise: fixed is better, and the finding holds."
    else:
        verdict = "within the noise: fixed is no worse, and the finding holds as far as this tells."
    return (
        f"fixed {100 * fixed.accuracy:.1f}%, random {100 * random.accuracy:.1f}%. The difference "
        f"is {100 * difference:+.1f} points, the noise {100 * noise:.1f}; it is {verdict}"
    )


def half_against_whole(half: Measured, whole: Measured) -> str:
    """Two sentences on how much of the accuracy half of the image keeps.

    The accuracy of `whole` is above 0.
    """
    kept = half.accuracy / whole.accuracy
    # The error of a quotient, to first order.
    noise = (
        N_ERRORS * math.sqrt(half.squared_error + kept**2 * whole.squared_error) / whole.accuracy
    )
    more = "at least" if kept >= ENOUGH else "less than"
    if abs(kept - ENOUGH) < noise:
        verdict = "but by less than the noise: whether half the image suffices, this cannot tell."
    else:
        suffices = "suffices" if kept >= ENOUGH else "does not suffice"
        verdict = f"beyond the noise: half the image {suffices}."
    return (
        f"{100 * half.accuracy:.1f}% with half of the image, {100 * whole.accuracy:.1f}% with the "
        f"whole. That keeps {100 * kept:.1f}% of the accuracy (noise {100 * noise:.1f}), {more} "
        f"{percent(ENOUGH)}, {verdict}"
    )
