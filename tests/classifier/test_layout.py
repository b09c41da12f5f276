"""Classifiers of any depth, with and without norms: what they compute, and how they are sliced."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed_ist.classifier.dealing import equal_shares, partition_neurons
from fed_ist.classifier.layout import (
    NORMS,
    count_layers,
    hidden_widths,
    init_params,
    multiply_adds,
    param_axes,
)
from fed_ist.classifier.network import forward
from fed_ist.classifier.slices import extract, merge, slice_bytes
from fed_ist.training.local import LocalTraining, evaluate, predict, train

DEPTHS = st.integers(1, 4)


def head(hidden_layers=2, norm="none", hidden_dim=8, seed=0):
    rng = np.random.default_rng(seed)
    return init_params(5, hidden_dim, 3, rng, hidden_layers, norm)


def examples(n=40, seed=1):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    return (rng.normal(size=(n, 5)) + 2 * np.eye(3, 5)[labels]).astype(np.float32), labels


def test_a_normalised_layer_is_added_to_the_one_before():
    """One neuron a layer, layer norm of a single number gives its bias: 1 + 2 + 4 = 7."""
    params = head(3, "layer", hidden_dim=1)
    for layer, bias in ((1, 1), (2, 2), (3, 4)):
        params[f"norm{layer}.bias"][:] = bias
    params["fc4.weight"][:] = [[1], [0], [-1]]
    params["fc4.bias"][:] = 0
    logits = forward(params, np.zeros((1, 5), dtype=np.float32), 1.0)
    assert logits.tolist() == [[7, 0, -7]]


def test_batch_norm_learns_the_moments_of_what_it_sees():
    params = head(1, "batch")
    x, _ = examples(1000)
    now = {name: array.copy() for name, array in params.items()}
    for _ in range(200):
        forward(now, x, 1.0, training=True)
    sums = x @ params["fc1.weight"].T + params["fc1.bias"]
    assert np.allclose(now["norm1.mean"], sums.mean(axis=0), atol=1e-3)
    assert np.allclose(now["norm1.var"], sums.var(axis=0, ddof=1), rtol=1e-2)
    before = {name: array.copy() for name, array in now.items()}
    forward(now, x, 1.0)
    assert all((now[name] == before[name]).all() for name in now)


@pytest.mark.parametrize("norm", NORMS)
@given(hidden_layers=DEPTHS, n_groups=st.integers(1, 8), seed=st.integers(0, 99))
def test_slices_of_any_depth_come_back_where_they_were_cut_out(norm, hidden_layers, n_groups, seed):
    params = head(hidden_layers, norm)
    rng = np.random.default_rng(seed)
    subnets = partition_neurons(hidden_widths(params), equal_shares([1.0] * n_groups), rng)
    returned = []
    for subnet in subnets:
        slice_ = extract(params, subnet)
        new = {n: rng.normal(size=a.shape).astype(np.float32) for n, a in slice_.items()}
        returned.append((subnet, new, 3))
    merged = merge(params, returned)
    last = f"fc{count_layers(params)}.bias"  # which all groups share
    for subnet, new, _ in returned:
        back = extract(merged, subnet)
        assert all((back[name] == new[name]).all() for name in new if name != last)


@pytest.mark.parametrize("norm", NORMS)
@given(hidden_layers=DEPTHS, n_groups=st.sampled_from([1, 2, 4, 8]))
def test_the_formula_gives_the_bytes_of_a_slice(norm, hidden_layers, n_groups):
    params = head(hidden_layers, norm)
    rng = np.random.default_rng(0)
    subnets = partition_neurons(hidden_widths(params), equal_shares([1.0] * n_groups), rng)
    formula = slice_bytes(5, 8, 3, n_groups, hidden_layers, norm)
    for subnet in subnets:
        assert sum(array.nbytes for array in extract(params, subnet).values()) == formula


def test_layers_that_are_added_up_share_their_neurons_and_others_do_not():
    assert hidden_widths(head(3)) == {"h1": 8, "h2": 8, "h3": 8}
    assert hidden_widths(head(3, "layer")) == {"h": 8}
    assert param_axes(head(2, "batch"))["norm2.var"] == ("h",)
    assert param_axes(head(2))["fc2.weight"] == ("h2", "h1")


def test_the_work_of_one_example_worked_out():
    """5 x 8, 8 x 8 and 8 x 3 weights, forward and twice backward."""
    assert multiply_adds(head(2)) == 3 * (40 + 64 + 24)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("hidden_layers", [1, 3])
def test_any_depth_learns_and_a_last_batch_of_one_example_does_no_harm(norm, hidden_layers):
    x, y = examples(33)
    how = LocalTraining(20, 0, 16, "adam", 1e-2)
    before, after = head(hidden_layers, norm), None
    after, loss = train(before, lambda _: (x, y), how, 1.0, np.random.default_rng(0))
    assert np.isfinite(loss)
    assert evaluate(after, x, y)[0] > 0.9 > evaluate(before, x, y)[0]
    moved = [name for name in before if (after[name] != before[name]).any()]
    assert set(moved) == set(before)  # also the running moments


def test_a_proximal_term_holds_a_slice_near_where_it_came_from():
    x, y = examples()
    before = head()

    def distance(mu):
        how = LocalTraining(10, 0, 16, "sgd", 1e-2, proximal=mu)
        after, _ = train(before, lambda _: (x, y), how, 1.0, np.random.default_rng(0))
        return sum(float(np.square(after[name] - before[name]).sum()) for name in before)

    assert distance(10.0) < 0.2 * distance(0.0)


def test_calibration_learns_the_classes_and_not_how_frequent_they_are_here():
    """Where labels do not depend on the input, the logits become the same for all classes."""
    rng = np.random.default_rng(0)
    x = np.zeros((400, 5), np.float32)
    y = rng.permutation(np.repeat([0, 1, 2], [320, 60, 20]))

    def logits(label_skew):
        how = LocalTraining(60, 0, 50, "adam", 1e-2, label_skew)
        after, _ = train(head(1), lambda _: (x, y), how, 1.0, np.random.default_rng(0))
        found = predict(after, x[:1])[0]
        return found - found.mean()

    shares = np.log(np.array([0.8, 0.15, 0.05]))
    assert np.allclose(logits("ignore"), shares - shares.mean(), atol=0.15)
    assert np.allclose(logits("calibrate"), 0, atol=0.15)
    assert np.allclose(logits("balance"), 0, atol=0.15)


def test_calibration_pushes_a_class_that_a_client_lacks_down_less():
    x, y = examples()
    seen = y < 2
    before = head(1)
    moved = {}
    for label_skew in ("ignore", "calibrate"):
        how = LocalTraining(5, 0, 16, "sgd", 1e-1, label_skew)
        after, _ = train(before, lambda _: (x[seen], y[seen]), how, 1.0, np.random.default_rng(0))
        moved[label_skew] = float(before["fc2.bias"][2] - after["fc2.bias"][2])
    assert 0 < moved["calibrate"] < 0.5 * moved["ignore"]
