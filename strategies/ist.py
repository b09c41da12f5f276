"""Independent Subnetwork Training (Yuan et al. 2022): a disjoint slice for each group of nodes."""

from collections.abc import Mapping

import numpy as np

from fed_ist.ist import Subnet, partition_units
from strategies.slices import SliceStrategy


class IstStrategy(SliceStrategy):
    """Deals the hidden neurons anew each round.

    With `groups = 0` every sampled node is a group of its own. With more nodes than groups, nodes
    share groups; with fewer, some groups rest for the round.
    """

    def deal(
        self, widths: Mapping[str, int], n_nodes: int, rng: np.random.Generator
    ) -> list[Subnet]:
        return partition_units(widths, self.config.groups or n_nodes, rng)

    def scale(self, n_groups: int) -> float:
        return float(n_groups) if self.config.rescale else 1.0
