"""Slices of the classifier: a dense sub-MLP of some hidden neurons is cut out and written back.

Independent Subnetwork Training deals each layer into disjoint groups (Yuan et al., "Distributed
Learning of Deep Neural Networks using Independent Subnet Training", VLDB 2022). Two things are
ours: biases are synchronised (a hidden neuron's bias travels with it; the output bias, which all
groups share, is averaged), and clients may share a group. Slices that overlap, as those of
Federated Dropout or HeteroFL do, are merged by the same rule: each weight becomes the mean of the
values that came back for it.

Example, hidden_dim 4 and 2 groups: one group may get the neurons (0, 3) of the first hidden layer
and (1, 2) of the second. Its sub-MLP has `fc1.weight[[0, 3]]`, `fc2.weight[[1, 2]][:, [0, 3]]` and
`fc3.weight[:, [1, 2]]`. Weights between neurons of different groups rest in this round.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fed_ist.classifier.exact_sum import ExactSum
from fed_ist.classifier.layout import Params, param_axes


@dataclass(frozen=True, eq=False)
class Subnet:
    """The neurons of a slice.

    neurons: axis (see `layout.param_axes`) -> their indices, int64 (k,), ascending.
    """

    neurons: Mapping[str, NDArray[np.int64]]

    def share(self, widths: Mapping[str, int]) -> float:
        """The share of all neurons that the slice has, in (0, 1]; the mean where axes differ.

        widths: axis -> the number of all its neurons.
        """
        return float(np.mean([len(rows) / widths[axis] for axis, rows in self.neurons.items()]))


def extract(params: Params, subnet: Subnet) -> Params:
    """The dense sub-MLP of a slice: new float32 arrays of its neurons only, never views."""
    # numpy lays columns picked by index out in Fortran order, and products of such matrices are
    # rounded otherwise than those of the C-ordered matrices that a node decodes.
    return {
        name: np.array(params[name][picked(axes, subnet, params[name].shape)], order="C")
        for name, axes in param_axes(params).items()
    }


class Merger:
    """Makes the next parameters of slices, which are added one by one and in any order.

    Each weight becomes the mean of the values that came back for it, weighted by numbers of
    examples. A weight that nobody returned keeps its value; one from a single reply is that
    reply's, bit for bit.

    params: the whole classifier before the round, float32.
    subnets: all that may come back. They may overlap. Where they are disjoint, each is summed
    separately, so that the sums take no more memory than the slices.
    """

    def __init__(self, params: Params, subnets: Iterable[Subnet]) -> None:
        self._params, self._axes = params, param_axes(params)
        self._are_disjoint = are_disjoint(subnets)
        self._blocks: dict[tuple[str, Subnet | None], _Block] = {}

    def add(self, subnet: Subnet, slice_: Params, n_examples: int) -> None:
        """Add one reply.

        slice_: its trained parameters, float32 of the shapes that `extract` gives for `subnet`.
        n_examples: how many examples it was trained on.
        """
        for name, axes in self._axes.items():
            is_dealt = any(axis is not None for axis in axes)
            if is_dealt and not self._are_disjoint:
                whole = self._params[name].shape
                block = self._block(name, None, whole, whole)
                block.add_at(picked(axes, subnet, whole), slice_[name], n_examples)
            else:
                block = self._block(name, subnet if is_dealt else None, slice_[name].shape, ())
                block.add(slice_[name], n_examples)

    def _block(
        self, name: str, subnet: Subnet | None, shape: tuple[int, ...], weights: tuple[int, ...]
    ) -> "_Block":
        if (name, subnet) not in self._blocks:
            self._blocks[name, subnet] = _Block(shape, weights)
        return self._blocks[name, subnet]

    def merged(self) -> Params:
        """The parameters with all replies, new float32 arrays of the same shapes."""
        merged = {name: array.copy() for name, array in self._params.items()}
        for (name, subnet), block in self._blocks.items():
            array = merged[name]
            if subnet is None:
                array[...] = block.mean(array)
            else:
                array[picked(self._axes[name], subnet, array.shape)] = block.mean()
        return merged


class _Block:
    """A weighted sum of arrays, of one subnet's slices or of all, and the weight of each number."""

    def __init__(self, shape: tuple[int, ...], weight_shape: tuple[int, ...]) -> None:
        self._sum, self._weight = ExactSum(shape), np.zeros(weight_shape)

    def add(self, values: NDArray[np.float32], n_examples: int) -> None:
        self._sum.add(values, n_examples)
        self._weight += n_examples

    def add_at(self, where: Any, values: NDArray[np.float32], n_examples: int) -> None:
        self._sum.add_at(where, values, n_examples)
        self._weight[where] += n_examples

    def mean(self, otherwise: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """The mean, float32 of the sum's shape.

        otherwise: its values are taken where nothing was added; None where there is no such place.
        """
        mean = (self._sum.total() / np.maximum(self._weight, 1)).astype(np.float32)
        return mean if otherwise is None else np.where(self._weight > 0, mean, otherwise)


def merge(params: Params, returned: Iterable[tuple[Subnet, Params, int]]) -> Params:
    """The parameters with the slices of all replies, new float32 arrays of the same shapes.

    returned: for each reply, the arguments of `Merger.add`.
    """
    replies = list(returned)
    merger = Merger(params, [subnet for subnet, _, _ in replies])
    for subnet, slice_, n_examples in replies:
        merger.add(subnet, slice_, n_examples)
    return merger.merged()


def are_disjoint(subnets: Iterable[Subnet]) -> bool:
    """Whether no two different subnets have a neuron in common; the same one may come twice."""
    neurons: dict[str, list[NDArray[np.int64]]] = {}
    for subnet in dict.fromkeys(subnets):
        for axis, rows in subnet.neurons.items():
            neurons.setdefault(axis, []).append(rows)
    together = [np.concatenate(rows) for rows in neurons.values()]
    return all(len(np.unique(rows)) == len(rows) for rows in together)


def picked(axes: tuple[str | None, ...], subnet: Subnet, shape: tuple[int, ...]) -> Any:
    """The index that picks a slice's numbers out of an array with these axes and this shape."""
    rows = [
        slice(None) if axis is None or len(subnet.neurons[axis]) == n else subnet.neurons[axis]
        for axis, n in zip(axes, shape, strict=True)
    ]
    if not any(isinstance(index, slice) for index in rows):
        return np.ix_(*rows)
    return tuple(rows)  # at most one is an index array, so that no two meet


def neuron_bits(subnet: Subnet, widths: Mapping[str, int]) -> bytes:
    """Which neurons a slice has, a bit for each: axis by axis in ascending order, whole bytes each.

    widths: axis -> the number of all its neurons.
    """
    marked = {axis: np.zeros(width, dtype=bool) for axis, width in widths.items()}
    for axis, rows in subnet.neurons.items():
        marked[axis][rows] = True
    return b"".join(np.packbits(marked[axis]).tobytes() for axis in sorted(widths))


def from_neuron_bits(data: bytes, widths: Mapping[str, int]) -> Subnet:
    """The slice of which `neuron_bits` made these bytes; raises `ValueError` for other lengths."""
    lengths = [-(-widths[axis] // 8) for axis in sorted(widths)]
    if len(data) != sum(lengths):
        raise ValueError(f"they are {len(data)} bytes where there should be {sum(lengths)}")
    ends = np.cumsum(lengths)
    parts = np.split(np.frombuffer(data, np.uint8), ends[:-1]) if lengths else []
    return Subnet(
        {
            axis: np.flatnonzero(np.unpackbits(part, count=widths[axis]))
            for axis, part in zip(sorted(widths), parts, strict=True)
        }
    )


def slice_bytes(
    embed_dim: int,
    hidden_dim: int,
    num_classes: int,
    n_groups: int,
    hidden_layers: int = 2,
    norm: str = "none",
) -> float:
    """The bytes of one slice in float32: 4 (dh/W + (L-1) h²/W² + Lh/W + Ch/W + C).

    With d = embed_dim, h = hidden_dim, C = num_classes, W = n_groups, L = hidden_layers. Layer norm
    adds 8 Lh/W, batch norm 16 Lh/W. A linear head, L = 0, takes 4 (dC + C).
    """
    width = hidden_dim / n_groups
    widths = (embed_dim, *[width] * hidden_layers, num_classes)
    weights = sum(n_in * n_out for n_in, n_out in pairwise(widths))
    by_layer = {"none": 1, "layer": 3, "batch": 5}[norm] * width
    return 4 * (weights + hidden_layers * by_layer + num_classes)
