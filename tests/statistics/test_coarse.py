"""Statistics in 8 or 4 bits a number: counts are exact, honest ones pass, and heads lose little."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed_ist.statistics.anchors import features
from fed_ist.statistics.coarse import (
    MEANS,
    coarse_gram,
    coarse_shapes,
    coarse_sums,
    gram_of,
    rounding_of_sums,
    sums_of,
)
from fed_ist.statistics.cross_validation import choose_strength
from fed_ist.statistics.plausible import (
    require_possible_counts,
    require_possible_gram,
    require_possible_means,
)
from fed_ist.statistics.ridge import GramSum, class_sums, gram_statistics, solve_ridge
from fed_ist.traffic.codecs import decode, encode, shapes_of

SEEDS = st.integers(0, 2**32)
COUNTS = st.integers(1, 300)
CLASSES = 5


def examples(seed, n, d=24):
    """Embeddings of any scale, some of them alike, and labels that leave classes out."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) * 10.0 ** rng.uniform(-3, 3) + rng.normal(size=d)
    return features(x.astype(np.float32), None), rng.integers(0, rng.integers(1, CLASSES + 1), n)


def as_it_comes(arrays, codec, seed=0):
    return decode(encode(arrays, codec, np.random.default_rng(seed)), codec, shapes_of(arrays))


def means_that_came(x, labels, codec, seed=0):
    sent = coarse_sums(class_sums(x, labels, CLASSES))
    return as_it_comes(sent.arrays, codec, seed), np.array(sent.counts)


def gram_that_came(x, labels, seed=0):
    sent = coarse_gram(gram_statistics(x, labels, CLASSES))
    arrays = as_it_comes(sent.arrays, "int8", seed)
    return gram_of(arrays, np.array(sent.counts), sent.reference, "int8")


@given(seed=SEEDS, n=COUNTS, codec=st.sampled_from(["int8", "int4"]))
def test_class_means_of_any_images_are_possible_and_their_counts_exact(seed, n, codec):
    x, labels = examples(seed, n)
    arrays, counts = means_that_came(x, labels, codec, seed)
    require_possible_counts(counts, n)
    require_possible_means(arrays[MEANS], codec)
    assert sums_of(arrays, counts)[:, -1].tolist() == np.bincount(labels, minlength=5).tolist()


@given(seed=SEEDS, n=COUNTS)
def test_sums_of_products_of_any_images_are_possible(seed, n):
    x, labels = examples(seed, n)
    stats = gram_that_came(x, labels, seed)
    require_possible_gram(stats, n, "int8")
    assert stats.sums[:, -1].sum() == n


@given(seed=SEEDS, n=st.integers(1, 100))
def test_a_gram_is_what_was_summed_but_for_rounding(seed, n):
    x, labels = examples(seed, n)
    exact, came = gram_statistics(x, labels, CLASSES), gram_that_came(x, labels, seed)
    assert came.gram == pytest.approx(exact.gram, abs=0.05 * n)
    assert came.sums == pytest.approx(exact.sums, abs=0.02 * n)


def test_rounding_is_as_large_as_is_said():
    x, labels = examples(3, 200)
    exact = class_sums(x, labels, CLASSES)
    errors = []
    for seed in range(100):
        arrays, counts = means_that_came(x, labels, "int4", seed)
        errors.append(sums_of(arrays, counts) - exact)
    said = rounding_of_sums(arrays, counts, "int4")
    assert np.mean(np.square(errors)[..., :-1]) == pytest.approx(said, rel=0.5)


def test_a_ridge_from_8_bits_classifies_new_images_as_well():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CLASSES, 24))

    def draw(n):
        labels = rng.integers(0, CLASSES, n)
        return features(
            (centres[labels] + 1.5 * rng.normal(size=(n, 24))).astype("f4"), None
        ), labels

    exact, coarse = GramSum(), GramSum()
    for seed in range(8):
        x, labels = draw(120)
        exact.add(gram_statistics(x, labels, CLASSES))
        coarse.add(gram_that_came(x, labels, seed))
    x, labels = draw(4000)
    accuracies = []
    for stats in (exact.total(), coarse.total()):
        weight, bias = solve_ridge(stats, choose_strength(stats))
        accuracies.append(np.mean((x @ weight.T + bias).argmax(axis=1) == labels))
    assert accuracies[1] > accuracies[0] - 0.01 > 0.8


@pytest.mark.parametrize(
    ("means", "reason"),
    [([[2.0, 0], [0, 0]], "length 2"), ([[0.9, 0.9], [0, 0]], "length 1.27")],
)
def test_a_mean_longer_than_an_embedding_is_refused(means, reason):
    with pytest.raises(ValueError, match=reason):
        require_possible_means(np.float32(means), "int8")


@pytest.mark.parametrize("counts", [[5, -1], [3, 2], [2, 1]])
def test_counts_that_are_not_those_of_the_node_s_images_are_refused(counts):
    with pytest.raises(ValueError, match="not 4"):
        require_possible_counts(np.array(counts), 4)


def test_both_sides_know_the_shapes():
    sent = coarse_gram(gram_statistics(*examples(0, 9), CLASSES))
    assert shapes_of(sent.arrays) == coarse_shapes(CLASSES, 24, with_root=True)
    alone = coarse_sums(class_sums(*examples(0, 9), CLASSES))
    assert shapes_of(alone.arrays) == coarse_shapes(CLASSES, 24, with_root=False)
