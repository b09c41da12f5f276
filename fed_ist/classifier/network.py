"""The classifier's logits and gradients, on plain arrays.

They are written in numpy for two reasons: a node would import torch in each round, which takes
longer than training a slice; and on slices of a few hundred neurons torch's bookkeeping takes
longer than their multiplications. tests/classifier/test_network.py compares both with torch's.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fed_ist.classifier.layout import count_layers

Array = NDArray[np.float32]

NORM_EPSILON = np.float32(1e-5)  # added to variances, as torch does
MOMENTUM = np.float32(0.1)  # weight of a batch in batch norm's running moments, as torch has it


@dataclass(frozen=True)
class Normalised:
    """What the backward pass of a norm needs of the forward pass.

    values: float32 (N, n), of mean 0 and variance 1 along the axis.
    by: the factor that made the variance 1, float32 (N, 1), (1, n) or (n,).
    axis: along which mean and variance were taken; None where the running ones were used.
    """

    values: Array
    by: Array
    axis: int | None


@dataclass(frozen=True)
class Layer:
    """What the backward pass of a layer needs of the forward pass.

    given: its input, float32 (N, n_in).
    found: the output of its neurons, float32 (N, n_out), before the input was added.
    normalised: of its norm; None where it has none.
    """

    given: Array
    found: Array
    normalised: Normalised | None


def forward(
    params: Mapping[str, Array], inputs: Array, scale: float, training: bool = False
) -> Array:
    """The logits of the classifier without its anchor: float32 (N, num_classes).

    inputs: float32 (N, embed_dim), see `anchors.classifier_inputs`.
    scale: multiplies what each hidden layer passes on. A slice with a share 1/W of the neurons
    trains with scale W, so that its sums are as large as those of the whole network (inverted
    dropout).
    training: whether batch norm uses the mean and variance of the batch and updates the running
    ones in place, or uses the running ones.
    """
    return trace(params, inputs, scale, training)[0]


def trace(
    params: Mapping[str, Array], inputs: Array, scale: float, training: bool
) -> tuple[Array, list[Layer]]:
    """The logits float32 (N, num_classes), and what `backward` needs of each layer.

    The arguments are those of `forward`. Of the last layer, `given` alone is of use.
    """
    n_layers, layers, values = count_layers(params), [], inputs
    for layer in range(1, n_layers):
        given = _scaled(values, scale) if layer > 1 else values
        sums = given @ params[f"fc{layer}.weight"].T
        sums += params[f"fc{layer}.bias"]
        normalised = None
        if f"norm{layer}.weight" in params:
            normalised = _normalise(params, f"norm{layer}", sums, training)
            sums = normalised.values * params[f"norm{layer}.weight"]
            sums += params[f"norm{layer}.bias"]
        found = np.maximum(sums, 0, out=sums)
        layers.append(Layer(given, found, normalised))
        values = found if normalised is None or layer == 1 else values + found
    given = _scaled(values, scale) if n_layers > 1 else values
    layers.append(Layer(given, given, None))
    last = f"fc{n_layers}"
    return given @ params[f"{last}.weight"].T + params[f"{last}.bias"], layers


def backward(
    params: Mapping[str, Array],
    layers: list[Layer],
    scale: float,
    gradient: Array,
    into: Mapping[str, Array],
) -> None:
    """Write the gradient of each trained parameter to the array of its name in `into`.

    layers: the second result of `trace`.
    gradient: of the loss by the logits, float32 (N, num_classes).
    into: arrays of the parameters' shapes, which are overwritten.
    """
    found = gradient  # of the output of the layer at hand
    for number in range(len(layers), 0, -1):
        layer, name = layers[number - 1], f"fc{number}"
        passed = None  # the gradient that goes past this layer to its input
        if number < len(layers):
            passed = found
            found = found * (layer.found > 0)
            if layer.normalised is not None:
                found = _through_norm(params, f"norm{number}", layer.normalised, found, into)
        np.matmul(found.T, layer.given, out=into[f"{name}.weight"])
        found.sum(axis=0, out=into[f"{name}.bias"])
        if number > 1:
            found = _scaled(found @ params[f"{name}.weight"], scale)
            if passed is not None and layer.normalised is not None:
                found += passed


def _scaled(values: Array, scale: float) -> Array:
    return values if scale == 1 else values * np.float32(scale)


def _normalise(params: Mapping[str, Array], name: str, sums: Array, training: bool) -> Normalised:
    if f"{name}.mean" not in params:
        return _by_moments(sums, axis=1)
    mean, var = params[f"{name}.mean"], params[f"{name}.var"]
    # The last batch of a pass may be a single example, which has no variance.
    if not training or len(sums) == 1:
        by = 1 / np.sqrt(var + NORM_EPSILON)
        return Normalised((sums - mean) * by, by, None)
    n = len(sums)
    mean += MOMENTUM * (sums.mean(axis=0) - mean)
    var += MOMENTUM * (sums.var(axis=0) * np.float32(n / (n - 1)) - var)
    return _by_moments(sums, axis=0)


def _by_moments(sums: Array, axis: int) -> Normalised:
    centred = sums - sums.mean(axis=axis, keepdims=True)
    by = 1 / np.sqrt((centred**2).mean(axis=axis, keepdims=True) + NORM_EPSILON)
    return Normalised(centred * by, by, axis)


def _through_norm(
    params: Mapping[str, Array],
    name: str,
    normalised: Normalised,
    gradient: Array,
    into: Mapping[str, Array],
) -> Array:
    """The gradient by the input of a norm, from that by its output, both float32 (N, n).

    The gradients of the norm's weight and bias are written to `into`.
    """
    values, axis = normalised.values, normalised.axis
    (gradient * values).sum(axis=0, out=into[f"{name}.weight"])
    gradient.sum(axis=0, out=into[f"{name}.bias"])
    found = gradient * params[f"{name}.weight"]
    if axis is not None:  # the moments moved with the sums
        along = (found * values).mean(axis=axis, keepdims=True)
        found = found - found.mean(axis=axis, keepdims=True) - values * along
    through: Array = found * normalised.by
    return through
