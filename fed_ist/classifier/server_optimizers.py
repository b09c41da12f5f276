"""The server's own step: what it does with the difference between merged and old parameters.

Plain averaging takes the difference as it is. An optimiser on the server treats it as a gradient:
with momentum (FedAvgM: Hsu et al., "Measuring the Effects of Non-Identical Data Distribution for
Federated Visual Classification", 2019), or with Adam (FedAdam: Reddi et al., "Adaptive Federated
Optimization", ICLR 2021, algorithm 2). State and sums are float64, parameters stay float32.
"""

import numpy as np
from numpy.typing import NDArray

from fed_ist.classifier.layout import Params
from fed_ist.errors import InputError

Slot = NDArray[np.float64]


class ServerMomentum:
    """FedAvgM: m becomes momentum * m + difference, and parameters grow by learning_rate * m.

    Learning rate 1 with momentum 0 is plain averaging. Raises `InputError` unless the rate is
    positive and the momentum lies in [0, 1). Source: Hsu et al. 2019.
    """

    def __init__(self, learning_rate: float, momentum: float) -> None:
        _require_positive("learning rate", learning_rate)
        _require_decay("momentum", momentum)
        self._learning_rate = learning_rate
        self._momentum = momentum
        self._means: dict[str, Slot] = {}

    @property
    def slots(self) -> dict[str, dict[str, Slot]]:
        """The state to save: kind -> parameter name -> float64 array of the parameter's shape.

        The inner dicts are the optimiser's own: to restore a state, fill them.
        """
        return {"means": self._means}

    def step(self, params: Params, merged: Params) -> Params:
        """The next parameters, new float32 arrays of the same shapes.

        params: before the round. merged: with the replies of the round.
        """
        stepped: Params = {}
        for name, old in params.items():
            mean = self._means.get(name, np.zeros(old.shape))
            moved = self._momentum * mean + _difference(old, merged[name])
            self._means[name] = moved
            stepped[name] = _move(old, self._learning_rate * moved)
        return stepped


class ServerAdam:
    """FedAdam: the parameters grow by learning_rate * m / (√v + tau), where, for a difference D,
    m becomes beta1 m + (1 - beta1) D, and v becomes beta2 v + (1 - beta2) D².

    As in the paper, v starts at tau² and nothing corrects for the start, so that the first steps
    are short. Raises `InputError` unless rate and tau are positive and both betas lie in [0, 1).
    Source: Reddi et al. 2021, algorithm 2.
    """

    def __init__(self, learning_rate: float, beta1: float, beta2: float, tau: float) -> None:
        _require_positive("learning rate", learning_rate)
        _require_decay("beta1", beta1)
        _require_decay("beta2", beta2)
        _require_positive("tau", tau)
        self._learning_rate = learning_rate
        self._beta1, self._beta2, self._tau = beta1, beta2, tau
        self._means: dict[str, Slot] = {}
        self._squares: dict[str, Slot] = {}

    @property
    def slots(self) -> dict[str, dict[str, Slot]]:
        """The state to save, float64 arrays in the form of `ServerMomentum.slots`."""
        return {"means": self._means, "squares": self._squares}

    def step(self, params: Params, merged: Params) -> Params:
        """The next parameters, new float32 arrays; see `ServerMomentum.step`."""
        stepped: Params = {}
        for name, old in params.items():
            difference = _difference(old, merged[name])
            mean = self._means.get(name, np.zeros(old.shape))
            square = self._squares.get(name, np.full(old.shape, self._tau**2))
            mean = self._beta1 * mean + (1 - self._beta1) * difference
            square = self._beta2 * square + (1 - self._beta2) * difference**2
            self._means[name], self._squares[name] = mean, square
            move = self._learning_rate * mean / (np.sqrt(square) + self._tau)
            stepped[name] = _move(old, move)
        return stepped


def _difference(old: NDArray[np.float32], merged: NDArray[np.float32]) -> Slot:
    return merged.astype(np.float64) - old


def _move(old: NDArray[np.float32], move: Slot) -> NDArray[np.float32]:
    return (old + move).astype(np.float32)


def _require_positive(kind: str, value: float) -> None:
    if not 0 < value < np.inf:
        raise InputError(f"A server's {kind} of {value} is not possible: give a positive number.")


def _require_decay(kind: str, value: float) -> None:
    if not 0 <= value < 1:
        raise InputError(f"A server's {kind} of {value} is not possible: give a number in [0, 1).")
