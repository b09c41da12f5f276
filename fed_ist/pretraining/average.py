"""The moving average of an encoder's weights over the steps of training, which is what is kept."""

from typing import Any

import torch
from torch import Tensor


class MovingAverage:
    """Weights that follow those of a model, a little at each step (Polyak and Juditsky 1992).

    weights: by name, of the model's own dtype and device.
    """

    def __init__(self, model: Any, decay: float) -> None:
        self._decay = decay
        self.weights: dict[str, Tensor] = {
            name: value.detach().clone() for name, value in model.state_dict().items()
        }

    @torch.no_grad()
    def follow(self, model: Any, step: int) -> None:
        """Move towards the model's weights after a step, counted from 0.

        At the start it follows faster, as the first weights have nothing to be averaged for.
        """
        share = 1 - min(self._decay, (1 + step) / (10 + step))
        now = model.state_dict()
        torch._foreach_lerp_(
            list(self.weights.values()), [now[name] for name in self.weights], share
        )
