"""What each node may still receive and send: limits of a round and of the run, in message bytes."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

NO_LIMIT = 0


@dataclass
class Allowance:
    """Sums up a node's transfers, both ways, beside the ledger that lists them.

    per_round, per_run: bytes of messages of one node; 0 for no limit.
    """

    per_round: int = NO_LIMIT
    per_run: int = NO_LIMIT
    _in_run: Counter[str] = field(default_factory=Counter)
    _in_round: Counter[str] = field(default_factory=Counter)
    _round: int = -1  # that of `_in_round`: earlier ones would only fill the memory

    def enter(self, server_round: int, node: str, n_bytes: int) -> None:
        """Note a message to or from the node."""
        self._in_run[node] += n_bytes
        if server_round != self._round:
            self._round, self._in_round = server_round, Counter()
        self._in_round[node] += n_bytes

    def resume(self, in_run: Mapping[str, int]) -> None:
        """Begin with these bytes of an earlier part of the run."""
        self._in_run = Counter(in_run)

    def left_in_round(self, server_round: int, node: str) -> float:
        """Bytes that this round leaves to the node; infinite without a limit."""
        if self.per_round == NO_LIMIT:
            return float("inf")
        spent = self._in_round[node] if server_round == self._round else 0
        return self.per_round - spent

    def left_in_run(self, node: str) -> float:
        """Bytes that the run leaves to the node; infinite without a limit."""
        return float("inf") if self.per_run == NO_LIMIT else self.per_run - self._in_run[node]

    def left(self, server_round: int, node: str) -> float:
        return min(self.left_in_round(server_round, node), self.left_in_run(node))

    def explain(self, n_bytes: float, what: str) -> str:
        """Why nothing is possible where what one node needs is more than a limit allows."""
        limits = {"max-bytes-per-node-round": self.per_round, "max-bytes-per-node": self.per_run}
        key, limit = min(
            ((key, limit) for key, limit in limits.items() if limit != NO_LIMIT),
            key=lambda pair: pair[1],
        )
        return (
            f"{key} = {limit} is less than the {n_bytes:.0f} bytes that {what} may take: raise it"
        )
