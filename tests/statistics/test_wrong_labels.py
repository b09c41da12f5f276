"""Class sums held against those of the other nodes: wrong labels show, unlike classes do not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fed_ist.datasets.partitions import split_indices
from fed_ist.statistics.gaussians import class_gaussians, within_share
from fed_ist.statistics.ridge import class_sums
from fed_ist.statistics.wrong_labels import agree, find_dissenters, inner_variance

SEEDS = st.integers(0, 2**16)
N_CLASSES, EMBED_DIM = 6, 16


def images(seed, n):
    """Embeddings of length 1 whose classes overlap, and their labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % N_CLASSES
    middles = np.random.default_rng(1).normal(size=(N_CLASSES, EMBED_DIM))
    values = middles[labels] + 2 * rng.normal(size=(n, EMBED_DIM)) + 3
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return values.astype(np.float32), labels


def dealt(seed, n_nodes, n, partitioner, wrong=None, **how):
    """The sums of each node; of node 0 with labels moved on by `wrong`."""
    values, labels = images(seed, n)
    how = {"alpha": 0.3, "classes_per_node": 3, "by": None} | how
    partitions = split_indices(labels, partitioner, n_nodes, seed=seed, **how)
    given = [labels[rows] for rows in partitions]
    if wrong:
        given[0] = (given[0] + wrong) % N_CLASSES
    return {
        str(i): class_sums(values[rows], own, N_CLASSES)
        for i, (rows, own) in enumerate(zip(partitions, given, strict=True))
    }


def judged(sums):
    return find_dissenters(sums, inner_variance(sum(sums.values())))


@settings(max_examples=25)
@given(
    seed=SEEDS,
    n_nodes=st.integers(4, 12),
    partitioner=st.sampled_from(["iid", "dirichlet", "pathological"]),
)
def test_no_honest_node_is_left_out_however_its_classes_are(seed, n_nodes, partitioner):
    assert not judged(dealt(seed, n_nodes, 1200, partitioner))


@settings(max_examples=25)
@given(seed=SEEDS, wrong=st.integers(1, N_CLASSES - 1), n_nodes=st.integers(4, 12))
def test_a_node_with_wrong_labels_is_left_out_and_no_other(seed, wrong, n_nodes):
    assert set(judged(dealt(seed, n_nodes, 1200, "iid", wrong))) == {"0"}


def test_images_where_the_others_have_them_agree_by_one_and_labels_dealt_at_random_by_none():
    sums = dealt(0, 2, 4000, "iid")
    variance = inner_variance(sums["0"] + sums["1"])
    honest = agree(sums["0"], sums["1"], variance)
    assert honest.share == pytest.approx(1, abs=3 * honest.chance)
    values, labels = images(0, 4000)
    shuffled = np.random.default_rng(0).permutation(labels)
    by_chance = agree(class_sums(values, shuffled, N_CLASSES), sums["1"], variance)
    assert by_chance.share == pytest.approx(0, abs=0.2)


def test_classes_that_nobody_else_has_are_not_judged():
    values, labels = images(0, 600)
    sums = {
        str(label): class_sums(values[labels == label], labels[labels == label], N_CLASSES)
        for label in range(N_CLASSES)
    }
    assert not judged(sums)
    assert agree(sums["0"], sum(sums.values()) - sums["0"], 0.5).chance == np.inf


def test_where_half_are_wrong_nobody_is_left_out():
    honest, wrong = dealt(0, 6, 3000, "iid"), dealt(0, 6, 3000, "iid", wrong=1)
    values, labels = images(5, 1500)
    moved = class_sums(values, (labels + 1) % N_CLASSES, N_CLASSES)
    sums = {"0": honest["0"], "1": honest["1"], "2": moved, "3": moved}
    assert not judged(sums)
    assert set(judged(wrong)) == {"0"}


def test_of_three_nodes_nobody_is_judged_unless_earlier_ones_are_trusted():
    sums = dealt(0, 3, 1500, "iid", wrong=2)
    assert not judged(sums)
    before = dealt(1, 1, 1500, "iid")["0"]
    assert set(find_dissenters(sums, inner_variance(before), before=before)) == {"0"}


def test_noise_that_hides_the_images_costs_one_federation_in_fifty_a_node_at_most():
    """With noise as large as the sums, agreement is chance, and chance has its outliers."""
    n_federations, n_wronged = 50, 0
    for seed in range(n_federations):
        rng = np.random.default_rng(seed)
        sums = {
            name: own + rng.normal(0, 50, own.shape)
            for name, own in dealt(seed, 8, 1200, "iid", wrong=1).items()
        }
        n_wronged += bool(find_dissenters(sums, 0.5, noise=50.0**2))
    assert n_wronged <= n_federations / 50


def test_gaussians_have_the_sums_and_the_variance_of_their_images_and_a_share_has_fewer():
    values, labels = images(0, 300)
    found = class_gaussians(values, labels, N_CLASSES)
    assert found.sums == pytest.approx(class_sums(values, labels, N_CLASSES), rel=1e-4, abs=1e-3)
    means = found.means[labels]
    assert found.variance == pytest.approx(np.sum((values - means) ** 2, axis=1).mean(), rel=1e-4)
    assert within_share(found, 0.1).counts.tolist() == [5] * N_CLASSES
