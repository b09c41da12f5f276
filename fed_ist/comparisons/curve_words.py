"""Sentences on curves: which method is best at each budget, and whether a peer is above a method.

Differences are those of the means, and each sentence also names the spread.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from fed_ist.comparisons.budgets import (
    Average,
    Floats,
    Margin,
    Ranges,
    average,
    budget_grid,
    envelope,
    lead,
    ranges_where,
    worst_margin,
)
from fed_ist.comparisons.curves import Curve
from fed_ist.words import many, readable_bytes

# If there are more ranges than this, their number is told instead.
N_LISTED = 3


def round_length(settings: Mapping[str, object]) -> str:
    """How long a client trains in a round, in words, from the run-config keys."""
    steps = settings["local-steps"]
    return many(steps, "step") if steps else many(settings["local-epochs"], "local epoch")


def describe_curves(methods: Mapping[str, Sequence[Curve]], chosen: str) -> list[str]:
    """Sentences on the runs of one setting, and on how `chosen` compares with the other methods."""
    budgets = budget_grid(methods)
    averages = {method: average(runs, budgets) for method, runs in methods.items()}
    best = _who_is_best(averages, budgets)
    if chosen not in methods:
        return [best, f"{chosen} was not run here."]
    worst = worst_margin(averages, chosen, budgets)
    if worst is None:
        return [best, f"No peer of {chosen} was run here."]
    return [
        best,
        *_before_start(averages, chosen, budgets),
        *_peers_above(averages, chosen, budgets),
        *_at_its_end(methods, chosen),
        f"The worst margin of {chosen} over the best of all others is "
        f"{100 * worst.difference:+.2f} points, against {worst.peer} at "
        f"{readable_bytes(worst.budget)}, {_noise(worst)}.",
    ]


def _who_is_best(averages: Mapping[str, Average], budgets: Floats) -> str:
    named, _ = envelope(averages)
    clauses = []
    for method in dict.fromkeys(name for name in named if name is not None):
        ranges = ranges_where(np.array([name == method for name in named]), budgets)
        clauses.append(f"{method} {_ranges(ranges, budgets)}")
    return f"The best method is {'; '.join(clauses)}."


def _before_start(averages: Mapping[str, Average], chosen: str, budgets: Floats) -> list[str]:
    """A sentence where others have a result for fewer bytes than `chosen` needs for its first."""
    named, top = envelope(averages)
    at = int(np.isnan(averages[chosen].mean).sum()) - 1  # nan before its first result only
    if at < 0 or named[at] is None:
        return []
    return [
        f"Below {readable_bytes(budgets[at + 1])} {chosen} has no result yet; the best there is "
        f"{named[at]} with {100 * top[at]:.1f}%."
    ]


def _peers_above(averages: Mapping[str, Average], chosen: str, budgets: Floats) -> list[str]:
    leads = [lead(averages, peer, chosen, budgets) for peer in averages if peer != chosen]
    found = sorted((one for one in leads if one), key=lambda one: -one.largest.difference)
    if not found:
        waits = np.isnan(averages[chosen].mean).any()
        return [f"No peer is above {chosen} at any budget{' from there on' if waits else ''}."]
    return [
        f"{one.largest.peer} is above {chosen} {_ranges(one.ranges, budgets)}, most at "
        f"{readable_bytes(one.largest.budget)}: by {100 * one.largest.difference:.2f} points, "
        f"{_noise(one.largest)}."
        for one in found
    ]


def _at_its_end(methods: Mapping[str, Sequence[Curve]], chosen: str) -> list[str]:
    """A sentence that compares `chosen`, at all its bytes, with the best of the others there."""
    end = np.array([max(run.bytes[-1] for run in methods[chosen])], dtype=np.float64)
    averages = {method: average(runs, end) for method, runs in methods.items()}
    own = averages.pop(chosen)
    (name,), (top,) = envelope(averages)
    if name is None:
        return []
    margin = 100 * float(own.mean[0] - top)
    return [
        f"Within its {readable_bytes(float(end[0]))} {chosen} reaches {100 * own.mean[0]:.1f}%, "
        f"{abs(margin):.2f} points {'above' if margin >= 0 else 'below'} what the best of all "
        f"others reaches within as many, {name} ({100 * top:.1f}%)."
    ]


def _ranges(ranges: Ranges, budgets: Floats) -> str:
    if len(ranges) > N_LISTED:
        first, last = readable_bytes(ranges[0][0]), readable_bytes(ranges[-1][1])
        return f"in {len(ranges)} ranges between {first} and {last}"
    return " and ".join(_range(*ends, budgets) for ends in ranges)


def _range(first: float, last: float, budgets: Floats) -> str:
    if last == budgets[-1]:
        start = readable_bytes(first)
        return "at every budget" if first == budgets[0] else f"from {start} on"
    if readable_bytes(first) == readable_bytes(last):
        return f"at {readable_bytes(first)}"
    return f"between {readable_bytes(first)} and {readable_bytes(last)}"


def _noise(margin: Margin) -> str:
    if math.isnan(margin.deviation):
        return "with a spread that one seed cannot show"
    within = abs(margin.difference) <= margin.deviation
    return (
        f"{'within' if within else 'more than'} one standard deviation "
        f"({100 * margin.deviation:.2f} points)"
    )
