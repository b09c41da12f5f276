"""Independent Subnetwork Training (Yuan et al. 2022): a disjoint slice for each group of nodes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fed_ist.dealing import equal_shares, partition_units
from fed_ist.ist import Subnet
from strategies.slices import SliceStrategy


@dataclass
class IstStrategy(SliceStrategy):
    """Deals the hidden neurons anew each round.

    With `groups = 0` every sampled node is a group of its own. With more nodes than groups, nodes
    share groups; with fewer, some groups rest for the round. A group gets no more neurons than the
    weakest of its nodes can train; the others take over what they can.
    """

    def deal(
        self,
        widths: Mapping[str, int],
        capacities: Sequence[float],
        server_round: int,
        rng: np.random.Generator,
    ) -> list[Subnet]:
        n_groups = self.config.groups or len(capacities)
        weakest = [min(capacities[i::n_groups], default=1.0) for i in range(n_groups)]
        return partition_units(widths, equal_shares(weakest), rng)
