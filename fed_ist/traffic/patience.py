"""How long the server waits for answers after enough have come.

A node that never answers must not delay every round, and one that is merely slow must not be left
out. So the server waits for each node 1.5 times as long as it usually takes. Beyond that, the time
lost with waiting in vain is kept within `LOSS_SHARE` of the time that the run takes otherwise.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from statistics import median

JITTER_S = 3.0  # the interval at which Flower's SuperNodes ask for messages
MARGIN = 1.5  # a node may take this many times its usual time
GRACE = 2.0  # time after the slowest answer, over the time of that answer
LEAST_GRACE = 0.25  # the same where no more time may be lost
GRACE_S = 10.0  # further time after the slowest answer
LOSS_SHARE = 0.3  # time that may be lost with waiting in vain, over the time of the run


@dataclass
class Patience:
    """The times that nodes took for each kind of question, and how long to wait for them.

    round_kind: the kind of question that each round asks.
    """

    round_kind: str
    _times: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    _late_s: dict[tuple[str, int], float] = field(default_factory=dict)  # until it is in time again
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
        """Seconds after a question of this kind at which to stop waiting for answers.

        answered: node -> seconds it took; there are enough of these nodes. waiting: the others.
        n_rounds_left: after this question. least_s: seconds that every node may take that answered
        last time.
        """
        last_s = max(answered.values(), default=0.0)
        slowest_s = last_s or self._usual_s(kind)
        round_s = slowest_s if kind == self.round_kind else self._usual_s(self.round_kind)
        alone_s = self._spent_s + last_s + n_rounds_left * round_s  # what the run takes anyway
        may_lose_s = max(0.0, LOSS_SHARE * alone_s - self._lost_s)
        grace_s = max(
            JITTER_S + LEAST_GRACE * slowest_s, min(GRACE_S + GRACE * slowest_s, may_lose_s)
        )
        # Where only silent nodes are missing, the usual time of others does not count.
        until_s = (slowest_s if set(waiting) - self._silent else last_s) + grace_s
        for node in waiting:
            if node not in self._silent:
                usual_s = MARGIN * median(self._times.get((kind, node), [0.0])) + JITTER_S
                # Within may_lose_s: a node that was late once may never answer again.
                late_s = MARGIN * self._late_s.get((kind, node), 0.0) + JITTER_S
                until_s = max(until_s, usual_s, min(late_s, last_s + may_lose_s), least_s)
        return until_s

    def note(self, kind: str, answered: Mapping[int, float], lost_s: float) -> None:
        """Note the answers to a question.

        answered: node -> seconds it took. lost_s: seconds of waiting in vain after the last answer.
        """
        for node, seconds in answered.items():
            self._times.setdefault((kind, node), []).append(seconds)
            self._late_s.pop((kind, node), None)
            self._silent.discard(node)
        self._spent_s += max(answered.values(), default=0.0)
        self._lost_s += lost_s

    def note_silent(self, node: int) -> None:
        """Note that a node did not answer; until it does, its usual time does not count."""
        self._silent.add(node)

    def note_late(self, kind: str, node: int, seconds: float) -> None:
        """Note an answer that came after the waiting had ended, and how long it took at most."""
        self._late_s[kind, node] = seconds
        self._silent.discard(node)

    def _usual_s(self, kind: str) -> float:
        """The seconds that nodes usually take for a question of this kind; 0 if unknown."""
        times = [median(times) for (other, _), times in self._times.items() if other == kind]
        return median(times) if times else 0.0
