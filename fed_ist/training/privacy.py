"""The Gaussian mechanism: the noise that a privacy guarantee takes, in one round and in several.

A node clips what it has learnt, the change of its slice, to a length of `clip_norm`, and adds
N(0, sigma²) to every number. Whatever its images are, two such changes differ by twice that length
at most. So with the right sigma, a round is (epsilon, delta) private for all of a node's images
together, towards everybody including the server (local differential privacy).

Sigma is that of the analytic Gaussian mechanism (Balle and Wang, "Improving the Gaussian Mechanism
for Differential Privacy", ICML 2018, theorem 8). The usual sqrt(2 ln(1.25 / delta)) / epsilon holds
only for epsilon below 1, and is too small above. Rounds compose exactly: T of them are one Gaussian
mechanism with a sigma sqrt(T) times smaller (Dong, Roth and Su, "Gaussian Differential Privacy",
JRSS B 2022).
"""

import math
from functools import lru_cache

STEPS = 200  # of bisection: more than the precision of float64 can use


@lru_cache(maxsize=8)  # asked for with each reply of a run
def noise_deviation(clip_norm: float, epsilon: float, delta: float) -> float:
    """The smallest sigma that gives (epsilon, delta) privacy; 0 where `clip_norm` is 0.

    epsilon must be above 0, and delta between 0 and 1.
    """
    return 2 * clip_norm / _largest_ratio(epsilon, delta)


def epsilon_after(rounds: int, epsilon: float, delta: float) -> float:
    """The epsilon of `rounds` rounds together, each of which is (epsilon, delta) private.

    Their delta is the same as that of one round.
    """
    ratio = math.sqrt(rounds) * _largest_ratio(epsilon, delta)
    low, high = 0.0, ratio**2 / 2 + ratio * math.sqrt(2 * math.log(1 / delta))
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if _delta(middle, ratio) > delta else (low, middle)
    return high


def _largest_ratio(epsilon: float, delta: float) -> float:
    """The largest distance of two outcomes, in deviations of the noise, that the noise hides."""
    low, high = 1e-12, 1e12
    for _ in range(STEPS):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if _delta(epsilon, middle) > delta else (middle, high)
    return low


def _delta(epsilon: float, ratio: float) -> float:
    """The smallest delta for outcomes that are `ratio` deviations of the noise apart.

    It is Phi(ratio / 2 - epsilon / ratio) - e^epsilon Phi(-ratio / 2 - epsilon / ratio), computed
    so that e^epsilon cannot overflow.
    """
    inner, outer = epsilon / ratio - ratio / 2, epsilon / ratio + ratio / 2
    root = math.sqrt(2)
    return (math.erfc(inner / root) - math.exp(-(inner**2) / 2) * _erfcx(outer / root)) / 2


def _erfcx(x: float) -> float:
    """e^(x²) erfc(x) for x >= 0; from 20 on by its asymptotic series."""
    if x < 20:
        return math.exp(x * x) * math.erfc(x)
    return (1 - 1 / (2 * x * x) + 3 / (4 * x**4)) / (x * math.sqrt(math.pi))
