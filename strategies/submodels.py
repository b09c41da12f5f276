"""Methods that, like IST, send each node a part of the classifier, but overlapping ones."""

from dataclasses import dataclass

from fed_ist.classifier.dealing import leading_neurons, random_neurons, rolling_neurons
from fed_ist.classifier.slices import Subnet
from fed_ist.config.derive import capacity_levels
from fed_ist.traffic import protocol
from strategies.core.method import Dealing, Method


@dataclass
class FedDropout(Method):
    """Federated Dropout (Caldas et al. 2018): each node gets random neurons of its own.

    As many as IST would deal it, one part in `groups` (0: in the number of nodes).
    """

    def deal(self, to: Dealing) -> list[Subnet]:
        share = 1 / (self.config.groups or len(to.capacities))
        return [random_neurons(to.widths, min(share, part), to.rng) for part in to.capacities]


@dataclass
class HeteroFl(Method):
    """HeteroFL (Diao et al. 2021): each node gets the first neurons, as many as it can train."""

    def deal(self, to: Dealing) -> list[Subnet]:
        return [leading_neurons(to.widths, capacity) for capacity in to.capacities]


@dataclass
class Fjord(HeteroFl):
    """FjORD's ordered dropout (Horváth et al. 2021): HeteroFL's slices, of which each step trains
    a random level. Hidden sums are not rescaled, as in the paper, since every step has another
    width.
    """

    def scale(self, share: float) -> float:
        return 1.0

    def task(self, share: float, capacity: float) -> dict[str, float | str | list[float]]:
        # Of the whole's neurons a level is `level`, of this slice's, which are rounded, this part.
        smaller = {level / share for level in capacity_levels(self.config) if level < capacity}
        return super().task(share, capacity) | {protocol.LEVELS: [*sorted(smaller), 1.0]}


@dataclass
class FedRolex(Method):
    """FedRolex (Alam et al. 2022): neighbouring neurons, as many as a node can train, starting one
    further in each round.
    """

    def deal(self, to: Dealing) -> list[Subnet]:
        first = to.server_round - 1
        return [rolling_neurons(to.widths, capacity, first) for capacity in to.capacities]
