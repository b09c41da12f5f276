"""Sums that do not depend on the order of their terms."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fed_ist.classifier.exact_sum import CHUNK, ExactSum

TERMS = st.lists(
    st.tuples(
        arrays(np.float32, 3, elements=st.floats(-(2.0**99), 2.0**99, width=32)),
        st.integers(1, 2**29 - 1),
    ),
    min_size=1,
    max_size=12,
)


def summed(terms, way):
    total = ExactSum((3,))
    for values, factor in terms:
        if way == "whole":
            total.add(values, factor)
        else:
            for i in range(3):
                total.add_at(slice(i, i + 1), values[i : i + 1], factor)
    return total.total()


@pytest.mark.parametrize("way", ["whole", "in parts"])
@given(terms=TERMS, data=st.data())
def test_in_any_order_the_total_is_the_exact_one_rounded(way, terms, data):
    """To within the 106 bits that there are for numbers of the size of the largest term."""
    exact = [math.fsum(float(values[i]) * factor for values, factor in terms) for i in range(3)]
    largest = max(float(np.abs(values).max()) * factor for values, factor in terms)
    for order in (terms, data.draw(st.permutations(terms))):
        assert summed(order, way) == pytest.approx(exact, rel=1e-15, abs=largest * 2.0**-100)


def test_what_float64_would_lose_is_kept():
    terms = [(np.array([2.0**60, 1.0, 0.0], np.float32), 1), (np.ones(3, np.float32), 1)]
    terms.append((np.array([-(2.0**60), 0.0, 0.0], np.float32), 1))
    assert summed(terms, "whole").tolist() == [1.0, 2.0, 1.0]


def test_an_array_of_many_chunks_is_summed_whole():
    values = np.arange(2 * CHUNK + 5, dtype=np.float32).reshape(1, -1)
    total = ExactSum(values.shape)
    for factor in (1, 2, 4):
        total.add(values, factor)
    assert (total.total() == 7 * values).all()
