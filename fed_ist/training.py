"""Local training and evaluation of the classifier on embeddings.

A node in deployment runs this in a fresh process each round, so nothing here imports timm,
torchvision or datasets.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fed_ist.heads import Params

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
}


@dataclass(frozen=True)
class LocalTraining:
    """How a client trains in one round.

    local_steps: optimiser steps; 0 to train `local_epochs` passes over the client's examples.
    """

    local_epochs: int
    local_steps: int
    batch_size: int
    optimizer: str
    learning_rate: float

    def count_steps(self, n_examples: int) -> int:
        """Optimiser steps in a round."""
        return self.local_steps or self.local_epochs * math.ceil(n_examples / self.batch_size)

    def count_passes(self, n_examples: int) -> int:
        """Passes over the examples, whole or begun, in a round."""
        return math.ceil(self.count_steps(n_examples) / math.ceil(n_examples / self.batch_size))


def forward(params: dict[str, Tensor], embeddings: Tensor, scale: float) -> Tensor:
    """Logits (N, num_classes).

    scale: multiplies what the hidden neurons pass on. A group that stands for W groups trains with
    scale W, so that its sums are as large as the whole network's will be (inverted dropout).
    """
    hidden = functional.relu(
        functional.linear(embeddings, params["fc1.weight"], params["fc1.bias"])
    )
    hidden = functional.relu(
        functional.linear(hidden * scale, params["fc2.weight"], params["fc2.bias"])
    )
    return functional.linear(hidden * scale, params["fc3.weight"], params["fc3.bias"])


def train(
    params: Params,
    examples: Callable[[int], tuple[NDArray[np.float32], NDArray[np.int64]]],
    how: LocalTraining,
    scale: float,
    seed: int,
) -> tuple[Params, float]:
    """Train a copy of `params`; returns it and the mean loss over the steps.

    examples: pass number, from 0 -> (embeddings (n, d), labels (n,)); n is the same in each pass.
    Each pass draws a new order from `seed`. The last batch of a pass may be smaller.
    """
    tensors = {name: torch.tensor(array, requires_grad=True) for name, array in params.items()}
    optimizer = OPTIMIZERS[how.optimizer](tensors.values(), lr=how.learning_rate)  # type: ignore[call-arg]
    losses = []
    for x, y in _batches(examples, how, torch.Generator().manual_seed(seed)):
        loss = functional.cross_entropy(forward(tensors, x, scale), y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    trained = {name: tensor.detach().numpy() for name, tensor in tensors.items()}
    return trained, float(np.mean(losses))


def _batches(
    examples: Callable[[int], tuple[NDArray[np.float32], NDArray[np.int64]]],
    how: LocalTraining,
    rng: torch.Generator,
) -> Iterator[tuple[Tensor, Tensor]]:
    """One (embeddings, labels) batch for each step of a round."""
    left, number_of_pass = 1, 0
    while left > 0:
        x, y = (torch.tensor(array) for array in examples(number_of_pass))
        if number_of_pass == 0:
            left = how.count_steps(len(y))
        order = torch.randperm(len(y), generator=rng)
        for rows in torch.split(order, how.batch_size)[:left]:
            yield x[rows], y[rows]
            left -= 1
        number_of_pass += 1


@torch.inference_mode()
def evaluate(
    params: Params, embeddings: NDArray[np.float32], labels: NDArray[np.int64]
) -> tuple[float, float]:
    """(accuracy in [0, 1], mean cross-entropy) of the whole classifier."""
    logits = predict(params, embeddings)
    loss = functional.cross_entropy(logits, torch.tensor(labels))
    accuracy = (logits.argmax(dim=1).numpy() == labels).mean()
    return float(accuracy), float(loss)


@torch.inference_mode()
def predict(params: Params, embeddings: NDArray[np.float32]) -> Tensor:
    """Logits (n, num_classes) of the whole classifier."""
    tensors = {name: torch.tensor(array) for name, array in params.items()}
    return forward(tensors, torch.tensor(embeddings), 1.0)
