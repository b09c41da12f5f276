"""Statistics as they travel: what comes is what was summed, in few bits and of few examples."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fed_ist.statistics.anchors import anchor_logits, features, solve_anchor
from fed_ist.statistics.factors import factorise, from_factor, noisy
from fed_ist.statistics.ridge import Gram, GramSum, centre, gram_statistics, whole_gram, with_noise
from fed_ist.traffic.codecs import decode, encode, shapes_of

SEEDS = st.integers(0, 2**32)
ALIKE = 0.03  # how far embeddings are from their mean, whose length is 1


def examples(seed, n, d=24, classes=4):
    """Embeddings much alike, as encoders give them: of variances over six decades."""
    rng = np.random.default_rng(seed)
    mean, scales = np.random.default_rng(7).normal(size=d), np.logspace(0, -3, d)
    centres = np.random.default_rng(8).normal(size=(classes, d)) * scales
    labels = rng.integers(0, classes, n)
    spread = centres[labels] + 0.5 * rng.normal(size=(n, d)) * scales
    x = mean / np.linalg.norm(mean) + ALIKE * spread
    return features(x.astype(np.float32), None), labels


def came(stats, codec):
    triangle, sums = factorise(stats)
    arrays = {"gram": triangle, "sums": sums}
    found = decode(encode(arrays, codec, np.random.default_rng(0)), codec, shapes_of(arrays))
    return from_factor(found["gram"], found["sums"], codec)


def of_nodes(x, labels, n_nodes, codec):
    total = GramSum()
    for rows in np.array_split(np.arange(len(labels)), n_nodes):
        total.add(came(gram_statistics(x[rows], labels[rows], 4), codec))
    return total.total()


def test_the_factor_of_a_worked_example():
    """1 and 5 about their mean 3: a scatter of 8, and sums of -2 and 2."""
    stats = gram_statistics(np.array([[1], [5]], np.float32), np.array([0, 1]), 2)
    triangle, sums = factorise(stats)
    assert np.abs(triangle).tolist() == pytest.approx([np.sqrt(8), 3, 2])
    assert sums.tolist() == [[-2, 1], [2, 1]]


@settings(deadline=None, max_examples=25)
@given(seed=SEEDS, n=st.integers(0, 60))
def test_what_was_summed_comes_back(seed, n):
    stats = gram_statistics(*examples(seed, n), 4)
    back = from_factor(*factorise(stats), "fp32")
    assert back.gram == pytest.approx(stats.gram, abs=1e-6 * max(n, 1))
    assert back.sums == pytest.approx(stats.sums, abs=1e-6 * max(n, 1))
    assert np.isclose(back.sums[:, -1].sum(), n)


@settings(deadline=None, max_examples=25)
@given(seed=SEEDS, n=st.integers(30, 300), n_nodes=st.integers(1, 8))
def test_small_variances_outlive_sixteen_bits(seed, n, n_nodes):
    """Of sums of squares fp16 keeps the largest of six decades alone; of a factor all."""
    x, labels = examples(seed, n)
    exact, found = (of_nodes(x, labels, n_nodes, codec) for codec in ("fp32", "fp16"))
    a, b = centre(exact), centre(found)
    assert b.values == pytest.approx(a.values, rel=0.05, abs=b.lost)
    assert b.lost < 1e-2 * a.values.mean()


def test_rounded_as_they_are_sums_of_squares_lose_them():
    stats = gram_statistics(*examples(0, 300), 4)
    rounded = Gram(*(array.astype(np.float16).astype(float) for array in (stats.gram, stats.sums)))
    exact, found = centre(stats).values, centre(rounded).values
    assert (np.abs(found - exact)[:8] > 0.9 * exact[:8]).all()


@settings(deadline=None, max_examples=25)
@given(seed=SEEDS, n=st.integers(40, 300), n_nodes=st.integers(1, 8))
def test_an_anchor_from_sixteen_bits_predicts_as_one_from_all(seed, n, n_nodes):
    x, labels = examples(seed, n)
    new, truth = examples(seed + 1, 1000)
    heads = (solve_anchor(of_nodes(x, labels, n_nodes, codec), 1.0) for codec in ("fp32", "fp16"))
    exact, found = ((anchor_logits(h, new).argmax(axis=1) == truth).mean() for h in heads)
    assert abs(exact - found) < 0.02


@settings(deadline=None, max_examples=25)
@given(seed=SEEDS, n=st.integers(1, 30))
def test_any_factor_is_a_scatter_that_some_examples_have(seed, n):
    """Whatever fp16 does to it, no eigenvalue is below 0 by more than rounding in float64."""
    back = came(gram_statistics(*examples(seed, n), 4), "fp16")
    moments = whole_gram(back)
    assert np.linalg.eigvalsh(moments)[0] > -1e-3 * n * ALIKE**2


def test_what_fp16_may_have_made_is_known_to_be_noise():
    """A direction without variance, as layer norm leaves one, has none beyond that afterwards."""
    x, labels = examples(3, 200)
    x = x - x.mean(axis=1, keepdims=True)
    found = centre(came(gram_statistics(x, labels, 4), "fp16"))
    assert 0 <= found.values[0] <= 2 * found.lost < found.values[1]


def test_a_wide_embedding_of_few_examples_travels_too():
    x, labels = examples(0, 10, d=40)
    back = came(gram_statistics(x, labels, 4), "fp16")
    assert np.sum(centre(back).values > centre(back).lost) == 9  # examples less their mean


def test_noisy_statistics_know_their_rounding_too():
    stats = with_noise(gram_statistics(*examples(0, 50), 4), 0.001, np.random.default_rng(0))
    coarse, fine = (noisy(stats.gram, stats.sums, 0.001, codec).noise for codec in ("fp16", "fp32"))
    assert fine == pytest.approx(0.001**2, rel=1e-3)
    assert coarse > 1.5 * fine
