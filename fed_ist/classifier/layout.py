"""The trainable classifier: an MLP, embed_dim -> hidden_dim (once or more) -> num_classes, ReLU.

Its parameters are a plain dict of float32 arrays, named and laid out as torch's `nn.Linear`:
`fc1.weight` (hidden, embed), `fc2.weight` (hidden, hidden), …, the last (classes, hidden), and the
biases. With a norm, every hidden layer is normalised, and from the second on its output is added to
its input, so that depth does not hinder training, as in the residual networks of the IST paper.
Layer l then has `norm<l>.weight` and `norm<l>.bias` (hidden,), and with batch norm also the running
`norm<l>.mean` and `norm<l>.var`, which are not trained but are sent and averaged like the others.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Params = dict[str, NDArray[np.float32]]

NORMS = ("none", "batch", "layer")
RUNNING = (".mean", ".var")  # endings of the names of parameters that gradients do not train


class Shaped(Protocol):
    """Anything with a `shape`: a numpy array or a torch tensor."""

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
    """A new classifier, initialised by torch's defaults; the shapes are those of `param_shapes`.

    Weights and biases are uniform within 1 / sqrt(inputs of their layer), norms are the identity. A
    linear head begins as zeros: there is no hidden layer whose neurons have to differ, and zeros
    take next to no bytes on their way to the nodes.
    """
    widths = (embed_dim, *[hidden_dim] * hidden_layers, num_classes)
    params: Params = {}
    for name, shape in param_shapes(widths, norm).items():
        kind, _, entry = name.partition(".")
        if kind.startswith("norm"):
            fill = np.ones if entry in ("weight", "var") else np.zeros
            params[name] = fill(shape, dtype=np.float32)
        else:
            bound = 1 / math.sqrt(widths[int(kind.removeprefix("fc")) - 1]) if hidden_layers else 0
            params[name] = rng.uniform(-bound, bound, shape).astype(np.float32)
    return params


def param_shapes(widths: Sequence[int], norm: str) -> dict[str, tuple[int, ...]]:
    """The shape of each parameter by its name.

    widths: the number of inputs, of neurons in each hidden layer, and of classes.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    entries = {"none": (), "layer": ("weight", "bias"), "batch": ("weight", "bias", "mean", "var")}
    for layer, (n_in, n_out) in enumerate(pairwise(widths), start=1):
        shapes |= {f"fc{layer}.weight": (n_out, n_in), f"fc{layer}.bias": (n_out,)}
        if layer < len(widths) - 1:
            shapes |= {f"norm{layer}.{entry}": (n_out,) for entry in entries[norm]}
    return shapes


def layer_widths(params: Mapping[str, Shaped]) -> list[int]:
    """The number of inputs, of neurons in each hidden layer, and of classes."""
    weights = [params[f"fc{layer}.weight"].shape for layer in range(1, count_layers(params) + 1)]
    return [weights[0][1], *[shape[0] for shape in weights]]


def count_layers(names: Iterable[str]) -> int:
    """The number of linear layers of a classifier, by the names of its parameters."""
    return sum(name.startswith("fc") and name.endswith(".weight") for name in names)


def multiply_adds(params: Params) -> int:
    """Multiply-adds of training on one example: one forward and two backward for each weight.

    params: arrays of any shapes; the matrices count.
    """
    return 3 * sum(array.size for array in params.values() if array.ndim == 2)


def param_axes(names: Iterable[str]) -> dict[str, tuple[str | None, ...]]:
    """The axis that each dimension of each parameter belongs to, or None: name -> axes.

    An axis is a set of neurons from which slices choose: "h1" are the neurons of the first hidden
    layer, so `fc2.weight` has the axes ("h2", "h1"). Dimensions of inputs and classes have None, as
    these are never sliced. With norms, the outputs of all hidden layers are added up neuron by
    neuron, so a slice needs the same neurons of every layer: these share the one axis "h".
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
    """The number of neurons of each axis, see `param_axes`."""
    return {
        axis: params[name].shape[i]
        for name, axes in param_axes(params).items()
        for i, axis in enumerate(axes)
        if axis is not None
    }
