"""How what came back becomes the next classifier: by the mean, or by what a few cannot spoil."""

from dataclasses import dataclass

from flwr.serverapp import Grid

from fed_ist.config import GROUPED
from fed_ist.errors import InputError
from fed_ist.heads import Params
from fed_ist.ist import merge
from fed_ist.robust import Returned, clip_changes, trimmed_mean
from strategies.paying import PayingStrategy

LEAST_TRIMMED = 3  # values of a weight, of which the largest and the smallest are left out


@dataclass
class MergingStrategy(PayingStrategy):
    """A strategy that merges slices as `aggregation` and `clip-norm` say."""

    def combine(self, params: Params, returned: Returned) -> Params:
        """The next classifier, of the slices that came back."""
        if self.config.clip_norm:
            returned = clip_changes(params, returned, self.config.clip_norm)
        if self.config.aggregation == "trimmed-mean":
            return trimmed_mean(params, returned, self.config.trim_share)
        return merge(params, returned)

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
