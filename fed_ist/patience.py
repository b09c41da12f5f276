"""How long answers are waited for: until enough are there, and a grace time has passed.

A node that never answers must not set the pace, and one that is merely slow must not be left out.
So each node is waited for as long as it usually takes, and half as long again. Beyond that, what
may be lost by waiting for nodes that do not answer is `LOSS_SHARE` of the time in which others did.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from statistics import median

JITTER_S = 3.0  # Flower's SuperNodes look for messages that often
MARGIN = 1.5  # how many times its usual time a node may take
GRACE = 2.0  # times as long as the slowest so far, for nodes whose usual time is not known
LEAST_GRACE = 0.25  # the same where nothing more may be lost
GRACE_S = 10.0
LOSS_SHARE = 0.4


@dataclass
class Patience:
    """What is known of the time that nodes take, by their names and by what they are asked."""

    _times: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    _late_s: dict[tuple[str, str], float] = field(default_factory=dict)  # since the last in time
    _silent: set[str] = field(default_factory=set)
    _spent_s: float = 0.0
    _lost_s: float = 0.0

    def until_s(
        self,
        kind: str,
        answered: Mapping[str, float],
        waiting: Collection[str],
        least_s: float = 0.0,
    ) -> float:
        """Seconds after a question of this kind at which no more answers are waited for.

        answered: seconds that nodes took so far, which are enough of them. waiting: the others.
        least_s: that every node may take which was not silent.
        """
        last_s = max(answered.values(), default=0.0)
        slowest_s = max(last_s, self._usual_s(kind)) if not answered else last_s
        may_lose_s = LOSS_SHARE * (self._spent_s + last_s) - self._lost_s
        grace_s = max(
            JITTER_S + LEAST_GRACE * slowest_s, min(GRACE_S + GRACE * slowest_s, may_lose_s)
        )
        until_s = last_s + grace_s
        for name in waiting:
            if name in self._silent:
                continue
            usual_s, late_s = median(self._times.get((kind, name), [0.0])), 0.0
            if may_lose_s >= 0:  # lest one that is late once is waited for in vain again and again
                late_s = self._late_s.get((kind, name), 0.0)
            own_s = max(usual_s, late_s)
            until_s = max(until_s, MARGIN * own_s + JITTER_S if own_s else 0.0, least_s)
        return until_s

    def note(self, kind: str, answered: Mapping[str, float], lost_s: float) -> None:
        """Note the seconds in which nodes answered a question, and how long it was waited in vain
        after the last of them.
        """
        for name, seconds in answered.items():
            self._times.setdefault((kind, name), []).append(seconds)
            self._late_s.pop((kind, name), None)
            self._silent.discard(name)
        self._spent_s += max(answered.values(), default=0.0)
        self._lost_s += lost_s

    def note_silent(self, name: str) -> None:
        """Note that a node did not answer: until it does, its usual time does not count."""
        self._silent.add(name)

    def note_late(self, kind: str, name: str, seconds: float) -> None:
        """Note an answer that came when no more was waited for it: how long it took at most."""
        self._late_s[kind, name] = seconds
        self._silent.discard(name)

    def _usual_s(self, kind: str) -> float:
        """What a question of this kind usually takes."""
        times = [median(times) for (other, _), times in self._times.items() if other == kind]
        return median(times) if times else 0.0
