"""Rests: nodes that did not answer are not asked for some rounds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

MOST_ROUNDS = 32


@dataclass
class Rests:
    """The nodes that rest: after k silences in a row, a node is not asked for 2^k rounds.

    A rest is `MOST_ROUNDS` long at most, and ends when the node is heard from.
    """

    _silences: dict[str, int] = field(default_factory=dict)
    _until: dict[str, int] = field(default_factory=dict)  # the last round of the rest

    def save(self) -> dict[str, list[int]]:
        """All rests as values for JSON: node -> [silences, last round of the rest]."""
        return {name: [n, self._until[name]] for name, n in self._silences.items()}

    def restore(self, saved: Mapping[str, Sequence[int]]) -> None:
        """Take over the rests that `save` gave."""
        self._silences = {name: n for name, (n, _) in saved.items()}
        self._until = {name: until for name, (_, until) in saved.items()}

    def note_silent(self, name: str, server_round: int) -> int:
        """Note that a node did not answer in a round; returns the next round that asks it."""
        self._silences[name] = n = self._silences.get(name, 0) + 1
        self._until[name] = server_round + min(MOST_ROUNDS, 2**n)
        return self._until[name] + 1

    def note_alive(self, name: str) -> None:
        """Note that a node has answered."""
        self._silences.pop(name, None)
        self._until.pop(name, None)

    def rests(self, name: str, server_round: int) -> bool:
        """Whether a node rests in this round, so that it is not asked."""
        return server_round <= self._until.get(name, -1)

    def was_silent(self, name: str) -> bool:
        """Whether a node has not been heard from since it was silent."""
        return name in self._silences
