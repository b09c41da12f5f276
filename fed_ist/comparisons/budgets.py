"""What a byte budget buys: the best accuracy so far, its mean over seeds, and the best method.

A device that may send and receive a certain number of bytes gets the best model that was evaluated
within it. So a run is a step function of the budget: nan before its first evaluation, and after the
last one the best accuracy stays. All accuracies are in [0, 1]. In shapes, b is the number of
budgets and s that of seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fed_ist.comparisons.curves import Curve

Floats = NDArray[np.float64]
# Ranges of budgets: the first and the last budget of each, in bytes.
Ranges = tuple[tuple[float, float], ...]

# At how many budgets methods are compared: over four decades of bytes, one every 3.7%.
N_BUDGETS = 256
# Differences below this arise when the same accuracies are added in another order, and count as 0.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Average:
    """A method's best accuracy so far, averaged over its seeds, at each budget.

    mean, deviation: float64 (b,); nan where a seed has no evaluation yet. The deviation is the
    sample standard deviation, and nan throughout where there is one seed.
    """

    mean: Floats
    deviation: Floats
    n_seeds: int


@dataclass(frozen=True)
class Margin:
    """The difference of two methods' means at one budget, in bytes.

    deviation: the standard deviation of the difference; nan if unknown.
    """

    peer: str
    difference: float
    deviation: float
    budget: float


@dataclass(frozen=True)
class Lead:
    """Where a peer is above a method, and by how much.

    ranges: of budgets; the peer is above at both ends of each. largest: the peer's accuracy minus
    the method's where that is largest.
    """

    ranges: Ranges
    largest: Margin


def best_so_far(curve: Curve, budgets: Floats) -> Floats:
    """The best accuracy that a run showed within each budget; nan before its first evaluation.

    budgets: float64 (b,), in bytes. Returns float64 (b,).
    """
    steps = np.concatenate([[np.nan], np.maximum.accumulate(np.asarray(curve.accuracy, float))])
    return steps[np.searchsorted(curve.bytes, budgets, side="right")]


def average(runs: Sequence[Curve], budgets: Floats) -> Average:
    """Mean and deviation over the runs of one method, which differ in their seeds.

    budgets: float64 (b,), in bytes.
    """
    best = np.stack([best_so_far(run, budgets) for run in runs])
    mean, deviation = mean_and_spread(best)
    return Average(mean, deviation, len(runs))


def mean_and_spread(values: Floats) -> tuple[Floats, Floats]:
    """Mean and sample standard deviation over the first axis, which is that of seeds.

    values: float64 (s, ...). Returns two arrays, float64 (...); the deviation is nan for one seed.
    """
    mean = values.mean(axis=0)
    return mean, values.std(axis=0, ddof=1) if len(values) > 1 else np.full_like(mean, np.nan)


def show_accuracy(values: Floats) -> str:
    """The mean over seeds in percent, with the standard deviation if there are several.

    values: accuracies, float64 (s,).
    """
    mean, deviation = mean_and_spread(values)
    spread = f" ± {100 * deviation:.1f}" if len(values) > 1 else ""
    return f"{100 * mean:.1f}%{spread}"


def first_bytes(runs: Sequence[Curve]) -> int:
    """The number of bytes from which on each run of a method has an evaluation."""
    return max(run.bytes[0] for run in runs)


def budget_grid(methods: Mapping[str, Sequence[Curve]]) -> Floats:
    """The budgets at which the methods of a setting are compared.

    Returns float64 (b,), ascending, above 0, no two equal: log-spaced from the first bytes to the
    last, and also the bytes at which each method starts, so that no method seems to start later
    than it does.
    """
    points = [n for runs in methods.values() for run in runs for n in run.bytes if n > 0] or [1]
    spaced = np.geomspace(min(points), max(points), N_BUDGETS)
    starts = [n for runs in methods.values() if (n := first_bytes(runs)) > 0]
    return np.union1d(spaced, np.array(starts, float))


def best_of(runs: Sequence[Curve]) -> Floats:
    """The best accuracy of each run of a method: float64 (s,)."""
    return np.array([max(run.accuracy) for run in runs])


def bytes_to_reach(runs: Sequence[Curve], accuracy: float) -> int | None:
    """The smallest budget at which a method's mean is `accuracy` or more; None if it never is."""
    # Not on the grid, which would round it: the mean changes only where a run has a point.
    points = np.unique([n for run in runs for n in run.bytes])
    reached = average(runs, points.astype(float)).mean >= accuracy - ROUNDING
    return int(points[reached.argmax()]) if reached.any() else None


def envelope(averages: Mapping[str, Average]) -> tuple[list[str | None], Floats]:
    """The best method at each budget, and its mean.

    Returns names, None where no method has an evaluation yet, and float64 (b,), nan there. Of
    methods that are equal, the one that was best at the budget before is named; at the first
    budget, the first.
    """
    names = list(averages)
    means = np.stack([averages[name].mean for name in names])
    best = np.where(np.isnan(means), -1, means).argmax(axis=0)
    top = means[best, np.arange(means.shape[1])]
    named = [None if np.isnan(a) else names[i] for i, a in zip(best, top, strict=True)]
    for at in range(1, len(named)):
        before = named[at - 1]
        if before is not None and averages[before].mean[at] == top[at]:
            named[at] = before
    return named, top


def worst_margin(averages: Mapping[str, Average], method: str, budgets: Floats) -> Margin | None:
    """A method's smallest margin over the best of all others; below 0 where it is worse than that.

    budgets: float64 (b,), the setting's `budget_grid`, at whose end every method has an evaluation.
    Returns None where there is no other method.
    """
    others = {name: found for name, found in averages.items() if name != method}
    if not others:
        return None
    peers, top = envelope(others)
    at = int(np.nanargmin(averages[method].mean - top))
    peer = peers[at]
    assert peer is not None
    return _margin(averages[method], averages[peer], peer, at, budgets)


def lead(averages: Mapping[str, Average], peer: str, method: str, budgets: Floats) -> Lead | None:
    """Where a peer's mean is above the method's; None where it never is. budgets: float64 (b,)."""
    difference = averages[peer].mean - averages[method].mean
    above = difference > ROUNDING
    if not above.any():
        return None
    at = int(np.where(above, difference, 0).argmax())
    largest = _margin(averages[peer], averages[method], peer, at, budgets)
    return Lead(ranges_where(above, budgets), largest)


def ranges_where(holds: NDArray[np.bool_], budgets: Floats) -> Ranges:
    """The first and the last budget of each sequence of True.

    `[F, T, T, F, T]` gives `((b1, b2), (b4, b4))`.

    holds: bool (b,). budgets: float64 (b,).
    """
    edges = np.diff(np.concatenate([[False], holds, [False]]).astype(int))
    firsts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    return tuple(
        (float(budgets[a]), float(budgets[b - 1])) for a, b in zip(firsts, ends, strict=True)
    )


def _margin(a: Average, b: Average, peer: str, at: int, budgets: Floats) -> Margin:
    return Margin(
        peer=peer,
        difference=float(a.mean[at] - b.mean[at]),
        deviation=float(np.hypot(a.deviation[at], b.deviation[at])),
        budget=float(budgets[at]),
    )
