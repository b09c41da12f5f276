"""Federated averaging (McMahan et al. 2017): everybody trains the whole classifier.

It is IST with a single group: the slice is everything, and merging averages all replies.
"""

from collections.abc import Mapping

import numpy as np

from fed_ist.ist import Subnet, partition_units
from strategies.slices import SliceStrategy


class FedAvgStrategy(SliceStrategy):
    """Sends the whole classifier to each node and averages what comes back, by examples."""

    def deal(
        self, widths: Mapping[str, int], n_nodes: int, rng: np.random.Generator
    ) -> list[Subnet]:
        return partition_units(widths, 1, rng)

    def scale(self, n_groups: int) -> float:
        return 1.0
