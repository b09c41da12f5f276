"""The trainable classifier, embed_dim -> hidden_dim -> hidden_dim -> num_classes with ReLU.

Its parameters are a plain dict of float32 arrays, named and laid out as torch's `nn.Linear`:
`fc1.weight` (hidden, embed), `fc2.weight` (hidden, hidden), `fc3.weight` (classes, hidden) and the
three biases.
"""

import math
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Params = dict[str, NDArray[np.float32]]


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


def hidden_widths(params: Params) -> tuple[int, int]:
    """The widths of the two hidden layers."""
    return len(params["fc1.bias"]), len(params["fc2.bias"])
