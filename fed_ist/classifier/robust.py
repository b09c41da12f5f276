"""How little a few replies may do to the classifier, whoever sent them.

Each reply is held against what training can do. Where several nodes have the same weight, merging
can also leave out the extremes of each weight (`trimmed_mean`), and in any case hold each node's
change against those of the others (`clip_changes`).
"""

import math
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fed_ist.classifier.dissent import agreements, direction
from fed_ist.classifier.layout import RUNNING, Params, param_axes
from fed_ist.classifier.node_weights import low_median
from fed_ist.classifier.slices import Subnet, extract, merge, picked

Returned = Sequence[tuple[Subnet, Params, int]]  # as of `slices.merge`

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


def clip_changes(params: Params, returned: Returned, times: float) -> Returned:
    """The same replies, none of which changes its slice by more than others do.

    A change that is larger than `times` the median of all, the smaller one of two in the middle, is
    made as large as that, by one factor for all its numbers. Its size is its root mean square,
    since slices may be of many sizes. A smaller one stays as it is, bit for bit.
    Source: Sun et al., "Can You Really Backdoor Federated Learning?" (2019), whose limit is fixed;
    the median comes from Andrew et al., "Differentially Private Learning with Adaptive Clipping"
    (NeurIPS 2021), which estimates it in private.
    """
    before = [extract(params, subnet) for subnet, _, _ in returned]
    sizes = [
        root_mean_square(trained[n].astype(np.float64) - sent[n] for n in sent)
        for sent, (_, trained, _) in zip(before, returned, strict=True)
    ]
    limit = times * low_median(sizes)
    clipped = []
    for sent, size, (subnet, trained, n_examples) in zip(before, sizes, returned, strict=True):
        if size > limit:
            factor = np.float32(limit / size)
            trained = {n: sent[n] + factor * (trained[n] - sent[n]) for n in sent}
        clipped.append((subnet, trained, n_examples))
    return clipped


def trimmed_mean(params: Params, returned: Returned, share: float) -> Params:
    """As `slices.merge`, but each weight becomes the mean of what is left without its extremes.

    Of m replies that have a weight, the ceil(share m) largest values and as many of the smallest
    are left out, though one or two in the middle always stay: share 0.5 is the median. Numbers of
    examples count for nothing: they are what nodes say of themselves. What nobody returned keeps
    its value; a weight from a single reply is that reply's, bit for bit.
    Source: Yin et al., "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates"
    (ICML 2018), definition 2.
    """
    merged: Params = {}
    for name, axes in param_axes(params).items():
        values = np.full((len(returned), *params[name].shape), np.nan, dtype=np.float32)
        for row, (subnet, trained, _) in zip(values, returned, strict=True):
            row[picked(axes, subnet, row.shape)] = trained[name]
        values.sort(axis=0)  # NaN, where a reply lacks a weight, comes last
        counts = np.isfinite(values).sum(axis=0)
        # 0.29 of 100 is more than 29 in floating point, and none of it must be left out twice.
        cut = np.minimum(np.ceil(share * counts - 1e-9), (counts - 1) // 2)
        place = np.arange(len(returned)).reshape(-1, *[1] * params[name].ndim)
        is_kept = (place >= cut) & (place < counts - cut)
        total = values.sum(axis=0, dtype=np.float64, where=is_kept)
        mean = total / np.maximum(is_kept.sum(axis=0), 1)
        merged[name] = np.where(counts > 0, mean, params[name]).astype(np.float32)
    return merged


class RobustMerger:
    """As `slices.Merger`, by `clip_changes` (unless `clip_norm` is 0) and by `trimmed_mean` (unless
    `trim_share` is None). All nodes count alike then: how much one changes is bounded, and what it
    says of itself does not come into it. Medians need all replies at once, so it keeps them.
    """

    def __init__(self, params: Params, clip_norm: float, trim_share: float | None) -> None:
        self._params, self._clip_norm, self._trim_share = params, clip_norm, trim_share
        self._returned: list[tuple[Subnet, Params, int]] = []

    def add(self, subnet: Subnet, slice_: Params, weight: int) -> None:
        """As of `ist.Merger.add`."""
        is_mean = not self._clip_norm and self._trim_share is None
        self._returned.append((subnet, slice_, weight if is_mean else 1))

    def agreements(self) -> list[float]:
        """Of each reply, in the order in which they were added, as of `dissent.agreements`."""
        changes = (
            direction(extract(self._params, subnet), slice_) for subnet, slice_, _ in self._returned
        )
        return agreements(changes)

    def leave_out(self, places: Collection[int]) -> None:
        """Do as if these replies, by the order in which they were added, had not come."""
        self._returned = [r for i, r in enumerate(self._returned) if i not in places]

    def merged(self) -> Params:
        params, returned = self._params, self._returned
        if self._clip_norm and returned:
            returned = list(clip_changes(params, returned, self._clip_norm))
        if self._trim_share is None:
            return merge(params, returned)
        return trimmed_mean(params, returned, self._trim_share)


def root_mean_square(arrays: Iterable[NDArray[np.floating[Any]]]) -> float:
    """Over all numbers of all arrays; 0 for none."""
    size, total = 0, 0.0
    for array in arrays:
        size += array.size
        total += float(np.square(array, dtype=np.float64).sum())
    return math.sqrt(total / max(1, size))
