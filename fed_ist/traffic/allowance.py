"""How many bytes each node may still receive and send, in a round and in the whole run."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

NO_LIMIT = 0


@dataclass
class Allowance:
    """Sums up the message bytes of each node, both ways, and compares them with limits.

    per_round, per_run: the limit of one node in bytes of messages; 0 for no limit.
    """

    per_round: int = NO_LIMIT
    per_run: int = NO_LIMIT
    _in_run: Counter[str] = field(default_factory=Counter)
    _in_round: Counter[str] = field(default_factory=Counter)
    _round: int = -1  # that of `_in_round`: earlier ones would only fill the memory

    def enter(self, server_round: int, node: str, n_bytes: int) -> None:
        """Add a message to or from the node."""
        self._in_run[node] += n_bytes
        if server_round != self._round:
            self._round, self._in_round = server_round, Counter()
        self._in_round[node] += n_bytes

    def resume(self, in_run: Mapping[str, int]) -> None:
        """Begin with the bytes of each node before the run was cut."""
        self._in_run = Counter(in_run)

    def left_in_round(self, server_round: int, node: str) -> float:
        """The bytes that the node may still spend in this round; infinite without a limit."""
        if self.per_round == NO_LIMIT:
            return float("inf")
        spent = self._in_round[node] if server_round == self._round else 0
        return self.per_round - spent

    def left_in_run(self, node: str) -> float:
        """The bytes that the node may still spend in the run; infinite without a limit."""
        return float("inf") if self.per_run == NO_LIMIT else self.per_run - self._in_run[node]

    def left(self, server_round: int, node: str) -> float:
        """The bytes that the node may still spend by both limits; infinite without any."""
        return min(self.left_in_round(server_round, node), self.left_in_run(node))

    def explain(self, n_bytes: float, what: str) -> str:
        """A sentence saying that `n_bytes` for `what` are more than the lowest limit of a node.

        It has no full stop. At least one limit must be set.
        """
        limits = {"max-bytes-per-node-round": self.per_round, "max-bytes-per-node": self.per_run}
        key, limit = min(
            ((key, limit) for key, limit in limits.items() if limit != NO_LIMIT),
            key=lambda pair: pair[1],
        )
        return (
            f"{key} = {limit} is less than the {n_bytes:.0f} bytes that {what} may take: raise it"
        )
