"""Limits to the harm that a few replies can do to the classifier, whoever sent them.

A reply that training cannot have made is refused (`require_possible_change`). Merging can shorten a
node's change that is larger than those of others (`clip_changes`), and, where several nodes have
the same weight, leave out the extremes of each weight (`trimmed_mean`).
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

Returned = Sequence[tuple[Subnet, Params, int]]  # subnet, its trained parameters, its weight

# How far training may take a slice: the root mean square of its change, over that of the slice as
# it was sent. The largest of trainings that learn anything was 5 (50 epochs of Adam at 0.01, ten
# times the usual rate); at 0.1, where nothing is learnt any more, it was 51; at 1 they diverge. SGD
# stayed below 2 until it diverged. A slice of zeros, as a linear head beside an anchor is at first,
# counts as large as one that is drawn.
MOST_CHANGE = 100.0
# The same for batch norm's running moments, which may be as large as the embeddings make them.
MOST_MOMENT_CHANGE = 1e6


def require_possible_change(trained: Params, sent: Params, noise: float = 0.0) -> None:
    """Raise `ValueError` for a slice that training cannot have made of the one that was sent.

    trained, sent: float32 arrays of the same names and shapes.
    noise: the standard deviation of the noise that the node was asked to add to each number.
    """
    drawn = min(1 / math.sqrt(3 * array.shape[1]) for array in sent.values() if array.ndim == 2)
    for names, most, least in (
        ([name for name in sent if not name.endswith(RUNNING)], MOST_CHANGE, drawn),
        ([name for name in sent if name.endswith(RUNNING)], MOST_MOMENT_CHANGE, 0.0),
    ):
        change = root_mean_square(trained[n].astype(np.float64) - sent[n] for n in names)
        before = max(least, root_mean_square(sent[n] for n in names))
        if change > most * max(before, noise):
            raise ValueError(
                f"it differs from what was sent by {change:.3g} (root mean square), more than "
                f"{most:g} times what was sent ({before:.3g})"
            )


def clip_changes(params: Params, returned: Returned, times: float) -> Returned:
    """The same replies, with changes that are much larger than those of others shortened.

    params: the whole classifier as it was sent, float32. returned: a reply's slice has the shapes
    that `slices.extract` gives for its subnet.
    The size of a change is its root mean square, since slices may differ in size. A change larger
    than `times` the median size (see `low_median`) is multiplied by the factor that makes it that
    large. Other replies stay as they are, bit for bit.
    Source: Sun et al., "Can You Really Backdoor Federated Learning?" (2019), whose limit is fixed;
    the median comes from Andrew et al., "Differentially Private Learning with Adaptive Clipping"
    (NeurIPS 2021), who estimate it privately.
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
    """The merged parameters, each weight the mean of its values without the extreme ones.

    params: the whole classifier before the round, float32; the result has the same shapes.
    share: in [0, 0.5]. Of the m replies that have a weight, the ceil(share m) largest values and
    the ceil(share m) smallest are left out, but one or two in the middle always stay: 0.5 gives the
    median. All replies count alike, since nodes state their numbers of examples themselves. A
    weight that nobody returned keeps its value; one from a single reply is that reply's, bit for
    bit.
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
    """Makes the next parameters of slices as `slices.Merger` does, with limits to each reply.

    clip_norm: `times` of `clip_changes`; 0 for no clipping. trim_share: `share` of `trimmed_mean`;
    None for no trimming. With either of them all nodes count alike, so that a node gains nothing by
    stating more examples. Medians need all replies at once, so they are kept until the end.
    """

    def __init__(self, params: Params, clip_norm: float, trim_share: float | None) -> None:
        self._params, self._clip_norm, self._trim_share = params, clip_norm, trim_share
        self._returned: list[tuple[Subnet, Params, int]] = []

    def add(self, subnet: Subnet, slice_: Params, weight: int) -> None:
        """Add one reply: a subnet, its trained parameters, float32, and its number of examples."""
        is_mean = not self._clip_norm and self._trim_share is None
        self._returned.append((subnet, slice_, weight if is_mean else 1))

    def agreements(self) -> list[float]:
        """The agreement of each reply with the others (see `dissent`), in the order of adding."""
        changes = (
            direction(extract(self._params, subnet), slice_) for subnet, slice_, _ in self._returned
        )
        return agreements(changes)

    def leave_out(self, places: Collection[int]) -> None:
        """Drop the replies at these places in the order of adding."""
        self._returned = [r for i, r in enumerate(self._returned) if i not in places]

    def merged(self) -> Params:
        """The parameters with all replies, new float32 arrays of the same shapes."""
        params, returned = self._params, self._returned
        if self._clip_norm and returned:
            returned = list(clip_changes(params, returned, self._clip_norm))
        if self._trim_share is None:
            return merge(params, returned)
        return trimmed_mean(params, returned, self._trim_share)


def root_mean_square(arrays: Iterable[NDArray[np.floating[Any]]]) -> float:
    """The root mean square of all numbers of all arrays, of any shapes; 0 for no arrays."""
    size, total = 0, 0.0
    for array in arrays:
        size += array.size
        total += float(np.square(array, dtype=np.float64).sum())
    return math.sqrt(total / max(1, size))
