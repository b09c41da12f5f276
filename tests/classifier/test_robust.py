"""Merging that a few nodes cannot lead astray, and the laws that it keeps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed_ist.classifier.layout import hidden_widths, init_params
from fed_ist.classifier.node_weights import low_median
from fed_ist.classifier.robust import clip_changes, root_mean_square, trimmed_mean
from fed_ist.classifier.slices import Subnet, extract, merge

SEEDS = st.integers(0, 2**32)


def classifier(seed):
    return init_params(3, 6, 2, np.random.default_rng(seed), hidden_layers=1)


def replies(params, seed, n, far=1.0, whole=False):
    """Slices that may overlap, each changed by numbers of size `far`."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        widths = hidden_widths(params)
        neurons = {
            axis: np.sort(rng.permutation(width)[: width if whole else rng.integers(1, width + 1)])
            for axis, width in widths.items()
        }
        subnet = Subnet(neurons)
        trained = {
            name: (array + far * rng.normal(size=array.shape)).astype(np.float32)
            for name, array in extract(params, subnet).items()
        }
        found.append((subnet, trained, int(rng.integers(1, 1000))))
    return found


def test_the_trimmed_mean_of_a_worked_example():
    """Of 5 values, -100, 1, 2, 6 and 100: a quarter is two values at each end, a fifth is one."""
    params = {"fc1.weight": np.zeros((1, 1), np.float32), "fc1.bias": np.full(1, 7, np.float32)}
    everything = Subnet({})
    values = [6, -100, 1, 100, 2]
    found = [
        (everything, {name: np.full_like(params[name], value) for name in params}, 9)
        for value in values
    ]
    for share, mean in ((0, 1.8), (0.2, 3), (0.25, 2), (0.5, 2)):
        assert trimmed_mean(params, found, share)["fc1.weight"] == np.float32(mean)
    assert trimmed_mean(params, found[:4], 0.5)["fc1.bias"] == 3.5  # of four, two are the middle


@given(seed=SEEDS, n=st.integers(1, 9))
def test_a_mean_of_which_nothing_is_trimmed_is_the_mean_of_equal_nodes(seed, n):
    params = classifier(seed)
    found = [(subnet, trained, 1) for subnet, trained, _ in replies(params, seed, n)]
    trimmed, plain = trimmed_mean(params, found, 0.0), merge(params, found)
    for name in params:
        assert trimmed[name].dtype == np.float32
        assert trimmed[name] == pytest.approx(plain[name], rel=1e-6, abs=1e-6)


@given(seed=SEEDS, n=st.integers(3, 11), data=st.data())
def test_as_many_attackers_as_are_trimmed_cannot_leave_the_honest_range(seed, n, data):
    n_bad = data.draw(st.integers(1, (n - 1) // 2))
    share = data.draw(st.floats(n_bad / n, 0.5))
    params = classifier(seed)
    found = replies(params, seed, n, whole=True)
    honest = [trained for _, trained, _ in found[n_bad:]]
    for _, trained, _ in found[:n_bad]:
        for array in trained.values():
            array *= np.float32(data.draw(st.sampled_from([-1e30, -10, 0, 5, 1e30])))
    result = trimmed_mean(params, found, share)
    for name in params:
        values = np.stack([trained[name] for trained in honest])
        assert (values.min(axis=0) <= result[name]).all()
        assert (result[name] <= values.max(axis=0)).all()


@given(seed=SEEDS, n=st.integers(1, 6), share=st.floats(0, 0.5), times=st.floats(0.1, 3))
def test_what_nobody_returned_stays_and_what_one_returned_is_taken_bit_for_bit(
    seed, n, share, times
):
    params = classifier(seed)
    found = replies(params, seed, n)
    ones = {name: np.ones_like(array) for name, array in params.items()}
    nothing = {name: np.zeros_like(array) for name, array in params.items()}
    counts = {name: np.zeros_like(array) for name, array in params.items()}
    for subnet, _, _ in found:
        held = merge(nothing, [(subnet, extract(ones, subnet), 1)])
        counts = {name: counts[name] + held[name] for name in params}
    trimmed = trimmed_mean(params, found, share)
    single = merge(params, found)  # where one reply has a weight, this is that reply's
    clipped = merge(params, clip_changes(params, found, times))
    for name in params:
        assert (trimmed[name] == params[name])[counts[name] == 0].all()
        assert (clipped[name] == params[name])[counts[name] == 0].all()
        assert (trimmed[name] == single[name])[counts[name] == 1].all()


def change(params, reply):
    subnet, trained, _ = reply
    sent = extract(params, subnet)
    return root_mean_square(trained[name] - sent[name] for name in sent)


@given(seed=SEEDS, n=st.integers(1, 8), times=st.floats(0.1, 4))
def test_no_change_is_larger_than_so_many_times_the_median_and_small_ones_stay(seed, n, times):
    params = classifier(seed)
    rng = np.random.default_rng(seed)
    found = [
        replies(params, int(rng.integers(2**32)), 1, 10.0 ** rng.uniform(-1, 2))[0]
        for _ in range(n)
    ]
    sizes = [change(params, reply) for reply in found]
    limit = times * low_median(sizes)
    for before, after, size in zip(found, clip_changes(params, found, times), sizes, strict=True):
        assert change(params, after) <= limit * (1 + 1e-4)
        assert after[0] is before[0]
        assert after[2] == before[2]
        if size <= limit:
            assert after[1] is before[1]
            continue
        sent = extract(params, before[0])  # the direction stays
        for name in sent:
            expected = sent[name] + limit / size * (before[1][name] - sent[name])
            assert after[1][name] == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_changes_that_are_all_alike_stay_as_they_are():
    params = classifier(0)
    found = replies(params, 0, 1) * 5
    assert all(a[1] is b[1] for a, b in zip(found, clip_changes(params, found, 1.0), strict=True))
