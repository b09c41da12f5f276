"""How long answers are waited for: until enough are there, and a grace time has passed.

A node that never answers must not set the pace, and one that is merely slow must not be left out.
So each node is waited for as long as it usually takes, and half as long again. Beyond that, what
is lost by waiting for nodes that do not answer is kept within `LOSS_SHARE` of the time that a run
takes by itself.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from statistics import median

JITTER_S = 3.0  # Flower's SuperNodes look for messages that often
MARGIN = 1.5  # how many times its usual time a node may take
GRACE = 2.0  # times as long as the slowest so far, for who is slower than that
LEAST_GRACE = 0.25  # the same where no more may be lost
GRACE_S = 10.0
LOSS_SHARE = 0.3


@dataclass
class Patience:
    """What is known of the time that nodes take, by what they are asked and by their ids.

    round_kind: the kind of question that each round asks.
    """

    round_kind: str
    _times: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    _late_s: dict[tuple[str, int], float] = field(default_factory=dict)  # since the last in time
    _silent: set[int] = field(default_factory=set)
    _spent_s: float = 0.0
    _lost_s: float = 0.0

    def until_s(
        self,
        kind: str,
        answered: Mapping[int, float],
        waiting: Collection[int],
        n_rounds_left: int = 0,
        least_s: float = 0.0,
    ) -> float:
        """Seconds after a question of this kind at which no more answers are waited for.

        answered: seconds that nodes took so far, which are enough of them. waiting: the others.
        n_rounds_left: after this question. least_s: that every node may take which was not silent.
        """
        last_s = max(answered.values(), default=0.0)
        slowest_s = last_s or self._usual_s(kind)
        round_s = slowest_s if kind == self.round_kind else self._usual_s(self.round_kind)
        alone_s = self._spent_s + last_s + n_rounds_left * round_s  # which the run takes anyway
        may_lose_s = max(0.0, LOSS_SHARE * alone_s - self._lost_s)
        grace_s = max(
            JITTER_S + LEAST_GRACE * slowest_s, min(GRACE_S + GRACE * slowest_s, may_lose_s)
        )
        # Where nobody else was asked, who was silent is not waited for as if others were at work.
        until_s = (slowest_s if set(waiting) - self._silent else last_s) + grace_s
        for node in waiting:
            if node not in self._silent:
                usual_s = MARGIN * median(self._times.get((kind, node), [0.0])) + JITTER_S
                # One that is late once could be waited for in vain again and again.
                late_s = MARGIN * self._late_s.get((kind, node), 0.0) + JITTER_S
                until_s = max(until_s, usual_s, min(late_s, last_s + may_lose_s), least_s)
        return until_s

    def note(self, kind: str, answered: Mapping[int, float], lost_s: float) -> None:
        """Note the seconds in which nodes answered a question, and how long it was waited in vain
        after the last of them.
        """
        for node, seconds in answered.items():
            self._times.setdefault((kind, node), []).append(seconds)
            self._late_s.pop((kind, node), None)
            self._silent.discard(node)
        self._spent_s += max(answered.values(), default=0.0)
        self._lost_s += lost_s

    def note_silent(self, node: int) -> None:
        """Note that a node did not answer: until it does, its usual time does not count."""
        self._silent.add(node)

    def note_late(self, kind: str, node: int, seconds: float) -> None:
        """Note an answer that came when no more was waited for it: how long it took at most."""
        self._late_s[kind, node] = seconds
        self._silent.discard(node)

    def _usual_s(self, kind: str) -> float:
        """What a question of this kind usually takes."""
        times = [median(times) for (other, _), times in self._times.items() if other == kind]
        return median(times) if times else 0.0
