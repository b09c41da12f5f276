"""How what came back becomes the next classifier: by the mean, or by what a few cannot spoil."""

from collections.abc import Sequence
from dataclasses import dataclass

from flwr.serverapp import Grid

from fed_ist.config import GROUPED
from fed_ist.errors import InputError
from fed_ist.heads import Params
from fed_ist.ist import Merger, Subnet
from fed_ist.robust import RobustMerger
from strategies.paying import PayingStrategy

LEAST_TRIMMED = 3  # values of a weight, of which the largest and the smallest are left out


@dataclass
class MergingStrategy(PayingStrategy):
    """A strategy that merges slices as `aggregation` and `clip-norm` say."""

    def merger(self, params: Params, subnets: Sequence[Subnet]) -> Merger | RobustMerger:
        """What the slices that come back are given to."""
        clip_norm, is_trimmed = self.config.clip_norm, self.config.aggregation == "trimmed-mean"
        if not clip_norm and not is_trimmed:
            return Merger(params, subnets)
        return RobustMerger(params, clip_norm, self.config.trim_share if is_trimmed else None)

    def step(self, params: Params, merged: Params) -> Params:
        """The next classifier, of the present one and the mean of what came back."""
        return merged

    def require_nodes(self, grid: Grid, server_round: int = 0) -> None:
        """Also raises `InputError` where there would be nothing to trim in any round."""
        super().require_nodes(grid, server_round)
        if self.config.aggregation != "trimmed-mean":
            return
        n_sampled = self.count_sampled(len(self.available(grid)))
        grouped = self.config.strategy in GROUPED
        n_slices = (self.config.groups or n_sampled) if grouped else 1
        if n_sampled < LEAST_TRIMMED * n_slices:
            raise InputError(
                f"aggregation = 'trimmed-mean' needs {LEAST_TRIMMED * n_slices} nodes in a round "
                f"of {n_slices} slices, and there are {n_sampled}: use more nodes, fewer groups, "
                "or clip-norm."
            )

    def count_sampled(self, n_nodes: int) -> int:
        """How many of so many nodes a round asks."""
        return max(self.config.min_nodes, int(self.config.fraction_nodes * n_nodes))
