"""Independent Subnetwork Training: deal the hidden neurons, cut out a sub-MLP, write it back.

After Yuan et al., "Distributed Learning of Deep Neural Networks using Independent Subnet Training"
(VLDB 2022). Two things are ours: biases are synchronised (a hidden neuron's bias travels with it,
the output bias, which all groups share, is averaged), and clients may share a group.

Example, hidden_dim 4 and 2 groups: one group may get the neurons (0, 3) of the first hidden layer
and (1, 2) of the second. Its sub-MLP has `fc1.weight[[0, 3]]`, `fc2.weight[[1, 2]][:, [0, 3]]` and
`fc3.weight[:, [1, 2]]`. Weights between neurons of different groups rest in this round.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fed_ist.errors import InputError
from fed_ist.heads import Params


@dataclass(frozen=True, eq=False)
class Subnet:
    """The hidden neurons of one group: ascending int64 indices for each hidden layer."""

    group: int
    units1: NDArray[np.int64]
    units2: NDArray[np.int64]


def partition_units(
    widths: tuple[int, int], n_groups: int, rng: np.random.Generator
) -> list[Subnet]:
    """Deal both hidden layers into disjoint random groups whose sizes differ by one at most.

    Raises `InputError` where a layer has fewer neurons than there are groups.
    """
    if not 1 <= n_groups <= min(widths):
        raise InputError(
            f"hidden-dim = {min(widths)} is smaller than the number of groups ({n_groups}): each "
            "group needs a neuron. Use a larger hidden-dim or fewer groups."
        )
    dealt = [np.array_split(rng.permutation(width), n_groups) for width in widths]
    return [
        Subnet(group, np.sort(units1), np.sort(units2))
        for group, (units1, units2) in enumerate(zip(*dealt, strict=True))
    ]


def extract(params: Params, subnet: Subnet) -> Params:
    """The dense sub-MLP of a group; copies, never views."""
    units1, units2 = subnet.units1, subnet.units2
    slice_ = {
        "fc1.weight": params["fc1.weight"][units1],
        "fc1.bias": params["fc1.bias"][units1],
        "fc2.weight": params["fc2.weight"][np.ix_(units2, units1)],
        "fc2.bias": params["fc2.bias"][units2],
        "fc3.weight": params["fc3.weight"][:, units2],
        "fc3.bias": params["fc3.bias"].copy(),
    }
    # numpy lays columns picked by index out in Fortran order, and torch, which would keep that,
    # multiplies such matrices with other roundings.
    return {name: np.ascontiguousarray(array) for name, array in slice_.items()}


def merge(params: Params, returned: Sequence[tuple[Subnet, Params, int]]) -> Params:
    """Write returned slices back into a copy of the global parameters.

    returned: (subnet, its trained parameters, number of examples) for each reply. Replies of the
    same group are averaged, weighted by examples; so is the output bias over all replies. Neurons
    of a group without a reply keep their values.
    """
    merged = {name: array.copy() for name, array in params.items()}
    by_group: dict[int, list[tuple[Subnet, Params, int]]] = {}
    for reply in returned:
        by_group.setdefault(reply[0].group, []).append(reply)
    for replies in by_group.values():
        units1, units2 = replies[0][0].units1, replies[0][0].units2
        mean = average([(slice_, n_examples) for _, slice_, n_examples in replies])
        merged["fc1.weight"][units1] = mean["fc1.weight"]
        merged["fc1.bias"][units1] = mean["fc1.bias"]
        merged["fc2.weight"][np.ix_(units2, units1)] = mean["fc2.weight"]
        merged["fc2.bias"][units2] = mean["fc2.bias"]
        merged["fc3.weight"][:, units2] = mean["fc3.weight"]
    if returned:
        biases = [({"fc3.bias": slice_["fc3.bias"]}, n) for _, slice_, n in returned]
        merged["fc3.bias"] = average(biases)["fc3.bias"]
    return merged


def average(weighted: Sequence[tuple[Params, int]]) -> Params:
    """The mean of parameters of one shape, weighted by whole numbers.

    Summed in float64, where a float32 times a whole number below 2**29 is exact, so that the mean
    of a single entry is that entry, bit for bit.
    """
    total = sum(weight for _, weight in weighted)
    mean: Params = {}
    for name, first in weighted[0][0].items():
        summed = np.zeros(first.shape, dtype=np.float64)
        for params, weight in weighted:
            summed += params[name].astype(np.float64) * weight
        mean[name] = (summed / total).astype(np.float32)
    return mean


def slice_bytes(embed_dim: int, hidden_dim: int, num_classes: int, n_groups: int) -> float:
    """Payload of one slice in float32, by formula: 4 (dh/W + h²/W² + 2h/W + Ch/W + C) bytes."""
    width = hidden_dim / n_groups
    return 4 * (embed_dim * width + width**2 + 2 * width + num_classes * width + num_classes)
