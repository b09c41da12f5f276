"""Who gets which neurons: shares, partitions and slices, by hand-worked examples and by laws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed_ist.classifier.dealing import (
    equal_shares,
    leading_neurons,
    partition_neurons,
    random_neurons,
    rolling_neurons,
)
from fed_ist.errors import InputError

CAPACITIES = st.lists(st.floats(0.01, 1), min_size=1, max_size=12)
SHARE = st.floats(0.01, 1)
WIDTH = st.integers(1, 40)


def rng(seed: int = 0):
    return np.random.default_rng(seed)


def sizes(subnets, axis: str = "h1"):
    return [len(subnet.neurons[axis]) for subnet in subnets]


@pytest.mark.parametrize(
    ("capacities", "shares"),
    [
        ([1, 1, 1, 1], [0.25, 0.25, 0.25, 0.25]),
        ([0.1, 1, 1], [0.1, 0.45, 0.45]),
        ([1, 0.1, 1], [0.45, 0.1, 0.45]),
        ([0.1, 0.2], [0.1, 0.2]),
        ([0.2, 0.3, 1], [0.2, 0.3, 0.5]),
        ([1], [1]),
        ([0.3], [0.3]),
    ],
)
def test_shares_of_a_worked_example(capacities, shares):
    assert equal_shares(capacities) == pytest.approx(shares, abs=1e-12)


@given(capacities=CAPACITIES)
def test_no_share_is_above_its_capacity_and_all_fit_into_one_classifier(capacities):
    shares = equal_shares(capacities)
    assert all(0 < s <= c for s, c in zip(shares, capacities, strict=True))
    assert sum(shares) == pytest.approx(min(1.0, sum(capacities)))


@given(capacities=CAPACITIES)
def test_who_gets_less_than_another_gets_all_that_it_can_take(capacities):
    """Just so are shares as equal as capacities allow: there is one level of water for all."""
    shares = equal_shares(capacities)
    for share, capacity in zip(shares, capacities, strict=True):
        assert share == capacity or share == pytest.approx(max(shares))


@given(capacities=CAPACITIES, seed=st.integers(0, 2**32))
def test_shares_follow_their_capacities_whatever_the_order(capacities, seed):
    order = rng(seed).permutation(len(capacities))
    shares = np.array(equal_shares(capacities))
    assert equal_shares([capacities[i] for i in order]) == pytest.approx(shares[order])


@given(capacities=CAPACITIES, width=st.integers(12, 60), seed=st.integers(0, 2**32))
def test_groups_are_disjoint_and_none_has_more_than_its_capacity_rounded_up(
    capacities, width, seed
):
    shares = equal_shares(capacities)
    subnets = partition_neurons({"h1": width, "h2": width}, shares, rng(seed))
    assert len(subnets) == len(shares)
    for axis in ("h1", "h2"):
        dealt = np.concatenate([subnet.neurons[axis] for subnet in subnets])
        assert len(set(dealt)) == len(dealt)
        assert dealt.min() >= 0
        assert dealt.max() < width
        for subnet, capacity in zip(subnets, capacities, strict=True):
            assert 1 <= len(subnet.neurons[axis]) <= np.ceil(capacity * width)
            assert (np.diff(subnet.neurons[axis]) > 0).all()


@given(capacities=CAPACITIES, width=st.integers(12, 60))
def test_sizes_are_the_shares_rounded_up_or_down_and_as_many_in_all(capacities, width):
    shares = equal_shares(capacities)
    found = sizes(partition_neurons({"h1": width}, shares, rng()))
    if min(shares) * width >= 1:  # else groups are raised to one neuron, at others' cost
        assert all(abs(n - s * width) < 1 for n, s in zip(found, shares, strict=True))
        assert abs(sum(found) - sum(shares) * width) <= 0.5 + 1e-6


@pytest.mark.parametrize(
    ("width", "shares", "expected"),
    [
        (10, [0.5, 0.3, 0.2], [5, 3, 2]),
        (10, [0.1, 0.2], [1, 2]),  # the other seven rest
        (10, [1 / 3, 1 / 3, 1 / 3], [4, 3, 3]),  # 3.33 each: of equals the first is rounded up
        (10, [0.25, 0.36, 0.39], [2, 4, 4]),  # 2.5, 3.6, 3.9: the largest fractions are
        (10, [0.02, 0.49, 0.49], [1, 4, 5]),  # 0, 5, 5 leave no room for the first
        (3, [0.01, 0.01, 0.98], [1, 1, 1]),  # 0, 0, 3: the large one makes room
        (7, [0.7, 0.1, 0.1, 0.1], [4, 1, 1, 1]),
    ],
)
def test_sizes_of_a_worked_example(width, shares, expected):
    assert sizes(partition_neurons({"h1": width}, shares, rng())) == expected


@given(width=WIDTH, n_groups=st.integers(1, 40))
def test_equal_shares_give_sizes_that_differ_by_one_at_most_and_leave_nobody_out(width, n_groups):
    n_groups = min(n_groups, width)
    found = sizes(partition_neurons({"h1": width}, equal_shares([1.0] * n_groups), rng()))
    assert sum(found) == width
    assert max(found) - min(found) <= 1


def test_axes_are_dealt_one_by_one_and_may_differ_in_width():
    subnets = partition_neurons({"h1": 40, "h2": 12}, [0.5, 0.25], rng())
    assert (sizes(subnets, "h1"), sizes(subnets, "h2")) == ([20, 10], [6, 3])
    assert set(subnets[0].neurons["h1"][:6]) != set(subnets[0].neurons["h2"])


@pytest.mark.parametrize("shares", [[0.2] * 5, []])
def test_groups_that_are_none_or_more_than_the_narrowest_axis_has_neurons_are_refused(shares):
    with pytest.raises(InputError, match=f"hidden-dim = 4 .* groups \\({len(shares)}\\)"):
        partition_neurons({"h1": 9, "h2": 4}, shares, rng())


@given(seed=st.integers(0, 2**32))
def test_neurons_that_rest_in_a_round_come_up_in_another(seed):
    """Three tenths are dealt in a round. A neuron misses 100 rounds with probability 3e-16."""
    covered = set()
    for server_round in range(100):
        for subnet in partition_neurons({"h1": 20}, [0.1, 0.2], rng(seed + server_round)):
            covered |= set(subnet.neurons["h1"])
    assert covered == set(range(20))


def test_a_share_of_a_slice_is_its_part_of_the_neurons_and_the_mean_where_axes_differ():
    (subnet,) = partition_neurons({"h1": 8, "h2": 4}, [0.25], rng())
    assert subnet.share({"h1": 8, "h2": 4}) == 0.25
    assert subnet.share({"h1": 4, "h2": 4}) == 0.375  # 2 of 4 and 1 of 4


@given(width=WIDTH, share=SHARE, first=st.integers(0, 99), seed=st.integers(0, 2**32))
def test_every_slice_has_its_share_of_neurons_rounded_and_never_none(width, share, first, seed):
    widths = {"h1": width, "h2": 2 * width}
    for subnet in (
        random_neurons(widths, share, rng(seed)),
        leading_neurons(widths, share),
        rolling_neurons(widths, share, first),
    ):
        for axis, n in widths.items():
            neurons = subnet.neurons[axis]
            assert len(neurons) == max(1, round(share * n))
            assert (np.diff(neurons) > 0).all()
            assert 0 <= neurons[0] <= neurons[-1] < n


def test_random_slices_are_drawn_anew_and_overlap():
    draw = rng(0)
    drawn = [random_neurons({"h1": 6}, 0.5, draw).neurons["h1"] for _ in range(40)]
    assert len({tuple(neurons) for neurons in drawn}) > 10  # of the 20 that there are
    assert np.bincount(np.concatenate(drawn)).min() >= 10  # 20 expected
    again = rng(0)
    assert all(
        (random_neurons({"h1": 6}, 0.5, again).neurons["h1"] == neurons).all() for neurons in drawn
    )


@given(width=WIDTH, shares=st.lists(SHARE, min_size=2, max_size=2).map(sorted))
def test_leading_slices_are_nested(width, shares):
    small, large = (leading_neurons({"h1": width}, share).neurons["h1"] for share in shares)
    assert (small == np.arange(len(small))).all()
    assert (large[: len(small)] == small).all()


@pytest.mark.parametrize(
    ("server_round", "half", "third"),
    [
        (1, [0, 1, 2], [0, 1]),
        (2, [1, 2, 3], [1, 2]),
        (4, [3, 4, 5], [3, 4]),
        (5, [0, 4, 5], [4, 5]),
        (6, [0, 1, 5], [0, 5]),
        (7, [0, 1, 2], [0, 1]),
    ],
)
def test_a_window_rolls_over_six_neurons_and_around_their_end(server_round, half, third):
    for share, expected in ((1 / 2, half), (1 / 3, third)):
        assert (
            rolling_neurons({"h1": 6}, share, server_round - 1).neurons["h1"].tolist() == expected
        )


@given(width=WIDTH, share=SHARE)
def test_as_many_rounds_as_neurons_roll_over_each_neuron_equally_often(width, share):
    windows = [rolling_neurons({"h1": width}, share, first).neurons["h1"] for first in range(width)]
    times = np.bincount(np.concatenate(windows), minlength=width)
    assert (times == max(1, round(share * width))).all()
