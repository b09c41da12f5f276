"""The trainable classifier: an MLP, embed_dim -> hidden_dim (once or more) -> num_classes, ReLU.

Its parameters are a plain dict of float32 arrays, named and laid out as torch's `nn.Linear`:
`fc1.weight` (hidden, embed), `fc2.weight` (hidden, hidden), …, the last (classes, hidden), and the
biases. With a norm every hidden layer is normalised and, from the second on, added to what it got,
so that depth does not hinder training, as in the residual networks of the IST paper: layer l then
has `norm<l>.weight` and `norm<l>.bias` (hidden,), and for batch norm the running `norm<l>.mean` and
`norm<l>.var`, which are not trained but travel and are averaged like the rest.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Params = dict[str, NDArray[np.float32]]

NORMS = ("none", "batch", "layer")
RUNNING = (".mean", ".var")  # how the names of what gradients do not train end


class Shaped(Protocol):
    """An array or a tensor."""

    @property
    def shape(self) -> tuple[int, ...]: ...


def init_params(
    embed_dim: int,
    hidden_dim: int,
    num_classes: int,
    rng: np.random.Generator,
    hidden_layers: int = 2,
    norm: str = "none",
) -> Params:
    """torch's defaults: weights and biases uniform within 1 / sqrt(inputs), norms the identity."""
    widths = (embed_dim, *[hidden_dim] * hidden_layers, num_classes)
    params: Params = {}
    for name, shape in param_shapes(widths, norm).items():
        kind, _, entry = name.partition(".")
        if kind.startswith("norm"):
            fill = np.ones if entry in ("weight", "var") else np.zeros
            params[name] = fill(shape, dtype=np.float32)
        else:
            bound = 1 / math.sqrt(widths[int(kind.removeprefix("fc")) - 1])
            params[name] = rng.uniform(-bound, bound, shape).astype(np.float32)
    return params


def param_shapes(widths: Sequence[int], norm: str) -> dict[str, tuple[int, ...]]:
    """Name -> shape; widths: inputs, the neurons of each hidden layer, classes."""
    shapes: dict[str, tuple[int, ...]] = {}
    entries = {"none": (), "layer": ("weight", "bias"), "batch": ("weight", "bias", "mean", "var")}
    for layer, (n_in, n_out) in enumerate(pairwise(widths), start=1):
        shapes |= {f"fc{layer}.weight": (n_out, n_in), f"fc{layer}.bias": (n_out,)}
        if layer < len(widths) - 1:
            shapes |= {f"norm{layer}.{entry}": (n_out,) for entry in entries[norm]}
    return shapes


def layer_widths(params: Mapping[str, Shaped]) -> list[int]:
    """Inputs, the neurons of each hidden layer, classes."""
    weights = [params[f"fc{layer}.weight"].shape for layer in range(1, count_layers(params) + 1)]
    return [weights[0][1], *[shape[0] for shape in weights]]


def count_layers(names: Iterable[str]) -> int:
    """Linear layers of a classifier, by the names of its parameters."""
    return sum(name.startswith("fc") and name.endswith(".weight") for name in names)


def multiply_adds(params: Params) -> int:
    """Multiplications that training on one example takes: forward, and twice as many backward."""
    return 3 * sum(array.size for array in params.values() if array.ndim == 2)


def param_axes(names: Iterable[str]) -> dict[str, tuple[str | None, ...]]:
    """What each dimension of each parameter counts: the neurons of a hidden layer, or None.

    Neurons are what slices are made of: "h1" are those of the first hidden layer, so `fc2.weight`
    has the axes ("h2", "h1"). Inputs and classes are never sliced. Layers with norms are added up,
    neuron by neuron, so a slice has the same neurons of all: their axis is "h".
    """
    names = list(names)
    n_layers = count_layers(names)
    added = any(name.startswith("norm") for name in names)

    def neurons(layer: int) -> str | None:
        if not 0 < layer < n_layers:
            return None
        return "h" if added else f"h{layer}"

    axes: dict[str, tuple[str | None, ...]] = {}
    for name in names:
        kind, _, entry = name.partition(".")
        layer = int(kind.removeprefix("fc").removeprefix("norm"))
        is_matrix = kind.startswith("fc") and entry == "weight"
        axes[name] = (neurons(layer), neurons(layer - 1)) if is_matrix else (neurons(layer),)
    return axes


def hidden_widths(params: Mapping[str, Shaped]) -> dict[str, int]:
    """The number of neurons on each axis that can be sliced."""
    return {
        axis: params[name].shape[i]
        for name, axes in param_axes(params).items()
        for i, axis in enumerate(axes)
        if axis is not None
    }
