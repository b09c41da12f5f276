"""Which nodes are not asked for some rounds, since they did not answer when they were asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

MOST_ROUNDS = 32


@dataclass
class Rests:
    """After k silences on end a node is left out for 2^k rounds, though `MOST_ROUNDS` at most, or
    until it is heard of.
    """

    _silences: dict[str, int] = field(default_factory=dict)
    _until: dict[str, int] = field(default_factory=dict)  # the last round of the rest

    def save(self) -> dict[str, list[int]]:
        """The rests as plain values."""
        return {name: [n, self._until[name]] for name, n in self._silences.items()}

    def restore(self, saved: Mapping[str, Sequence[int]]) -> None:
        """Go on from what `save` gave."""
        self._silences = {name: n for name, (n, _) in saved.items()}
        self._until = {name: until for name, (_, until) in saved.items()}

    def note_silent(self, name: str, server_round: int) -> int:
        """Note that a node did not answer in a round; returns the next in which it is asked."""
        self._silences[name] = n = self._silences.get(name, 0) + 1
        self._until[name] = server_round + min(MOST_ROUNDS, 2**n)
        return self._until[name] + 1

    def note_alive(self, name: str) -> None:
        """Note that a node has answered."""
        self._silences.pop(name, None)
        self._until.pop(name, None)

    def rests(self, name: str, server_round: int) -> bool:
        """Whether a node is not asked in this round."""
        return server_round <= self._until.get(name, -1)

    def was_silent(self, name: str) -> bool:
        """Whether a node has not been heard of since it was silent."""
        return name in self._silences
