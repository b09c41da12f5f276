"""What nodes may still receive and send, and which slices that pays for."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

from fed_ist.classifier.layout import param_shapes
from fed_ist.config.derive import count_inputs
from fed_ist.config.methods import SLICED
from fed_ist.config.run_config import RunConfig
from fed_ist.errors import InputError
from fed_ist.runs.checkpoint import State
from fed_ist.traffic.allowance import Allowance
from fed_ist.traffic.codecs import Shapes, encoded_bytes
from fed_ist.training.workload import MESSAGE_OVERHEAD_BYTES
from strategies.core.foundation import Foundation
from strategies.core.method import Method
from strategies.core.roster import Roster

LAST_BYTES = "last-bytes"  # key of a saved state


class AllowanceSpent(Exception):  # noqa: N818 - it ends a run as it should end
    """Too few nodes may receive and send another slice."""


@dataclass
class Purse:
    """Knows what slices cost, and keeps nodes within their limits of bytes."""

    config: RunConfig
    roster: Roster
    foundation: Foundation
    method: Method
    _last_bytes: dict[str, int] = field(default_factory=dict)  # of slices, by node

    def save(self) -> State:
        """What each node's last slice cost."""
        return State(values={LAST_BYTES: dict(self._last_bytes)})

    def restore(self, state: State) -> None:
        """Go on from what `save` gave."""
        self._last_bytes = dict(state.values[LAST_BYTES])

    def reply_bytes(self, shapes: Shapes) -> int:
        """Bytes of what a node answers to a slice of these shapes, at most."""
        return self.method.reply_bytes(shapes) + MESSAGE_OVERHEAD_BYTES

    def cost(self, node_id: int, shapes: Shapes) -> int:
        """Bytes of a node's round with a slice of these shapes, down and up, at most."""
        return self._slice_bytes(shapes) + self.foundation.bytes_for(node_id)

    def pays_for(self, server_round: int, node_id: int, shapes: Shapes) -> bool:
        """Whether a node may get the slice that it was dealt."""
        name, n_bytes = self._name(node_id), self._slice_bytes(shapes)
        self._last_bytes[name] = n_bytes
        needed = n_bytes + self.foundation.bytes_for(node_id)
        return needed <= self._allowance.left(server_round, name)

    def can_pay(self, server_round: int, node_id: int) -> bool:
        """Whether a node may get a slice, and the run leaves it another one like its last."""
        name, least = self._name(node_id), self._least_cost(node_id)
        like_last = self._last_bytes.get(name, 0) + self.foundation.bytes_for(node_id)
        in_round = self._allowance.left_in_round(server_round, name)
        return least <= in_round and max(least, like_last) <= self._allowance.left_in_run(name)

    def affordable_share(self, server_round: int, node_id: int) -> float:
        """The node's capacity, or as many of the neurons as its allowance pays for."""
        capacity, width = self.roster.prepared[node_id].capacity, self.config.hidden_dim
        left = self._allowance.left(server_round, self._name(node_id))
        if not self._is_sliced or left == float("inf"):
            return capacity
        sizes = range(1, width + 1)
        too_many = bisect_left(sizes, True, key=lambda n: self._slice_cost(node_id, n) > left)
        return min(capacity, max(1, too_many) / width)

    def end(self, node_ids: Sequence[int]) -> None:
        """Raise `AllowanceSpent`, or `InputError` where no round was possible at all."""
        if self._last_bytes:
            limit = self.config.max_bytes_per_node or self.config.max_bytes_per_node_round
            raise AllowanceSpent(
                f"a limit of {limit} bytes per node leaves too few of them a slice"
            )
        needed = min(self._least_cost(node_id) for node_id in node_ids)
        raise InputError(f"{self._allowance.explain(needed, 'the smallest round of a node')}.")

    def _slice_bytes(self, shapes: Shapes) -> int:
        down = encoded_bytes(shapes, self.config.down_codec) + MESSAGE_OVERHEAD_BYTES
        return down + self.reply_bytes(shapes)

    def _slice_cost(self, node_id: int, n_neurons: int) -> int:
        config, n_classes = self.config, len(self.roster.post.class_names)
        widths = (
            count_inputs(config, self.roster.embed_dim),
            *[n_neurons] * config.hidden_layers,
            n_classes,
        )
        return self.cost(node_id, param_shapes(widths, config.norm))

    def _least_cost(self, node_id: int) -> int:
        """Of the smallest slice that the method may deal."""
        return self._slice_cost(node_id, 1 if self._is_sliced else self.config.hidden_dim)

    @property
    def _is_sliced(self) -> bool:
        return self.config.strategy in SLICED

    @property
    def _allowance(self) -> Allowance:
        return self.roster.post.allowance

    def _name(self, node_id: int) -> str:
        return self.roster.post.names[node_id]
