"""Rounds at fixed times, so that devices know by their clocks when to be there.

With `round-every-s = 3600` rounds begin at each full hour: at multiples since 1970, UTC. So a run
that goes on after a cut keeps its beat, and so does a device that was told once.
"""


def until_beat_s(now_s: float, every_s: float) -> float:
    """Seconds from a time (since 1970) until the next multiple of `every_s`; 0 at a multiple."""
    return -now_s % every_s
