"""Class means of many nodes tell a covariance that nobody sent; those of one node tell none."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed_ist.statistics.anchors import BIAS, WEIGHT, features, judge_means, solve_means
from fed_ist.statistics.class_means import (
    ClassSums,
    count_means,
    estimate_gram,
    scatter_of_means,
)
from fed_ist.statistics.ridge import GramSum, class_sums, gram_statistics, solve_ridge, whole_gram

CLASSES, D = 4, 12
SCALES = np.logspace(0.5, -0.5, D)  # of unlike directions, so that a covariance is worth something


def draw(seed, n):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, n)
    centres = np.random.default_rng(99).normal(size=(CLASSES, D)) * 0.4
    x = 3 + centres[labels] + rng.normal(size=(n, D)) * SCALES
    return features(x.astype(np.float32), None), labels


def summed(x, labels, n_nodes):
    """(the sum over nodes, their number of means)."""
    total, n_means = GramSum(), 0
    for rows in np.array_split(np.arange(len(labels)), n_nodes):
        found = ClassSums(class_sums(x[rows], labels[rows], CLASSES))
        total.add(scatter_of_means(found))
        n_means += count_means(found)
    return total.total(), n_means


def accuracy(head, x, labels):
    weight, bias = head
    return np.mean((x @ weight.T + bias).argmax(axis=1) == labels)


def test_with_many_nodes_a_head_is_as_good_as_one_from_all_products():
    x, labels = draw(0, 4000)
    new = draw(1, 4000)
    free = solve_ridge(estimate_gram(*summed(x, labels, 100)), 0.0)
    exact = solve_ridge(gram_statistics(x, labels, CLASSES), 0.0)
    alone = solve_ridge(estimate_gram(*summed(x, labels, 1)), 0.0)
    assert accuracy(free, *new) > accuracy(exact, *new) - 0.02
    assert accuracy(free, *new) > accuracy(alone, *new) + 0.05


def test_the_means_of_one_node_tell_no_covariance():
    stats, n_means = summed(*draw(0, 200), 1)
    assert n_means == CLASSES
    whole = whole_gram(estimate_gram(stats, n_means))[:-1, :-1]
    within = whole - whole_gram(stats)[:-1, :-1]
    assert within[0, 0] > 1
    assert within == pytest.approx(within[0, 0] * np.eye(D), abs=1e-9)


@given(seed=st.integers(0, 2**32), n=st.integers(1, 200), n_nodes=st.integers(1, 6))
def test_estimates_count_all_images_and_are_sums_of_squares(seed, n, n_nodes):
    x, labels = draw(seed, n)
    stats, n_means = summed(x, labels, n_nodes)
    found = estimate_gram(stats, n_means)
    whole, exact = whole_gram(found), whole_gram(gram_statistics(x, labels, CLASSES))
    assert whole[-1] == pytest.approx(exact[-1], abs=1e-4 * n)
    assert np.linalg.eigvalsh(whole)[0] > -1e-6 * n
    # Embeddings have length 1.
    assert np.trace(whole[:-1, :-1]) == pytest.approx(n, rel=1e-3)


def test_an_anchor_of_class_means_is_a_head_as_nodes_get_it():
    anchor = solve_means(*summed(*draw(0, 400), 5), 8.0)
    assert anchor[WEIGHT].shape == (CLASSES, D) and anchor[WEIGHT].dtype == np.float32
    assert anchor[BIAS].shape == (CLASSES,) and anchor[BIAS].dtype == np.float32


def test_class_means_of_random_labels_are_no_anchor():
    x, labels = draw(0, 400)
    assert not judge_means(summed(x, labels, 5)[0])
    for seed in range(20):
        shuffled = np.random.default_rng(seed).permutation(labels)
        assert "chance" in judge_means(summed(x, shuffled, 5)[0])


def test_a_single_class_is_no_anchor():
    x, labels = draw(0, 40)
    assert "chance" in judge_means(summed(x, 0 * labels, 2)[0])
