"""Slices of the classifier: cut out a dense sub-MLP of some hidden neurons, write it back.

Independent Subnetwork Training deals each layer into disjoint groups (Yuan et al., "Distributed
Learning of Deep Neural Networks using Independent Subnet Training", VLDB 2022). Two things are
ours: biases are synchronised (a hidden neuron's bias travels with it, the output bias, which all
groups share, is averaged), and clients may share a group. Slices that overlap, as those of
Federated Dropout or HeteroFL do, are merged by the same rule: each weight becomes the mean of what
came back for it.

Example, hidden_dim 4 and 2 groups: one group may get the neurons (0, 3) of the first hidden layer
and (1, 2) of the second. Its sub-MLP has `fc1.weight[[0, 3]]`, `fc2.weight[[1, 2]][:, [0, 3]]` and
`fc3.weight[:, [1, 2]]`. Weights between neurons of different groups rest in this round.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fed_ist.heads import Params, param_axes


@dataclass(frozen=True, eq=False)
class Subnet:
    """Which neurons a slice has: axis (see `heads.param_axes`) -> ascending int64 indices."""

    units: Mapping[str, NDArray[np.int64]]

    def share(self, widths: Mapping[str, int]) -> float:
        """Its part of the neurons, in (0, 1]; the mean where its axes differ."""
        return float(np.mean([len(rows) / widths[axis] for axis, rows in self.units.items()]))


def extract(params: Params, subnet: Subnet) -> Params:
    """The dense sub-MLP of a slice; copies, never views."""
    # numpy lays columns picked by index out in Fortran order, and products of such matrices are
    # rounded otherwise than those of the same matrices after a journey.
    return {
        name: np.array(params[name][picked(axes, subnet)], order="C")
        for name, axes in param_axes(params).items()
    }


def merge(params: Params, returned: Sequence[tuple[Subnet, Params, int]]) -> Params:
    """Write returned slices into a copy of the parameters, each weight as the mean of its replies.

    returned: (subnet, its trained parameters, number of examples, by which the mean is weighted)
    for each reply. What nobody returned keeps its value. Summed in float64, where a float32 times a
    whole number below 2**29 is exact, so that a weight from a single reply is that reply's, bit for
    bit.
    """
    merged: Params = {}
    for name, axes in param_axes(params).items():
        total = np.zeros(params[name].shape, dtype=np.float64)
        weight = np.zeros(params[name].shape, dtype=np.float64)
        for subnet, slice_, n_examples in returned:
            where = picked(axes, subnet)
            total[where] += slice_[name].astype(np.float64) * n_examples
            weight[where] += n_examples
        mean = total / np.maximum(weight, 1)
        merged[name] = np.where(weight > 0, mean, params[name]).astype(np.float32)
    return merged


def picked(axes: tuple[str | None, ...], subnet: Subnet) -> Any:
    """What picks a slice out of an array with these axes, in one step of indexing."""
    rows = [slice(None) if axis is None else subnet.units[axis] for axis in axes]
    if not any(axis is None for axis in axes):
        return np.ix_(*rows)
    return tuple(rows)  # at most one axis is dealt here, so no two index arrays meet


def slice_bytes(
    embed_dim: int,
    hidden_dim: int,
    num_classes: int,
    n_groups: int,
    hidden_layers: int = 2,
    norm: str = "none",
) -> float:
    """Payload of one slice in float32, by formula: 4 (dh/W + (L-1) h²/W² + Lh/W + Ch/W + C) bytes.

    Layer norm adds 8 Lh/W, batch norm 16 Lh/W.
    """
    width = hidden_dim / n_groups
    by_neuron = embed_dim + num_classes + (hidden_layers - 1) * width
    by_neuron += hidden_layers * {"none": 1, "layer": 3, "batch": 5}[norm]
    return 4 * (by_neuron * width + num_classes)
