"""The trainable classifier, embed_dim -> hidden_dim -> hidden_dim -> num_classes with ReLU.

Its parameters are a plain dict of float32 arrays, named and laid out as torch's `nn.Linear`:
`fc1.weight` (hidden, embed), `fc2.weight` (hidden, hidden), `fc3.weight` (classes, hidden) and the
three biases.
"""

import math
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Params = dict[str, NDArray[np.float32]]


class Shaped(Protocol):
    """An array or a tensor."""

    @property
    def shape(self) -> tuple[int, ...]: ...


def init_params(
    embed_dim: int, hidden_dim: int, num_classes: int, rng: np.random.Generator
) -> Params:
    """torch's default for `nn.Linear`: everything uniform within 1 / sqrt(inputs)."""
    widths = (embed_dim, hidden_dim, hidden_dim, num_classes)
    params: Params = {}
    for layer, (n_in, n_out) in enumerate(pairwise(widths), start=1):
        bound = 1 / math.sqrt(n_in)
        params[f"fc{layer}.weight"] = rng.uniform(-bound, bound, (n_out, n_in)).astype(np.float32)
        params[f"fc{layer}.bias"] = rng.uniform(-bound, bound, n_out).astype(np.float32)
    return params


def param_axes(names: Iterable[str]) -> dict[str, tuple[str | None, ...]]:
    """What each dimension of each parameter counts: the neurons of a hidden layer, or None.

    Neurons are what slices are made of: "h1" are those of the first hidden layer, so `fc2.weight`
    has the axes ("h2", "h1"). Inputs and classes are never sliced.
    """
    layers = sorted({int(name[2:].split(".")[0]) for name in names})

    def neurons(layer: int) -> str | None:
        return f"h{layer}" if 0 < layer < layers[-1] else None

    axes: dict[str, tuple[str | None, ...]] = {}
    for layer in layers:
        axes[f"fc{layer}.weight"] = (neurons(layer), neurons(layer - 1))
        axes[f"fc{layer}.bias"] = (neurons(layer),)
    return axes


def hidden_widths(params: Mapping[str, Shaped]) -> dict[str, int]:
    """The number of neurons on each axis that can be sliced."""
    return {
        axis: params[name].shape[i]
        for name, axes in param_axes(params).items()
        for i, axis in enumerate(axes)
        if axis is not None
    }
