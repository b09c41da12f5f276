"""Slices of any model: which numbers of its arrays belong to which hidden neurons.

A model is named arrays, as a torch `state_dict` has them. An *axis* is a set of hidden neurons (or
channels), such as the outputs of a layer. `axes` names for each array the axis of each dimension,
or None: a linear layer from 784 inputs to 512 neurons of the axis "hidden" has "fc1.weight":
("hidden", None), "fc1.bias": ("hidden",), and the layer after it "fc2.weight": (None, "hidden").

A dimension may be a multiple of its axis: each neuron owns as many neighbouring numbers, as
channels do in a linear layer after `torch.flatten`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fed_ist.classifier.slices import Subnet
from fed_ist.errors import InputError

Arrays = Mapping[str, NDArray[Any]]
Axes = Mapping[str, tuple[str | None, ...]]
GIVE_AXES = "Say with `axes` which dimension of which array has its neurons."


def axes_by_shape(arrays: Arrays, widths: Mapping[str, int]) -> dict[str, tuple[str | None, ...]]:
    """The axes of each array, as the sizes of its dimensions tell them.

    arrays: of any shapes and dtypes. widths: axis -> the number of its neurons. Raises `InputError`
    where sizes do not tell it: two axes of one width, an array with one in two dimensions, or an
    axis that no array has as outputs (its first dimension) and another one as inputs.
    """
    axes: dict[str, tuple[str | None, ...]] = {}
    by_width = {width: axis for axis, width in widths.items()}
    if len(by_width) < len(widths):
        raise InputError(f"widths = {dict(widths)} has two axes of one width. {GIVE_AXES}")
    for name, array in arrays.items():
        axes[name] = tuple(by_width.get(size) for size in array.shape)
        twice = [axis for axis in widths if axes[name].count(axis) > 1]
        if twice:
            raise InputError(
                f"'{name}' {array.shape} has two dimensions of the width of '{twice[0]}'. "
                f"{GIVE_AXES}"
            )
    require_axes(arrays, axes, widths)
    return axes


def require_axes(arrays: Arrays, axes: Axes, widths: Mapping[str, int]) -> None:
    """Raise `InputError` unless `axes` fit the arrays, and each axis has outputs and inputs.

    arrays: of any shapes and dtypes.
    """
    for name, of_array in axes.items():
        if name not in arrays:
            known = ", ".join(arrays)
            raise InputError(f"axes names '{name}', which the model lacks. It has: {known}.")
        shape = arrays[name].shape
        if len(of_array) != len(shape):
            raise InputError(f"axes of '{name}' are {of_array}, but its shape is {shape}.")
        for axis, size in zip(of_array, shape, strict=True):
            if axis is not None and axis not in widths:
                raise InputError(f"axes of '{name}' name '{axis}', which is none of widths.")
            if axis is not None and size % widths[axis]:
                raise InputError(
                    f"'{name}' has a dimension of {size}, no multiple of {axis} = {widths[axis]}."
                )
    for axis in widths:
        if not any(of_array[:1] == (axis,) for of_array in axes.values()):
            raise InputError(f"No array has {axis} = {widths[axis]} as outputs. {GIVE_AXES}")
        if not any(axis in of_array[1:] for of_array in axes.values()):
            raise InputError(f"No array has {axis} = {widths[axis]} as inputs. {GIVE_AXES}")


def cut(arrays: Arrays, axes: Axes, subnet: Subnet, widths: Mapping[str, int]) -> dict[str, Any]:
    """The arrays of a slice: new ones of the same dtypes, of its neurons only."""
    return {
        name: np.array(array[_picked(name, array.shape, axes, subnet, widths)], order="C")
        for name, array in arrays.items()
    }


def input_scales(axes: Axes, subnet: Subnet, widths: Mapping[str, int]) -> dict[str, float]:
    """By how much the weights of a slice's inputs are multiplied, so that sums over fewer neurons
    are as large as those over all: array name -> factor; arrays without such inputs are left out.
    """
    factors: dict[str, float] = {}
    for name, of_array in axes.items():
        factor = 1.0
        for axis in of_array[1:]:
            if axis is not None:
                factor *= widths[axis] / len(subnet.neurons[axis])
        if factor != 1:
            factors[name] = factor
    return factors


def merge_back(
    arrays: Arrays,
    axes: Axes,
    widths: Mapping[str, int],
    returned: Iterable[tuple[Subnet, Arrays, float]],
) -> dict[str, NDArray[Any]]:
    """The model after slices came back: each number is the weighted mean of those that came for it.

    arrays: the model before, whose numbers stay where none came. returned: subnet, its arrays (of
    the shapes that `cut` gives) and its weight, above 0. Returns new arrays of the same dtypes.
    """
    sums = {name: np.zeros(array.shape) for name, array in arrays.items()}
    weights = {name: np.zeros(array.shape) for name, array in arrays.items()}
    for subnet, slice_, weight in returned:
        for name, array in arrays.items():
            where = _picked(name, array.shape, axes, subnet, widths)
            sums[name][where] += weight * slice_[name].astype(np.float64)
            weights[name][where] += weight
    merged: dict[str, NDArray[Any]] = {}
    for name, array in arrays.items():
        mean = sums[name] / np.where(weights[name] > 0, weights[name], 1)
        if not np.issubdtype(array.dtype, np.inexact):
            mean = np.rint(mean)
        merged[name] = np.where(weights[name] > 0, mean, array).astype(array.dtype)
    return merged


def why_unfit(found: Arrays, expected: Arrays) -> str:
    """Why arrays cannot be what a slice was trained to; empty where they can.

    found: of any shapes and dtypes. expected: the arrays that were sent.
    """
    if set(found) != set(expected):
        return f"it has the arrays {sorted(found)}, not {sorted(expected)}"
    for name, array in expected.items():
        if found[name].shape != array.shape:
            return f"its '{name}' is {found[name].shape}, not {array.shape}"
        if found[name].dtype.kind not in "fiub" or not np.isfinite(found[name]).all():
            return f"its '{name}' has what is not a finite number"
    return ""


def _picked(
    name: str, shape: Sequence[int], axes: Axes, subnet: Subnet, widths: Mapping[str, int]
) -> Any:
    rows = []
    for axis, size in zip(axes.get(name, (None,) * len(shape)), shape, strict=True):
        if axis is None:
            rows.append(np.arange(size))
        else:
            own = size // widths[axis]
            rows.append((subnet.neurons[axis][:, None] * own + np.arange(own)).ravel())
    return np.ix_(*rows) if rows else ()
