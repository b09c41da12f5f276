"""The optimisers of local training, over all parameters as one array.

In pieces, as a step of Adam makes a dozen passes over the numbers, which are then in the cache.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Step = Callable[[Array, float], None]  # the gradient, which it may overwrite, and the learning rate

PIECE = 65536  # numbers
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8


def _adam(params: Array) -> Step:
    """Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015; torch's defaults.

    Both moments are kept as sums, without the factors 1 - beta; these, and the corrections for the
    start at 0, are in the step's size and in epsilon, which comes to the same in fewer passes.
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
            part = scratch[: params[piece].size]
            squares[piece] *= np.float32(BETA_2)
            squares[piece] += np.multiply(gradient[piece], gradient[piece], out=part)
            sums[piece] *= np.float32(BETA_1)
            sums[piece] += gradient[piece]
            np.sqrt(squares[piece], out=part)
            part += np.float32(EPSILON * root)
            np.divide(sums[piece], part, out=part)
            part *= size
            params[piece] -= part

    return step


def _sgd(params: Array) -> Step:
    def step(gradient: Array, rate: float) -> None:
        gradient *= np.float32(rate)
        np.subtract(params, gradient, out=params)

    return step


# Name -> what makes the step that changes an array of parameters, float32 (n,), in place.
OPTIMIZERS: dict[str, Callable[[Array], Step]] = {"adam": _adam, "sgd": _sgd}
