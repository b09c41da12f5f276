"""Independent Subnetwork Training (Yuan et al. 2022): a disjoint slice for each group of nodes."""

from dataclasses import dataclass, field
from logging import getLogger

import numpy as np
from numpy.typing import NDArray

from fed_ist.classifier.dealing import equal_shares, partition_neurons
from fed_ist.classifier.slices import Subnet
from fed_ist.rng import generator
from fed_ist.runs.checkpoint import State, prefixed
from strategies.core.method import Dealing, Method

LAST_DEALT = "last-dealt/"  # prefix of arrays in a saved state
LOG = getLogger("flwr")  # Flower's, which the terminal shows


@dataclass
class Ist(Method):
    """Deals the hidden neurons anew each round.

    With `groups = 0` every sampled node is a group of its own. With more nodes than groups, nodes
    share groups; with fewer, some groups rest for the round. A group gets no more neurons than the
    weakest of its nodes can train; the others take over what they can. What rests comes first in
    the next round, so that every neuron has its turn.

    With `dealing = "rotating"` the groups are dealt once for all, and go round among the nodes: in
    as many rounds as there are groups each has been with each node. That is ours.
    """

    _last_dealt: dict[str, NDArray[np.int64]] = field(default_factory=dict)

    def deal(self, to: Dealing) -> list[Subnet]:
        n_groups = self.config.groups or len(to.capacities)
        if self.config.dealing == "rotating":
            if min(to.capacities) >= 1 / n_groups:
                return self._rotate(to, n_groups)
            why = "a node is too weak for one of %d equal groups, or has too few bytes left"
            LOG.warning(f"Dealt at random: {why}", n_groups)
        weakest = [min(to.capacities[i::n_groups], default=1.0) for i in range(n_groups)]
        shares = equal_shares(weakest)[: len(to.capacities)]
        if not self._last_dealt:
            self._last_dealt = {a: np.zeros(n, dtype=np.int64) for a, n in to.widths.items()}
        subnets = partition_neurons(to.widths, shares, to.rng, self._last_dealt)
        for subnet in subnets:
            for axis, rows in subnet.neurons.items():
                self._last_dealt[axis][rows] = to.server_round
        return subnets

    def _rotate(self, to: Dealing, n_groups: int) -> list[Subnet]:
        """The subnet of each sampled node, of groups that are the same in every round."""
        rng = generator(self.config.seed, "groups")
        groups = partition_neurons(to.widths, [1 / n_groups] * n_groups, rng)
        return [groups[(place + to.server_round) % n_groups] for place in to.places]

    def save(self) -> State:
        rounds = {axis: rows.copy() for axis, rows in self._last_dealt.items()}
        return State(prefixed(LAST_DEALT, rounds))

    def restore(self, state: State) -> None:
        self._last_dealt = state.under(LAST_DEALT)
