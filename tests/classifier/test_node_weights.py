"""How much a node may count for, whatever it states."""

from hypothesis import given
from hypothesis import strategies as st

from fed_ist.classifier.node_weights import bounded_weights, low_median

COUNTS = st.lists(st.integers(1, 2**29 - 1), min_size=1, max_size=20)


def test_the_median_of_a_worked_example():
    assert low_median([3, 1, 2]) == 2
    assert low_median([4, 1, 2, 10**9]) == 2
    assert low_median([7]) == 7


@given(COUNTS, st.floats(1, 10))
def test_no_node_counts_for_more_than_so_many_times_the_median_or_than_it_states(counts, most):
    weights = list(bounded_weights(dict(enumerate(counts)), most).values())
    assert all(1 <= weight <= count for weight, count in zip(weights, counts, strict=True))
    assert max(weights) <= max(1, most * low_median(counts))


@given(COUNTS)
def test_without_a_bound_all_count_for_what_they_state(counts):
    stated = dict(enumerate(counts))
    assert bounded_weights(stated, 0) == stated


@given(st.lists(st.integers(1, 1000), min_size=3, max_size=20), st.integers(1001, 2**29 - 1))
def test_a_single_liar_gets_no_more_than_so_many_times_what_the_largest_honest_node_has(
    honest, stated
):
    counts = {**dict(enumerate(honest)), "liar": stated}
    assert bounded_weights(counts, 4.0)["liar"] <= 4 * max(honest)
