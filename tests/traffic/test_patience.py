"""How long answers are waited for, and how often silent nodes are asked: laws, on plain numbers."""

from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed_ist.traffic.patience import (
    GRACE,
    GRACE_S,
    JITTER_S,
    LEAST_GRACE,
    LOSS_SHARE,
    MARGIN,
    Patience,
)
from fed_ist.traffic.rests import MOST_ROUNDS, Rests

seconds = st.floats(1.0, 300.0)
ODD = 7  # the node that is unlike the others


@given(st.lists(seconds, min_size=1, max_size=9), seconds, seconds)
def test_a_node_is_waited_for_as_long_as_it_usually_takes_and_half_as_long_again(own, other, lost):
    patience = Patience("train")
    for each in own:
        patience.note("train", {1: other, ODD: each}, 0.0)
    patience.note("train", {1: other}, 1e6 * lost)  # however much was lost before
    assert patience.until_s("train", {1: other}, [ODD]) >= MARGIN * median(own)
    patience.note_silent(ODD)
    slowest = patience.until_s("train", {1: other}, [ODD])
    assert slowest == pytest.approx(other + LEAST_GRACE * other + JITTER_S)


@given(seconds, seconds, st.integers(0, 40))
def test_others_are_waited_for_as_long_as_the_others_took_twice_over_at_most(before, last, n_left):
    patience = Patience("train")
    patience.note("query", {1: before}, 0.0)
    until_s = patience.until_s("train", {1: last}, [ODD], n_left)
    may_lose_s = LOSS_SHARE * (before + last * (1 + n_left))
    grace_s = max(JITTER_S + LEAST_GRACE * last, min(GRACE_S + GRACE * last, may_lose_s))
    assert until_s == pytest.approx(last + grace_s)


@given(st.floats(5.0, 300.0), st.floats(5.0, 900.0), st.integers(1, 60), st.integers(0, 60))
def test_what_one_silent_node_costs_a_run_is_bounded(round_s, prepare_s, n_rounds, n_answered):
    """Rounds of a deployment take 5 s and more, as Flower looks for messages each 3 s."""
    patience, rests, took, n_asked = Patience("train"), Rests(), prepare_s, 0
    patience.note("query", {1: prepare_s, ODD: prepare_s}, 0.0)
    for server_round in range(1, n_rounds + 1):
        answered = {1: round_s}
        if rests.rests("odd", server_round):
            until_s = round_s
        elif server_round <= n_answered:
            answered[ODD] = until_s = round_s
        else:
            n_asked += 1
            n_left = n_rounds - server_round
            until_s = patience.until_s("train", answered, [ODD], n_left)
            patience.note_silent(ODD)
            rests.note_silent("odd", server_round)
        patience.note("train", answered, until_s - round_s)
        took += until_s
    alone_s = prepare_s + n_rounds * round_s
    least_s = n_asked * (JITTER_S + LEAST_GRACE * round_s)
    known_s = (MARGIN - 1) * round_s + JITTER_S
    assert took <= (1 + LOSS_SHARE) * alone_s + least_s + known_s
    assert n_asked <= 1 + len(f"{n_rounds:b}")


@given(seconds, st.floats(1.0, 1e4))
def test_a_node_that_was_late_is_waited_for_as_far_as_the_loss_allows(last, late):
    patience = Patience("train")
    patience.note("train", {1: last}, 0.0)
    patience.note_silent(ODD)
    patience.note_late("train", ODD, late)
    generous = patience.until_s("train", {1: last}, [ODD], 10**6)
    assert generous >= MARGIN * late
    patience.note("train", {1: last}, 1e9)
    assert patience.until_s("train", {1: last}, [ODD], 10**3) == pytest.approx(
        last + LEAST_GRACE * last + JITTER_S
    )


def test_silences_on_end_double_the_rest_up_to_a_bound():
    rests, now, pauses = Rests(), 1, []
    for _ in range(7):
        again = rests.note_silent("north", now)
        pauses.append(again - now - 1)
        assert all(rests.rests("north", r) for r in range(now, again))
        assert not rests.rests("north", again)
        now = again
    assert pauses == [2, 4, 8, 16, 32, MOST_ROUNDS, MOST_ROUNDS]
    rests.note_alive("north")
    assert not rests.rests("north", now)
    assert rests.note_silent("north", now) == now + 3


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), max_size=9))
def test_rests_go_on_as_they_were_saved(silences):
    before, after = Rests(), Rests()
    for name, server_round in silences:
        before.note_silent(name, server_round)
    after.restore(before.save())
    for name in "abcd":
        assert after.was_silent(name) == before.was_silent(name)
        for server_round in range(60):
            assert after.rests(name, server_round) == before.rests(name, server_round)
