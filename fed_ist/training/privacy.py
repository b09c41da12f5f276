"""The Gaussian mechanism: how much noise buys which privacy, in a round and over all of them.

A node clips what it has learnt, the difference of its slice, to a length of `clip_norm`, and adds
N(0, sigma²) to every number. Whatever its images, two such differences are no more than twice that
length apart, so with the right sigma a round is (epsilon, delta) private for all of a node's images
together, towards everybody, the server included (local differential privacy).

The sigma is that of the analytic Gaussian mechanism (Balle and Wang, "Improving the Gaussian
Mechanism for Differential Privacy", ICML 2018, theorem 8). The usual sqrt(2 ln(1.25 / delta)) /
epsilon holds for epsilon below 1 only: beyond it promises more than it keeps. Rounds compose
exactly: T of them are one Gaussian mechanism with a sigma sqrt(T) times smaller (Dong, Roth and Su,
"Gaussian Differential Privacy", JRSS B 2022).
"""

import math
from functools import lru_cache

STEPS = 200  # of bisection, more than float64 can tell apart


@lru_cache(maxsize=8)  # asked for with each reply of a run
def noise_deviation(clip_norm: float, epsilon: float, delta: float) -> float:
    """The least sigma for (epsilon, delta) privacy; 0 for a `clip_norm` of 0, which asks for none.

    epsilon > 0, 0 < delta < 1.
    """
    return 2 * clip_norm / _largest_ratio(epsilon, delta)


def epsilon_after(rounds: int, epsilon: float, delta: float) -> float:
    """What `rounds` rounds of (epsilon, delta) are together, at the same delta."""
    ratio = math.sqrt(rounds) * _largest_ratio(epsilon, delta)
    low, high = 0.0, ratio**2 / 2 + ratio * math.sqrt(2 * math.log(1 / delta))
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if _delta(middle, ratio) > delta else (low, middle)
    return high


def _largest_ratio(epsilon: float, delta: float) -> float:
    """The distance of two outcomes, in deviations of the noise, up to which it hides them."""
    low, high = 1e-12, 1e12
    for _ in range(STEPS):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if _delta(epsilon, middle) > delta else (middle, high)
    return low


def _delta(epsilon: float, ratio: float) -> float:
    """Phi(ratio / 2 - epsilon / ratio) - e^epsilon Phi(-ratio / 2 - epsilon / ratio), which is the
    least delta; written so that no e^epsilon overflows.
    """
    inner, outer = epsilon / ratio - ratio / 2, epsilon / ratio + ratio / 2
    root = math.sqrt(2)
    return (math.erfc(inner / root) - math.exp(-(inner**2) / 2) * _erfcx(outer / root)) / 2


def _erfcx(x: float) -> float:
    """e^(x²) erfc(x), x >= 0; from 20 on by its asymptotic series."""
    if x < 20:
        return math.exp(x * x) * math.erfc(x)
    return (1 - 1 / (2 * x * x) + 3 / (4 * x**4)) / (x * math.sqrt(math.pi))
