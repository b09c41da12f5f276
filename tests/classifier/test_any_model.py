"""Slices of any model: found by shapes or by axes, cut out, and written back."""

import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed_ist.classifier.any_model import (
    axes_by_shape,
    cut,
    input_scales,
    merge_back,
    require_axes,
    why_unfit,
)
from fed_ist.classifier.dealing import partition_neurons
from fed_ist.errors import InputError


def mlp(widths, seed=0, inputs=5, classes=3):
    """A network with hidden layers of these widths, as torch names its arrays."""
    rng, sizes = np.random.default_rng(seed), [inputs, *widths, classes]
    arrays = {}
    for i, (n_in, n_out) in enumerate(pairwise(sizes), start=1):
        arrays[f"fc{i}.weight"] = rng.normal(size=(n_out, n_in)).astype(np.float32)
        arrays[f"fc{i}.bias"] = rng.normal(size=n_out).astype(np.float32)
    return arrays


CONV = {
    "conv.weight": np.zeros((8, 3, 5, 5), np.float32),
    "conv.bias": np.arange(8, dtype=np.float32),
    "norm.num_batches_tracked": np.array(4),
    "fc.weight": np.arange(2 * 8 * 6, dtype=np.float32).reshape(2, 48),
    "fc.bias": np.zeros(2, np.float32),
}
CONV_AXES = {
    "conv.weight": ("channels", None, None, None),
    "conv.bias": ("channels",),
    "fc.weight": (None, "channels"),
}


def test_shapes_tell_which_numbers_belong_to_which_neurons():
    axes = axes_by_shape(mlp([16, 12]), {"first": 16, "second": 12})
    assert axes == {
        "fc1.weight": ("first", None),
        "fc1.bias": ("first",),
        "fc2.weight": ("second", "first"),
        "fc2.bias": ("second",),
        "fc3.weight": (None, "second"),
        "fc3.bias": (None,),
    }


@pytest.mark.parametrize(
    ("arrays", "widths", "sentence"),
    [
        (mlp([16, 16]), {"a": 16, "b": 16}, "two axes of one width"),
        (mlp([16], inputs=16), {"hidden": 16}, "two dimensions of the width of 'hidden'"),
        (mlp([16]), {"hidden": 17}, "No array has hidden = 17 as outputs"),
        (CONV, {"channels": 8}, "No array has channels = 8 as inputs"),
    ],
)
def test_shapes_that_do_not_tell_are_one_sentence(arrays, widths, sentence):
    with pytest.raises(InputError, match=sentence):
        axes_by_shape(arrays, widths)


@pytest.mark.parametrize(
    ("axes", "sentence"),
    [
        ({"fc9.weight": ("channels",)}, "which the model lacks. It has: conv.weight"),
        ({"conv.bias": ("channels", None)}, "but its shape is"),
        ({"conv.bias": ("channel",)}, "name 'channel', which is none of widths"),
        ({"fc.bias": ("channels",)}, "no multiple of channels = 8"),
    ],
)
def test_axes_that_do_not_fit_are_one_sentence(axes, sentence):
    with pytest.raises(InputError, match=sentence):
        require_axes(CONV, CONV_AXES | axes, {"channels": 8})


def test_channels_own_neighbouring_inputs_after_flatten():
    widths = {"channels": 8}
    require_axes(CONV, CONV_AXES, widths)
    subnet = partition_neurons(widths, [0.25] * 4, np.random.default_rng(0))[0]
    slice_ = cut(CONV, CONV_AXES, subnet, widths)
    rows = subnet.neurons["channels"]
    assert slice_["conv.weight"].shape == (2, 3, 5, 5)
    assert (slice_["conv.bias"] == rows).all()
    whole = CONV["fc.weight"].reshape(2, 8, 6)
    assert (slice_["fc.weight"] == whole[:, rows].reshape(2, 12)).all()
    assert input_scales(CONV_AXES, subnet, widths) == {"fc.weight": 4.0}


@given(
    widths=st.lists(st.integers(4, 20), min_size=1, max_size=3, unique=True),
    n_groups=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_slices_that_come_back_as_they_went_leave_the_model_as_it_was(widths, n_groups, seed):
    named = {f"h{i}": width for i, width in enumerate(widths)}
    arrays = mlp(widths, seed, inputs=23, classes=2)
    axes = axes_by_shape(arrays, named)
    subnets = partition_neurons(named, [1 / n_groups] * n_groups, np.random.default_rng(seed))
    dealt = np.sort(np.concatenate([subnet.neurons["h0"] for subnet in subnets]))
    assert (dealt == np.arange(widths[0])).all()
    returned = [
        (subnet, cut(arrays, axes, subnet, named), 1.0 + i) for i, subnet in enumerate(subnets)
    ]
    merged = merge_back(arrays, axes, named, returned)
    assert all(np.allclose(merged[name], arrays[name], rtol=1e-6) for name in arrays)
    own = [name for name in arrays if any(axes[name])]
    assert all((merged[name] == arrays[name]).all() for name in own if n_groups == 1)


def test_what_nobody_returned_stays_and_what_several_did_is_their_weighted_mean():
    widths, arrays = {"hidden": 4}, mlp([4])
    axes = axes_by_shape(arrays, widths)
    first, second = partition_neurons(widths, [0.5, 0.5], np.random.default_rng(0))
    low, high = (cut(arrays, axes, first, widths) for _ in range(2))
    low["fc1.bias"][:], high["fc1.bias"][:] = 1, 4
    merged = merge_back(arrays, axes, widths, [(first, low, 2), (first, high, 1)])
    assert (merged["fc1.bias"][first.neurons["hidden"]] == 2).all()
    rest = second.neurons["hidden"]
    assert (merged["fc1.bias"][rest] == arrays["fc1.bias"][rest]).all()


def test_whole_numbers_stay_whole():
    axes = {**CONV_AXES}
    subnet = partition_neurons({"channels": 8}, [1.0], np.random.default_rng(0))[0]
    slices = [cut(CONV, axes, subnet, {"channels": 8}) for _ in range(2)]
    slices[0]["norm.num_batches_tracked"] = np.array(9)
    merged = merge_back(CONV, axes, {"channels": 8}, [(subnet, each, 1) for each in slices])
    assert merged["norm.num_batches_tracked"] == 6
    assert merged["norm.num_batches_tracked"].dtype == CONV["norm.num_batches_tracked"].dtype


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"fc1.bias": np.zeros(5)}, "is \\(5,\\), not \\(4,\\)"),
        ({"fc1.bias": np.full(4, np.nan)}, "not a finite number"),
        ({"more": np.zeros(1)}, "it has the arrays"),
        ({"fc1.bias": np.array(["a"] * 4)}, "not a finite number"),
    ],
)
def test_what_no_training_makes_is_said(change, sentence):
    arrays = mlp([4])
    assert why_unfit(arrays, arrays) == ""
    assert re.search(sentence, why_unfit(arrays | change, arrays))
