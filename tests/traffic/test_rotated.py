"""One or two bits a number: the error is at right angles to the numbers, and as large as proven."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fed_ist.traffic.rotated import dequantise, quantise, rotate, rotated_bytes

LENGTHS = st.integers(1, 300)
BITS = st.sampled_from([1, 2])
LIKELY = {1: np.pi / 2 - 1, 2: 0.1333}  # of a long vector, by DRIVE's and EDEN's theorems


def vectors(largest=2.0**100):
    numbers = st.floats(-largest, largest, width=32)
    return LENGTHS.flatmap(lambda n: arrays(np.float32, n, elements=numbers))


def back(values, bits, seed=0):
    data = quantise(values, bits, np.random.default_rng(seed))
    assert len(data) == rotated_bytes(len(values), bits)
    return dequantise(data, len(values), bits)


@given(values=vectors(1024.0).map(lambda v: v.astype(np.float64)), seed=st.integers(0, 2**32 - 1))
def test_a_rotation_keeps_lengths_and_is_undone(values, seed):
    turned = rotate(values, seed)
    assert np.linalg.norm(turned) == pytest.approx(np.linalg.norm(values))
    assert np.allclose(rotate(turned, seed, back=True), values, atol=1e-9)


@given(values=vectors(), bits=BITS, seed=st.integers(0, 9))
def test_the_error_is_orthogonal_to_the_numbers_and_bounded(values, bits, seed):
    largest = float(np.abs(values).max())
    exact = values.astype(np.float64) / (largest or 1)
    found = back(values, bits, seed).astype(np.float64) / (largest or 1)
    square = exact @ exact
    assert exact @ found == pytest.approx(square, rel=1e-5)
    assert np.sum((found - exact) ** 2) <= (len(values) - 1) * square * (1 + 1e-5) + 1e-9


@pytest.mark.parametrize("bits", [1, 2])
@pytest.mark.parametrize("n", [1000, 4096, 5790])
def test_the_error_of_a_long_vector_is_the_proven_one_whatever_its_numbers(n, bits):
    rng = np.random.default_rng(1)
    for values in (rng.normal(size=n), rng.normal(size=n) ** 5, np.eye(1, n)[0], np.ones(n)):
        error = np.mean([np.sum((back(values, bits, s) - values) ** 2) for s in range(20)])
        assert error / np.sum(values**2) == pytest.approx(LIKELY[bits], rel=0.1)


@pytest.mark.parametrize("bits", [1, 2])
def test_the_mean_over_rotations_is_right(bits):
    values = np.random.default_rng(3).normal(size=60).astype(np.float32)
    mean = np.mean([back(values, bits, seed) for seed in range(2000)], axis=0)
    assert np.linalg.norm(mean - values) < 0.05 * np.linalg.norm(values)


def test_zeros_stay_zeros_and_the_largest_numbers_stay_finite():
    assert not back(np.zeros(9, np.float32), 1).any()
    largest = np.full(8, np.finfo(np.float32).max)
    assert np.isfinite(back(largest, 1)).all()


def test_signs_are_the_same_everywhere():
    """Written down once: both sides must draw the same, whatever their version of numpy."""
    turned = rotate(np.arange(1.0, 7.0), 7)
    assert np.round(turned, 4).tolist() == [-4.0, -1.0, 0.0, 1.0, -8.0, 3.0]
