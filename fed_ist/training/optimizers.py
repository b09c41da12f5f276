"""The optimisers of local training, over all parameters as one array.

A step works on one piece of the array after another: Adam makes a dozen passes over the numbers,
and those of a piece stay in the processor's cache.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
# The step takes the gradient, float32 (n,), which it may overwrite, and the learning rate.
Step = Callable[[Array, float], None]

PIECE = 65536  # numbers
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8


def _adam(params: Array) -> Step:
    """Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015; torch's defaults.

    Both moments are kept as sums, without the factors 1 - beta. These factors and the corrections
    for the start at 0 are put into the step's size and into epsilon, which gives the same result in
    fewer passes.
    """
    sums, squares = np.zeros_like(params), np.zeros_like(params)
    scratch = np.empty(min(PIECE, params.size), dtype=np.float32)
    number = 0

    def step(gradient: Array, rate: float) -> None:
        nonlocal number
        number += 1
        root = math.sqrt((1 - BETA_2**number) / (1 - BETA_2))
        size = np.float32(rate * root * (1 - BETA_1) / (1 - BETA_1**number))
        for start in range(0, params.size, PIECE):
            piece = slice(start, start + PIECE)
            move = scratch[: params[piece].size]
            squares[piece] *= np.float32(BETA_2)
            squares[piece] += np.multiply(gradient[piece], gradient[piece], out=move)
            sums[piece] *= np.float32(BETA_1)
            sums[piece] += gradient[piece]
            np.sqrt(squares[piece], out=move)
            move += np.float32(EPSILON * root)
            np.divide(sums[piece], move, out=move)
            move *= size
            params[piece] -= move

    return step


def _sgd(params: Array) -> Step:
    def step(gradient: Array, rate: float) -> None:
        gradient *= np.float32(rate)
        np.subtract(params, gradient, out=params)

    return step


# Name -> a function that, for an array of parameters, float32 (n,), gives the step that changes it
# in place.
OPTIMIZERS: dict[str, Callable[[Array], Step]] = {"adam": _adam, "sgd": _sgd}
