"""Local training and evaluation of the classifier on embeddings.

A node in deployment runs this in a fresh process each round, so nothing here imports timm,
torchvision or datasets.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from fed_ist.anchors import anchor_logits, classifier_inputs, split
from fed_ist.dealing import leading_units
from fed_ist.heads import RUNNING, Params, count_layers, hidden_widths, param_axes

if TYPE_CHECKING:
    from fed_ist.config import RunConfig

Examples = tuple[NDArray[np.float32], NDArray[np.int64]]  # embeddings (n, d), labels (n,)


@dataclass(frozen=True)
class LocalTraining:
    """How a client trains in one round.

    learning_rate: of this round.
    local_steps: optimiser steps; 0 to train `local_epochs` passes over the client's examples.
    label_skew: what is done about classes that the client has more or less of than others.
        "balance" weighs each example by the inverse of its class's count; "calibrate" adds the
        logarithm of the class's share to its logit, lest its frequency here be learnt (Menon et
        al., "Long-tail Learning via Logit Adjustment", ICLR 2021; on federated clients Zhang et
        al., "Federated Learning with Label Distribution Skew via Logits Calibration", ICML 2022).
    proximal: mu of FedProx, whose loss has mu / 2 times the squared distance from the slice as it
        came (Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020).
    """

    local_epochs: int
    local_steps: int
    batch_size: int
    optimizer: str
    learning_rate: float
    label_skew: str = "ignore"
    proximal: float = 0.0

    def count_steps(self, n_examples: int) -> int:
        """Optimiser steps in a round."""
        return self.local_steps or self.local_epochs * math.ceil(n_examples / self.batch_size)

    def count_passes(self, n_examples: int) -> int:
        """Passes over the examples, whole or begun, in a round."""
        return math.ceil(self.count_steps(n_examples) / math.ceil(n_examples / self.batch_size))


def local_training(config: "RunConfig", server_round: int = 1) -> LocalTraining:
    """What a run's configuration says of it for a round, from 1."""
    return LocalTraining(
        config.local_epochs,
        config.local_steps,
        config.batch_size,
        config.optimizer,
        config.learning_rate * _share_of_rate(config, server_round),
        config.label_skew,
        config.proximal,
    )


def _share_of_rate(config: "RunConfig", server_round: int) -> float:
    """Cosine: from 1 in the first round towards 0 after the last (Loshchilov and Hutter, "SGDR",
    ICLR 2017, without restarts), so that subnets end nearer to each other and to the last merge.
    """
    if config.learning_rate_schedule == "constant":
        return 1.0
    return (1 + math.cos(math.pi * (server_round - 1) / config.num_rounds)) / 2


def forward(
    params: Mapping[str, Tensor], inputs: Tensor, scale: float, training: bool = False
) -> Tensor:
    """Logits (N, num_classes) of the classifier without its anchor.

    inputs: float32 (N, embed_dim), see `anchors.classifier_inputs`.
    scale: multiplies what the hidden neurons pass on. A slice with a share 1/W of the neurons
    trains with scale W, so that its sums are as large as the whole network's will be (inverted
    dropout).
    training: batch norm takes the batch's moments, and updates the running ones in place.
    """
    n_layers = count_layers(params)
    values = inputs
    for layer in range(1, n_layers):
        passed = values if layer == 1 else values * scale
        sums = functional.linear(passed, params[f"fc{layer}.weight"], params[f"fc{layer}.bias"])
        if f"norm{layer}.weight" not in params:
            values = functional.relu(sums)
            continue
        found = functional.relu(_normalised(params, f"norm{layer}", sums, training))
        values = found if layer == 1 else values + found
    last = f"fc{n_layers}"
    return functional.linear(values * scale, params[f"{last}.weight"], params[f"{last}.bias"])


def _normalised(params: Mapping[str, Tensor], name: str, sums: Tensor, training: bool) -> Tensor:
    weight, bias = params[f"{name}.weight"], params[f"{name}.bias"]
    if f"{name}.mean" not in params:
        return functional.layer_norm(sums, weight.shape, weight, bias)
    mean, var = params[f"{name}.mean"], params[f"{name}.var"]
    # The last batch of a pass may be a single example, which has no variance.
    return functional.batch_norm(sums, mean, var, weight, bias, training and len(sums) > 1)


# torch.optim's classes load torch's compiler at their first step, which takes as long as torch
# itself and which a node would pay for in each round; the functions that they call do not. Fused, a
# step of Adam on a head of a million parameters costs less than half on a CPU.
Step = Callable[[Sequence[Tensor], float], None]  # gradients and learning rate


def _adam(learnt: list[Tensor]) -> Step:
    means, squares = ([torch.zeros_like(tensor) for tensor in learnt] for _ in range(2))
    steps = [torch.zeros(()) for _ in learnt]

    @torch.no_grad()
    def step(gradients: Sequence[Tensor], rate: float) -> None:
        adam(
            learnt, list(gradients), means, squares, [], steps, fused=True, amsgrad=False,
            beta1=0.9, beta2=0.999, lr=rate, weight_decay=0.0, eps=1e-8, maximize=False,
        )  # fmt: skip

    return step


def _sgd(learnt: list[Tensor]) -> Step:
    @torch.no_grad()
    def step(gradients: Sequence[Tensor], rate: float) -> None:
        sgd(
            learnt, list(gradients), [None] * len(learnt), fused=True, weight_decay=0.0,
            momentum=0.0, lr=rate, dampening=0.0, nesterov=False, maximize=False,
        )  # fmt: skip

    return step


OPTIMIZERS: dict[str, Callable[[list[Tensor]], Step]] = {"adam": _adam, "sgd": _sgd}


def train(
    params: Params,
    examples: Callable[[int], Examples],
    how: LocalTraining,
    scale: float,
    seed: int,
    fixed: Params | None = None,
    levels: Sequence[float] = (1.0,),
) -> tuple[Params, float]:
    """Train a copy of `params`; returns it and the mean loss over the steps.

    examples: pass number, from 0 -> (embeddings (n, d), labels (n,)); n is the same in each pass.
    Each pass draws a new order from `seed`. The last batch of a pass may be smaller.
    fixed: what statistics gave the classifier, its inputs and its anchor (see `fed_ist.anchors`).
    levels: each step trains the leading neurons of each layer alone, a share drawn anew from these
    (ordered dropout, Horváth et al., "FjORD", NeurIPS 2021).
    """
    tensors = {
        name: torch.tensor(array, requires_grad=not name.endswith(RUNNING))
        for name, array in params.items()
    }
    learnt = [tensor for tensor in tensors.values() if tensor.requires_grad]
    step = OPTIMIZERS[how.optimizer](learnt)
    rng = torch.Generator().manual_seed(seed)
    start = [tensor.detach().clone() for tensor in learnt]
    offsets, weights = torch.zeros(1), None
    if how.label_skew != "ignore":  # else the first pass need not be seen twice
        n_classes = params[f"fc{count_layers(params)}.bias"].size
        offsets, weights = _skew(examples(0)[1], n_classes, how.label_skew)
    losses = []
    for x, y, offset in _batches(examples, how, rng, fixed or {}):
        level = levels[0]
        if len(levels) > 1:
            level = levels[int(torch.randint(len(levels), (), generator=rng))]
        used = _leading(tensors, level) if level < 1 else tensors
        logits = forward(used, x, scale, training=True) + offset + offsets
        loss = functional.cross_entropy(logits, y, weights)
        if how.proximal:
            moved = zip(learnt, start, strict=True)
            loss = loss + how.proximal / 2 * sum((now - then).square().sum() for now, then in moved)
        step(torch.autograd.grad(loss, learnt), how.learning_rate)
        losses.append(loss.item())
    trained = {name: tensor.detach().numpy() for name, tensor in tensors.items()}
    return trained, float(np.mean(losses))


def _skew(
    labels: NDArray[np.int64], n_classes: int, label_skew: str
) -> tuple[Tensor, Tensor | None]:
    """(what is added to the logits, the classes' weights) for a client's labels."""
    counts = torch.bincount(torch.tensor(labels), minlength=n_classes).float()
    if label_skew == "balance":
        return torch.zeros(1), 1 / counts.clamp(min=1)
    assert label_skew == "calibrate", label_skew
    # A class that the client lacks counts as half an example, lest its logit be infinite.
    return (counts.clamp(min=0.5) / counts.sum()).log(), None


def _leading(tensors: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Views of the first neurons of each layer, a share of them."""
    subnet = leading_units(hidden_widths(tensors), share)
    picked: dict[str, Tensor] = {}
    for name, axes in param_axes(tensors).items():
        ends = [slice(None) if axis is None else slice(len(subnet.units[axis])) for axis in axes]
        picked[name] = tensors[name][tuple(ends)]
    return picked


def _batches(
    examples: Callable[[int], Examples],
    how: LocalTraining,
    rng: torch.Generator,
    fixed: Params,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """One (inputs, labels, logits of the anchor) batch for each step of a round."""
    left, number_of_pass = 1, 0
    while left > 0:
        values, labels = examples(number_of_pass)
        x, y = torch.tensor(classifier_inputs(fixed, values)), torch.tensor(labels)
        offset = torch.tensor(anchor_logits(fixed, values))
        if number_of_pass == 0:
            left = how.count_steps(len(y))
        order = torch.randperm(len(y), generator=rng)
        for rows in torch.split(order, how.batch_size)[:left]:
            yield x[rows], y[rows], offset[rows]
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
    """Logits (n, num_classes) of the whole classifier, its anchor included."""
    trained, fixed = split(params)
    logits = torch.tensor(anchor_logits(fixed, embeddings))
    if not trained:
        return logits
    tensors = {name: torch.tensor(array) for name, array in trained.items()}
    return logits + forward(tensors, torch.tensor(classifier_inputs(fixed, embeddings)), 1.0)
