"""Gaussians of classes: their moments by hand, and what is drawn from them."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fed_ist.statistics.gaussians import Gaussians, class_gaussians, sample_gaussians

SEEDS = st.integers(0, 2**32)
COUNTS = st.lists(st.lists(st.integers(0, 20), min_size=3, max_size=3), min_size=1, max_size=4)


def node(counts, seed: int = 0, d: int = 2):
    """Gaussians far from each other and narrow, so that a sample tells where it comes from."""
    rng = np.random.default_rng(seed)
    means = 1000 * rng.normal(size=(len(counts), d))
    variances = rng.uniform(0.5, 2, (len(counts), d))
    return Gaussians(means.astype(np.float32), variances.astype(np.float32), np.array(counts))


def test_means_and_variances_of_a_worked_example():
    x = np.array([[1, 0], [3, 0], [5, 6], [7, 7]], np.float32)
    found = class_gaussians(x, np.array([2, 2, 2, 0]), 3)
    # Class 2: 1, 3, 5 around 3 and 0, 0, 6 around 2.
    assert found.means.tolist() == [[7, 7], [0, 0], [3, 2]]
    assert np.allclose(found.variances, [[0, 0], [0, 0], [(4 + 0 + 4) / 3, (4 + 4 + 16) / 3]])
    assert found.counts.tolist() == [1, 0, 3]
    assert found.means.dtype == found.variances.dtype == np.float32
    assert found.counts.dtype == np.int64


def test_a_node_without_examples_has_gaussians_of_nothing():
    found = class_gaussians(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), 3)
    assert found.means.shape == found.variances.shape == (3, 4)
    assert not found.means.any()
    assert not found.variances.any()
    assert found.counts.tolist() == [0, 0, 0]


def test_a_variance_small_beside_its_mean_is_not_lost():
    """Float32 holds 10,000,000 and 10,000,002 but not their sums: it would find 901."""
    x = np.repeat(np.array([[10_000_000] * 2, [10_000_002] * 2], np.float32), 500, axis=0)
    found = class_gaussians(x, np.zeros(1000, np.int64), 1)
    assert found.means.tolist() == [[10_000_001] * 2]
    assert found.variances.tolist() == [[1] * 2]


@given(counts=COUNTS, n_samples=st.integers(0, 100), seed=SEEDS)
def test_each_gaussian_gets_its_share_rounded_up_or_down(counts, n_samples, seed):
    assume(np.sum(counts) > 0)
    nodes = [node(each, i) for i, each in enumerate(counts)]
    x, labels = sample_gaussians(nodes, n_samples, np.random.default_rng(seed))
    assert x.shape == (n_samples, 2)
    assert x.dtype == np.float32
    assert labels.dtype == np.int64
    means = np.concatenate([each.means for each in nodes])
    origin = np.linalg.norm(x[:, None] - means, axis=2).argmin(axis=1)
    assert (labels == origin % 3).all()
    drawn = np.bincount(origin, minlength=len(means))
    share = n_samples * np.ravel(counts) / np.sum(counts)
    assert (np.floor(share - 1e-9) <= drawn).all()
    assert (drawn <= np.ceil(share + 1e-9)).all()
    assert not drawn[np.ravel(counts) == 0].any()


def test_shares_of_a_worked_example():
    """30 and 10 examples on one node, 60 of the second class on the other: 3, 1 and 6 of 10."""
    nodes = [node([30, 10], 0), node([0, 60], 1)]
    x, labels = sample_gaussians(nodes, 10, np.random.default_rng(0))
    assert labels.tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 1, 1]
    assert np.linalg.norm(x[3:4] - nodes[0].means[1], axis=1) < 10
    assert (np.linalg.norm(x[4:] - nodes[1].means[1], axis=1) < 10).all()


def test_a_share_below_one_sample_is_drawn_as_often_as_it_should():
    """3 examples of 10 for a single sample: in 3 of 10 draws."""
    nodes = [node([7, 3])]
    drawn = [sample_gaussians(nodes, 1, np.random.default_rng(seed))[1][0] for seed in range(2000)]
    assert abs(np.mean(drawn) - 0.3) < 0.03


def test_samples_have_the_moments_of_the_examples():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 2000)
    x = (rng.normal(size=(2000, 3)) * [1, 2, 0.5] + np.array([[0, 5, 1], [-3, 0, 2]])[y]).astype(
        np.float32
    )
    given_away = class_gaussians(x, y, 2)
    drawn, labels = sample_gaussians([given_away], 50_000, np.random.default_rng(1))
    again = class_gaussians(drawn, labels, 2)
    assert np.allclose(again.means, given_away.means, atol=0.05)
    assert np.allclose(again.variances, given_away.variances, rtol=0.05)
    # Diagonal: no coordinate tells of another.
    correlations = np.corrcoef(drawn[labels == 0].T)
    assert np.abs(correlations - np.eye(3)).max() < 0.03


def test_a_class_of_one_example_is_drawn_as_that_example():
    x = np.array([[1.5, -2]], np.float32)
    alone = class_gaussians(x, np.array([1]), 3)
    drawn, labels = sample_gaussians([alone], 4, np.random.default_rng(0))
    assert (drawn == x).all()
    assert labels.tolist() == [1] * 4


def test_from_no_examples_nothing_can_be_drawn():
    with pytest.raises(ValueError, match="No node has an example"):
        sample_gaussians([node([0, 0]), node([0, 0], 1)], 5, np.random.default_rng(0))


def test_the_same_seed_draws_the_same_samples_and_another_seed_others():
    nodes = [node([5, 3]), node([2, 9], 1)]
    first, same, differs = (
        sample_gaussians(nodes, 20, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert (first[0] == same[0]).all()
    assert (first[1] == same[1]).all()
    assert (first[0] != differs[0]).any()
