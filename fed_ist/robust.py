"""What a few replies may do to the classifier, whoever sent them."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fed_ist.heads import RUNNING, Params

# How far training may take a slice: the root mean square of its change, times that of the slice as
# it came. Of trainings that learn anything the largest was 5 (50 epochs of Adam at 0.01, ten times
# the usual rate), of those at 0.1, which learn nothing any more, 51; at 1 they diverge. SGD stayed
# below 2, until it diverged. A silent last layer makes no difference, since the others are not 0.
MOST_CHANGE = 100.0
# The same of batch norm's running moments, which are what the embeddings make them.
MOST_MOMENT_CHANGE = 1e6


def require_possible_change(trained: Params, sent: Params, noise: float = 0.0) -> None:
    """Raise `ValueError` for a slice that training cannot have made of the one that was sent.

    noise: the deviation of what the node was asked to add to each number.
    """
    for names, most in (
        ([name for name in sent if not name.endswith(RUNNING)], MOST_CHANGE),
        ([name for name in sent if name.endswith(RUNNING)], MOST_MOMENT_CHANGE),
    ):
        change = root_mean_square(trained[n].astype(np.float64) - sent[n] for n in names)
        before = root_mean_square(sent[n] for n in names)
        if change > most * max(before, noise):
            raise ValueError(
                f"it differs from what was sent by {change:.3g} (root mean square), more than "
                f"{most:g} times what was sent ({before:.3g})"
            )


def root_mean_square(arrays: Iterable[NDArray[np.floating[Any]]]) -> float:
    """Over all numbers of all arrays; 0 for none."""
    size, total = 0, 0.0
    for array in arrays:
        size += array.size
        total += float(np.square(array, dtype=np.float64).sum())
    return math.sqrt(total / max(1, size))
