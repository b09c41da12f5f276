"""The server's step: rounds worked by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed_ist.classifier.layout import init_params
from fed_ist.classifier.server_optimizers import ServerAdam, ServerMomentum
from fed_ist.errors import InputError

SEEDS = st.integers(0, 2**32)
MAKERS = {
    "momentum": lambda: ServerMomentum(0.5, 0.9),
    "adam": lambda: ServerAdam(0.1, 0.9, 0.99, 0.001),
}
OPTIMIZERS = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def one(*values):
    return {"w": np.array(values, np.float32)}


def head(seed: int = 0):
    return init_params(5, 8, 3, np.random.default_rng(seed))


def test_two_rounds_of_momentum_worked_by_hand():
    optimizer = ServerMomentum(learning_rate=0.5, momentum=0.5)
    # Differences 4 and -2 are the first momentum.
    params = optimizer.step(one(10, 1), one(14, -1))
    assert params["w"].tolist() == [10 + 0.5 * 4, 1 - 0.5 * 2]
    # Differences 1 and 0: momentum 0.5 · 4 + 1 = 3 and 0.5 · -2 + 0 = -1.
    params = optimizer.step(params, one(13, 0))
    assert params["w"].tolist() == [12 + 0.5 * 3, 0 - 0.5 * 1]


def test_two_rounds_of_adam_worked_by_hand():
    """Algorithm 2 with v = tau² = 1 at the start, and no correction for it."""
    optimizer = ServerAdam(learning_rate=12, beta1=0.5, beta2=0.5, tau=1)
    # Difference 7: m = 3.5, v = 0.5 · 1 + 0.5 · 49 = 25, so 12 · 3.5 / (5 + 1) = 7.
    params = optimizer.step(one(0, 1), one(7, -6))
    assert np.allclose(params["w"], [7, 1 - 7], atol=1e-6)
    # Difference 5: v = 0.5 · 25 + 0.5 · 25 = 25. m = 1.75 + 2.5 where the sign is the same, hence
    # 12 · 4.25 / 6 = 8.5; and -1.75 + 2.5 = 0.75 where it is another, hence 1.5.
    params = optimizer.step(params, one(12, -1))
    assert np.allclose(params["w"], [7 + 8.5, -6 + 1.5], atol=1e-6)


@given(seed=SEEDS)
def test_rate_one_and_momentum_zero_give_what_was_merged_bit_for_bit(seed):
    optimizer, params = ServerMomentum(1, 0), head(seed)
    for server_round in range(3):
        merged = head(seed + 1 + server_round)
        params = optimizer.step(params, merged)
        assert list(params) == list(merged)
        assert all((params[name] == merged[name]).all() for name in merged)


@given(difference=st.floats(-100, 100), momentum=st.floats(0, 0.9))
def test_momentum_settles_at_the_sum_of_all_past_rounds(difference, momentum):
    optimizer = ServerMomentum(1, momentum)
    for _ in range(200):
        moved = optimizer.step(one(0), one(difference))["w"][0]
    assert np.isclose(moved, np.float32(difference) / (1 - momentum), rtol=1e-5, atol=1e-30)


@given(difference=st.floats(-100, 100), tau=st.floats(1e-4, 1))
def test_adam_settles_at_the_rate_where_differences_are_far_above_tau(difference, tau):
    """At m = D and v = D² a step is rate · D / (|D| + tau), which the first one falls short of."""
    optimizer = ServerAdam(0.5, 0.8, 0.9, tau)
    moves = [optimizer.step(one(0), one(difference))["w"][0] for _ in range(200)]
    limit = 0.5 * difference / (abs(difference) + tau)
    assert np.isclose(moves[-1], limit, rtol=1e-3, atol=1e-6)
    # m is 0.2 D and √v at least √0.1 |D|; a correction for the start would make both |D|.
    longest = 0.5 * 0.2 * abs(difference) / (0.1**0.5 * abs(difference) + tau)
    assert abs(moves[0]) <= longest * (1 + 1e-6)


@OPTIMIZERS
def test_a_round_that_changes_nothing_moves_nothing_at_first_and_then_by_old_momentum(make):
    optimizer = make()
    assert optimizer.step(one(3, 4), one(3, 4))["w"].tolist() == [3, 4]
    params = optimizer.step(one(3, 4), one(4, 4))
    assert params["w"][0] > 3
    later = optimizer.step(params, params)
    assert later["w"][0] > params["w"][0]
    assert later["w"][1] == 4


@OPTIMIZERS
def test_a_step_makes_new_float32_arrays_and_leaves_the_old(make):
    params, merged = head(0), head(1)
    before = {name: array.copy() for name, array in params.items()}
    for name, array in make().step(params, merged).items():
        assert array.dtype == np.float32
        assert not np.shares_memory(array, params[name])
        assert not np.shares_memory(array, merged[name])
        assert (params[name] == before[name]).all()
    assert all((merged[name] == head(1)[name]).all() for name in merged)


def test_sums_are_kept_in_float64():
    """Of 1e-9 a round float32 would lose each beside a momentum of 1."""
    optimizer = ServerMomentum(1e-3, 0.999999)
    optimizer.step(one(0), one(1))
    for _ in range(1000):
        optimizer.step(one(0), one(1e-9))
    kept = optimizer.step(one(0), one(0))["w"][0] / 1e-3
    expected = 0.999999**1001 + sum(1e-9 * 0.999999**i for i in range(1, 1001))
    assert abs(kept - expected) < 2e-7


@pytest.mark.parametrize("bad", [0, -1, float("inf"), float("nan")])
def test_rates_and_tau_are_positive(bad):
    with pytest.raises(InputError, match=f"learning rate of {bad} .* give a positive number"):
        ServerMomentum(bad, 0.9)
    with pytest.raises(InputError, match=f"learning rate of {bad} .* give a positive number"):
        ServerAdam(bad, 0.9, 0.99, 0.001)
    with pytest.raises(InputError, match=f"tau of {bad} .* give a positive number"):
        ServerAdam(0.1, 0.9, 0.99, bad)


@pytest.mark.parametrize("bad", [1, 1.5, -0.1, float("inf"), float("nan")])
def test_momentum_and_betas_lie_between_zero_and_one(bad):
    says = rf"of {bad} is not possible: give a number in \[0, 1\)"
    with pytest.raises(InputError, match=f"momentum {says}"):
        ServerMomentum(0.1, bad)
    with pytest.raises(InputError, match=f"beta1 {says}"):
        ServerAdam(0.1, bad, 0.99, 0.001)
    with pytest.raises(InputError, match=f"beta2 {says}"):
        ServerAdam(0.1, 0.9, bad, 0.001)
