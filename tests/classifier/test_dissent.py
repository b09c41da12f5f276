"""What nodes learnt in a round, compared: who goes against all others, and what comes of it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed_ist.classifier.dissent import Suspicion, agreements, direction, spreads_below
from fed_ist.classifier.layout import hidden_widths, init_params
from fed_ist.classifier.slices import Subnet, extract

SEEDS = st.integers(0, 2**32)


def trained_pair(seed, hidden_layers=1):
    rng = np.random.default_rng(seed)
    sent = init_params(5, 8, 3, rng, hidden_layers)
    step = {n: rng.normal(size=a.shape).astype(np.float32) / 100 for n, a in sent.items()}
    return sent, {n: sent[n] + step[n] for n in sent}


def test_the_direction_of_a_worked_example():
    """Only the last layer moves: the product changes by that times the first, less its mean."""
    sent = {
        "fc1.weight": np.array([[2, 0], [0, 1]], np.float32),
        "fc2.weight": np.zeros((2, 2), np.float32),
    }
    trained = sent | {"fc2.weight": np.array([[1, 0], [0, 0]], np.float32)}
    assert direction(sent, trained) == pytest.approx(np.array([[1, 0], [-1, 0]]) / np.sqrt(2))
    assert (direction(sent, sent) == 0).all()


@given(seed=SEEDS, hidden_layers=st.integers(0, 3))
def test_who_sends_the_opposite_points_the_other_way_whatever_its_neurons_order(
    seed, hidden_layers
):
    sent, trained = trained_pair(seed, hidden_layers)
    # As little as float32 allows, lest rounding of the sum show.
    flipped = {n: sent[n] - (trained[n] - sent[n]) for n in sent}
    assert direction(sent, flipped) == pytest.approx(-direction(sent, trained), abs=1e-4)
    rng = np.random.default_rng(seed)
    order = Subnet({axis: rng.permutation(n) for axis, n in hidden_widths(sent).items()})
    moved = direction(extract(sent, order), extract(trained, order))
    assert moved == pytest.approx(direction(sent, trained), abs=1e-6)


@given(seed=SEEDS, n=st.integers(1, 8))
def test_agreements_are_cosines_and_the_same_in_whatever_order_replies_come(seed, n):
    rng = np.random.default_rng(seed)
    found = [rng.normal(size=(3, 4)) * rng.integers(0, 2) for _ in range(n)]
    agreed = agreements(found)
    assert all(-1 - 1e-9 <= each <= 1 + 1e-9 for each in agreed)
    order = rng.permutation(n)
    assert agreements([found[i] for i in order]) == [agreed[i] for i in order]


def test_spreads_of_a_worked_example():
    """Median 0.4, absolute deviations 0, 0.1, 0.1, 0.2 and 0.8, of which the median is 0.1."""
    below = spreads_below([0.4, 0.3, 0.5, 0.6, -0.4])
    assert below == pytest.approx([each / 0.14826 for each in (0, 0.1, -0.1, -0.2, 0.8)])


@given(st.lists(st.floats(0.2, 0.4), min_size=3, max_size=20))
def test_who_agrees_half_as_much_as_the_best_is_never_suspected(agreed):
    assert not Suspicion().judge({str(i): z for i, z in enumerate(spreads_below(agreed))})


def test_one_round_far_below_is_left_out_and_a_round_in_agreement_for_each_unit_makes_it_good():
    suspicion = Suspicion()
    assert suspicion.judge({"a": 3.9, "b": 0.0}) == set()  # 0.9
    assert suspicion.judge({"a": 3.2, "b": -4.0}) == {"a"}  # 1.1
    assert suspicion.judge({"a": 0.0, "b": 0.0}) == set()  # 0.1
    assert suspicion.judge({"a": 1e9, "b": 0.0}) == {"a"}  # 5.1, however far it was
    for _ in range(4):
        assert suspicion.judge({"b": 0.0}) == set()  # not seen, not forgiven
    assert [suspicion.judge({"a": 0.0}) for _ in range(5)] == [{"a"}] * 4 + [set()]


def test_suspicion_goes_on_where_it_was_kept():
    first = Suspicion()
    first.judge({"a": 8.0})
    assert Suspicion(first.by_name).judge({"a": 0.0}) == {"a"}
