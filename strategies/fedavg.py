"""Federated averaging (McMahan et al. 2017), and what a server's own optimiser makes of it."""

from dataclasses import dataclass, field

from fed_ist.classifier.dealing import leading_neurons
from fed_ist.classifier.layout import RUNNING, Params
from fed_ist.classifier.server_optimizers import ServerAdam, ServerMomentum
from fed_ist.classifier.slices import Subnet
from fed_ist.runs.checkpoint import State, prefixed
from strategies.core.method import Dealing, Method

ADAM_BETA2, ADAM_TAU = 0.99, 1e-3  # the paper's


@dataclass
class FedAvg(Method):
    """Sends the whole classifier to each node and averages what comes back, by examples.

    It is IST with a single group: the slice is everything.
    """

    def deal(self, to: Dealing) -> list[Subnet]:
        return [leading_neurons(to.widths, 1.0)]


@dataclass
class FedAvgM(FedAvg):
    """FedAvg with momentum on the server (Hsu et al. 2019)."""

    _optimizer: ServerMomentum | ServerAdam = field(init=False)

    def __post_init__(self) -> None:
        self._optimizer = self._make_optimizer()

    def _make_optimizer(self) -> ServerMomentum | ServerAdam:
        rate = self.config.server_learning_rate or 1.0
        return ServerMomentum(rate, self.config.server_momentum)

    def step(self, params: Params, merged: Params) -> Params:
        stepped = self._optimizer.step(params, merged)
        # Batch norm's running moments are no gradients' work: momentum would carry them astray.
        return {name: merged[name] if name.endswith(RUNNING) else stepped[name] for name in params}

    def save(self) -> State:
        slots = self._optimizer.slots.items()
        return State({k: v for kind, own in slots for k, v in prefixed(f"{kind}/", own).items()})

    def restore(self, state: State) -> None:
        for kind, own in self._optimizer.slots.items():
            own.update(state.under(f"{kind}/"))


@dataclass
class FedAdam(FedAvgM):
    """FedAvg with Adam on the server (Reddi et al. 2021)."""

    def _make_optimizer(self) -> ServerAdam:
        rate = self.config.server_learning_rate or 0.01
        return ServerAdam(rate, self.config.server_momentum, ADAM_BETA2, ADAM_TAU)
