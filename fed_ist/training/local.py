"""Local training and evaluation of the classifier on embeddings.

A node in deployment runs this in a fresh process each round, so nothing here imports torch, timm,
torchvision or datasets.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fed_ist.classifier.dealing import leading_neurons
from fed_ist.classifier.layout import RUNNING, Params, count_layers, hidden_widths, param_axes
from fed_ist.classifier.network import Array, backward, forward, trace
from fed_ist.statistics.anchors import anchor_logits, classifier_inputs, trained_and_fixed
from fed_ist.training.optimizers import OPTIMIZERS

Examples = tuple[NDArray[np.float32], NDArray[np.int64]]  # embeddings (n, d), labels (n,)


@dataclass(frozen=True)
class LocalTraining:
    """How a client trains in one round.

    learning_rate: of this round.
    local_steps: the number of optimiser steps; 0 to train `local_epochs` passes over the client's
        examples.
    optimizer: a name in `OPTIMIZERS`.
    label_skew: what is done about classes of which the client has more or fewer examples than of
        others. "ignore" does nothing. "balance" weights each example by the inverse of its class's
        count. "calibrate" adds the logarithm of the class's share to its logit, so that the
        frequency of classes on this client is not learnt (Menon et al., "Long-tail Learning via
        Logit Adjustment", ICLR 2021; on federated clients Zhang et al., "Federated Learning with
        Label Distribution Skew via Logits Calibration", ICML 2022).
    proximal: mu of FedProx, which adds to the loss mu / 2 times the squared distance from the slice
        that the client was sent (Li et al., "Federated Optimization in Heterogeneous Networks",
        MLSys 2020).
    """

    local_epochs: int
    local_steps: int
    batch_size: int
    optimizer: str
    learning_rate: float
    label_skew: str = "ignore"
    proximal: float = 0.0

    def count_steps(self, n_examples: int) -> int:
        """The number of optimiser steps in a round."""
        return self.local_steps or self.local_epochs * math.ceil(n_examples / self.batch_size)

    def count_seen(self, n_examples: int) -> int:
        """The number of examples that a round trains on, each counted as often as it is seen."""
        return self.local_steps * self.batch_size or self.local_epochs * n_examples

    def count_passes(self, n_examples: int) -> int:
        """The number of passes over the examples in a round, including an unfinished last one."""
        return math.ceil(self.count_steps(n_examples) / math.ceil(n_examples / self.batch_size))


def share_of_rate(schedule: str, server_round: int, num_rounds: int) -> float:
    """The share of the learning rate that a round trains with.

    schedule: "constant", or "cosine", which goes from 1 in the first round towards 0 after the last
    (Loshchilov and Hutter, "SGDR", ICLR 2017, without restarts), so that subnets end nearer to each
    other and to the last merge.
    server_round: counted from 1.
    """
    if schedule == "constant":
        return 1.0
    return (1 + math.cos(math.pi * (server_round - 1) / num_rounds)) / 2


def train(
    params: Params,
    examples: Callable[[int], Examples],
    how: LocalTraining,
    scale: float,
    rng: np.random.Generator,
    fixed: Params | None = None,
    levels: Sequence[float] = (1.0,),
) -> tuple[Params, float]:
    """Train a copy of `params`; returns it, float32 of the same shapes, and the mean loss of steps.

    examples: number of the pass, from 0 -> (embeddings float32 (n, d), labels int64 (n,)), with the
        same n in each pass. Each pass draws a new order from `rng`; its last batch may be smaller.
    scale: see `network.forward`.
    fixed: the inputs and the anchor (see `fed_ist.statistics.anchors`); None for neither.
    levels: shares of the neurons. Each step draws one of them and trains only this share of each
        layer, its leading neurons (ordered dropout, Horváth et al., "FjORD", NeurIPS 2021).
    """
    learnt, trained = _flattened({n: a for n, a in params.items() if not n.endswith(RUNNING)})
    gradient, gradients = _flattened(trained)
    trained |= {name: array.copy() for name, array in params.items() if name.endswith(RUNNING)}
    step = OPTIMIZERS[how.optimizer](learnt)
    start = learnt.copy() if how.proximal else learnt
    shift, weights = np.zeros(1, dtype=np.float32), None
    if how.label_skew != "ignore":  # else the first pass need not be seen twice
        n_classes = params[f"fc{count_layers(params)}.bias"].size
        shift, weights = _skew(examples(0)[1], n_classes, how.label_skew)
    losses = []
    # No warnings: the loss shows where training diverged, and on some ARM processors numpy warns of
    # a division by zero in matmul, which divides nothing.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for x, y, offset in _batches(examples, how, rng, fixed or {}):
            level = levels[int(rng.integers(len(levels)))] if len(levels) > 1 else levels[0]
            used, into = trained, gradients
            if level < 1:
                used, into = _leading(trained, level), _leading(gradients, level)
                gradient[:] = 0
            logits, layers = trace(used, x, scale, training=True)
            loss, of_logits = cross_entropy(logits + offset + shift, y, weights)
            backward(used, layers, scale, of_logits, into)
            if how.proximal:
                loss += _pull(learnt, start, how.proximal, gradient)
            step(gradient, how.learning_rate)
            losses.append(loss)
    return {name: trained[name] for name in params}, float(np.mean(losses))


def cross_entropy(
    logits: Array, labels: NDArray[np.int64], weights: Array | None = None
) -> tuple[float, Array]:
    """The mean cross-entropy of the examples, and its gradient by the logits.

    logits: float32 (n, num_classes), as the gradient. labels: int64 (n,). weights: of an example by
    its class, float32 (num_classes,); None where all count alike.
    """
    rows, logs = np.arange(len(labels)), log_softmax(logits)
    share = weights[labels] if weights is not None else np.ones(len(labels), dtype=np.float32)
    share = share / share.sum()
    gradient = np.exp(logs)
    gradient[rows, labels] -= 1
    gradient *= share[:, None]
    return -float(logs[rows, labels] @ share), gradient


def log_softmax(logits: Array) -> Array:
    """The logarithms of the classes' probabilities: float32 (n, num_classes), as the logits."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    logs: Array = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return logs


def _pull(learnt: Array, start: Array, proximal: float, gradient: Array) -> float:
    """FedProx's term of the loss; its gradient is added to `gradient`, float32 (n,), in place."""
    moved = learnt - start
    term = proximal / 2 * float(moved @ moved)
    moved *= np.float32(proximal)
    gradient += moved
    return term


def _flattened(params: Params) -> tuple[Array, Params]:
    """(a copy of all numbers in one float32 array, views of it with the shapes of `params`)."""
    flat = np.concatenate([array.ravel() for array in params.values()])
    ends = np.cumsum([array.size for array in params.values()])
    pairs = zip(params.items(), np.split(flat, ends[:-1]), strict=True)
    return flat, {name: view.reshape(array.shape) for (name, array), view in pairs}


def _skew(labels: NDArray[np.int64], n_classes: int, label_skew: str) -> tuple[Array, Array | None]:
    """(what is added to the logits, the classes' weights or None) for a client's labels.

    Both are float32 (num_classes,), or (1,) where the logits stay as they are.
    """
    counts: Array = np.bincount(labels, minlength=n_classes).astype(np.float32)
    if label_skew == "balance":
        return np.zeros(1, dtype=np.float32), np.reciprocal(np.maximum(counts, np.float32(1)))
    assert label_skew == "calibrate", label_skew
    # A class that the client lacks counts as half an example: with none its logit were infinite.
    shares: Array = np.maximum(counts, np.float32(0.5)) / counts.sum()
    return np.log(shares), None


def _leading(params: Params, share: float) -> Params:
    """Views of the parameters of the first neurons of each layer, a share of them."""
    subnet = leading_neurons(hidden_widths(params), share)
    picked: Params = {}
    for name, axes in param_axes(params).items():
        ends = [slice(None) if axis is None else slice(len(subnet.neurons[axis])) for axis in axes]
        picked[name] = params[name][tuple(ends)]
    return picked


def _batches(
    examples: Callable[[int], Examples],
    how: LocalTraining,
    rng: np.random.Generator,
    fixed: Params,
) -> Iterator[tuple[Array, NDArray[np.int64], Array]]:
    """(inputs, labels, logits of the anchor) of the batch of each step of a round."""
    left, number_of_pass = 1, 0
    while left > 0:
        values, labels = examples(number_of_pass)
        inputs, offset = classifier_inputs(fixed, values), anchor_logits(fixed, values)
        if number_of_pass == 0:
            left = how.count_steps(len(labels))
        order = rng.permutation(len(labels))
        for start in range(0, len(order), how.batch_size)[:left]:
            rows = order[start : start + how.batch_size]
            yield inputs[rows], labels[rows], offset[rows]
            left -= 1
        number_of_pass += 1


def evaluate(
    params: Params, embeddings: NDArray[np.float32], labels: NDArray[np.int64]
) -> tuple[float, float]:
    """(accuracy in [0, 1], mean cross-entropy) of the whole classifier, with inputs and anchor.

    embeddings: float32 (n, embed_dim); labels: int64 (n,).
    """
    logits = predict(params, embeddings)
    accuracy = (logits.argmax(axis=1) == labels).mean()
    return float(accuracy), cross_entropy(logits, labels)[0]


def predict(params: Params, embeddings: NDArray[np.float32]) -> Array:
    """The logits of the whole classifier, with inputs and anchor: float32 (n, num_classes).

    embeddings: float32 (n, embed_dim).
    """
    trained, fixed = trained_and_fixed(params)
    logits = anchor_logits(fixed, embeddings)
    if not trained:
        return logits
    return logits + forward(trained, classifier_inputs(fixed, embeddings), 1.0)
