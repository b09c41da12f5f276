"""The linear head under the classifier, and training of the leading neurons alone."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from fed_ist.classifier.dealing import leading_neurons
from fed_ist.classifier.layout import hidden_widths, init_params
from fed_ist.classifier.network import forward
from fed_ist.classifier.slices import Subnet, extract, merge
from fed_ist.statistics.anchors import (
    BIAS,
    INPUTS_BIAS,
    INPUTS_WEIGHT,
    PROJECTION,
    WEIGHT,
    anchor_logits,
    classifier_inputs,
    draw_projection,
    features,
    solve_anchor,
    solve_inputs,
    start_silent,
    trained_and_fixed,
    with_projection,
)
from fed_ist.statistics.ridge import gram_statistics
from fed_ist.training.local import LocalTraining, evaluate, predict, train

ONE_STEP = LocalTraining(
    local_epochs=1, local_steps=1, batch_size=64, optimizer="sgd", learning_rate=0.1
)
SOME_STEPS = LocalTraining(
    local_epochs=3, local_steps=0, batch_size=16, optimizer="adam", learning_rate=0.01
)


def examples(n: int = 40, embed: int = 5, seed: int = 0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    x = rng.normal(size=(n, embed)).astype(np.float32)
    x[np.arange(n), labels] += 2
    return x, labels


def params(hidden: int = 8, norm: str = "none"):
    return init_params(5, hidden, 3, np.random.default_rng(1), norm=norm)


def new_rng(seed: int = 0):
    return np.random.default_rng(seed)


def anchor(n_features: int = 5, seed: int = 2):
    rng = np.random.default_rng(seed)
    return {
        WEIGHT: rng.normal(size=(3, n_features)).astype(np.float32),
        BIAS: rng.normal(size=3).astype(np.float32),
    }


def array(rows):
    return np.array(rows, dtype=np.float32)


def test_features_of_a_worked_example():
    assert features(array([[3, 4], [0, -2]]), None) == pytest.approx(array([[0.6, 0.8], [0, -1]]))
    projection = array([[1, 0, -1], [0, 1, 0]])  # (3, 4) -> (3, 4, -3), of which relu leaves 3, 4
    assert features(array([[3, 4]]), projection) == pytest.approx(array([[0.6, 0.8, 0]]))


@given(seed=st.integers(0, 2**32), exponent=st.integers(-12, 12), projected=st.booleans())
def test_features_have_length_one_however_long_the_embedding_is(seed, exponent, projected):
    x = np.random.default_rng(seed).normal(size=(6, 4)).astype(np.float32)
    x *= np.float32(10.0**exponent)
    found = features(x, draw_projection(4, 40, seed) if projected else None)
    assert found.dtype == np.float32
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(6), abs=1e-5)


def test_an_embedding_of_zeros_has_features_of_zeros():
    assert not features(np.zeros((2, 3), dtype=np.float32), None).any()
    assert not features(np.zeros((2, 3), dtype=np.float32), draw_projection(3, 7, 0)).any()


def test_logits_of_a_worked_example():
    """(3, 4) is (0.6, 0.8) at length 1; 0.6 + 0.5 = 1.1 and 2 · 0.8 - 1 = 0.6."""
    head = {WEIGHT: array([[1, 0], [0, 2]]), BIAS: array([0.5, -1])}
    assert anchor_logits(head, array([[3, 4]])) == pytest.approx(array([[1.1, 0.6]]))
    projected = {
        PROJECTION: array([[1, 0, -1], [0, 1, 0]]),
        WEIGHT: array([[1, 0, 9], [0, 2, 9]]),
        BIAS: array([0.5, -1]),
    }
    assert anchor_logits(projected, array([[3, 4]])) == pytest.approx(array([[1.1, 0.6]]))


def test_the_scale_multiplies_the_logits():
    x, labels = examples()
    stats = gram_statistics(features(x, None), labels, 3)
    once, five = (anchor_logits(solve_anchor(stats, scale), x) for scale in (1.0, 5.0))
    assert five == pytest.approx(5 * once, abs=1e-5)


def test_the_anchor_separates_the_classes_it_was_solved_for():
    x, labels = examples(300)
    head = solve_anchor(gram_statistics(features(x, None), labels, 3), 1.0)
    unseen, truth = examples(300, seed=1)
    assert (anchor_logits(head, unseen).argmax(axis=1) == truth).mean() > 0.8


@pytest.mark.parametrize("projected", [False, True])
def test_a_prediction_is_the_classifier_s_and_the_anchor_s(projected):
    x, _ = examples()
    head = anchor(9) | {PROJECTION: draw_projection(5, 9, 0)} if projected else anchor()
    trained = params()
    expected = forward(trained, x, 1.0) + anchor_logits(head, x)
    assert predict(trained | head, x) == pytest.approx(expected, abs=1e-6)


def test_an_anchor_alone_and_a_classifier_alone_can_be_evaluated():
    x, labels = examples()
    head, trained = anchor(), params()
    logits = anchor_logits(head, x)
    accuracy, loss = evaluate(head, x, labels)
    assert accuracy == pytest.approx((logits.argmax(axis=1) == labels).mean())
    log_sums = np.log(np.exp(logits).sum(axis=1))
    assert loss == pytest.approx((log_sums - logits[np.arange(40), labels]).mean(), rel=1e-5)
    assert (predict(trained, x) == forward(trained, x, 1.0)).all()


def test_parameters_are_either_trained_or_fixed():
    trained = params()
    head = anchor() | {PROJECTION: draw_projection(5, 5, 0)} | inputs()
    for both in (trained | head, head | trained):
        found, found_head = trained_and_fixed(both)
        assert (set(found), set(found_head)) == (set(trained), set(head))
    assert trained_and_fixed(trained) == (trained, {})
    assert trained_and_fixed(head) == ({}, head)


def test_a_step_with_an_anchor_is_a_step_on_the_sum_of_logits():
    """The reference is an ordinary torch network whose loss sees the anchor's logits as numbers."""
    (x, labels), whole, head = examples(), params(), anchor()
    trained, loss = train(whole, lambda _: (x, labels), ONE_STEP, 1.0, new_rng(), head)

    w1, b1, w2, b2, w3, b3 = weights = [
        torch.tensor(whole[f"fc{i}.{kind}"], requires_grad=True)
        for i in (1, 2, 3)
        for kind in ("weight", "bias")
    ]
    hidden = torch.relu(torch.relu(torch.tensor(x) @ w1.T + b1) @ w2.T + b2)
    lengths = np.sqrt((x.astype(np.float64) ** 2).sum(axis=1, keepdims=True))
    offset = x / lengths @ head[WEIGHT].T.astype(np.float64) + head[BIAS]
    logits = hidden @ w3.T + b3 + torch.tensor(offset, dtype=torch.float32)
    expected_loss = functional.cross_entropy(logits, torch.tensor(labels))
    expected_loss.backward()

    assert loss == pytest.approx(expected_loss.item(), rel=1e-5)
    for name, weight in zip(whole, weights, strict=True):
        stepped = (weight - 0.1 * weight.grad).detach().numpy()
        assert trained[name] == pytest.approx(stepped, abs=1e-6), name
        assert (trained[name] != whole[name]).any(), name


def test_an_anchor_changes_what_is_learnt_and_is_not_learnt_itself():
    data, head = examples(), anchor()
    before = {name: values.copy() for name, values in head.items()}
    with_it, _ = train(params(), lambda _: data, SOME_STEPS, 1.0, new_rng(), head)
    without, _ = train(params(), lambda _: data, SOME_STEPS, 1.0, new_rng())
    assert set(with_it) == set(without)
    assert any((with_it[name] != without[name]).any() for name in without)
    assert all((head[name] == before[name]).all() for name in head)


def test_an_anchor_of_zeros_changes_nothing():
    data = examples()
    nothing = {name: np.zeros_like(values) for name, values in anchor().items()}
    with_it, _ = train(params(), lambda _: data, SOME_STEPS, 1.0, new_rng(), nothing)
    without, _ = train(params(), lambda _: data, SOME_STEPS, 1.0, new_rng())
    assert all((with_it[name] == without[name]).all() for name in without)


def test_each_batch_gets_the_offset_of_its_own_examples():
    """An anchor that already knows each label leaves next to nothing to learn, in any order."""
    labels = new_rng().integers(0, 3, 50)
    x = np.eye(3, dtype=np.float32)[labels]
    knows = {WEIGHT: 60 * np.eye(3, dtype=np.float32), BIAS: np.zeros(3, dtype=np.float32)}
    small = {name: values * np.float32(0.1) for name, values in init_small().items()}
    _, loss = train(small, lambda _: (x, labels), SOME_STEPS, 1.0, new_rng(), knows)
    assert loss < 1e-6


def init_small():
    return init_params(3, 4, 3, new_rng())


def test_random_features_are_drawn_from_the_seed_alone():
    head = anchor(34)
    drawn = with_projection(head, 192, 34, 7)
    assert set(drawn) == {WEIGHT, BIAS, PROJECTION}
    assert drawn[PROJECTION].shape == (192, 34)
    assert (drawn[PROJECTION] == with_projection(head, 192, 34, 7)[PROJECTION]).all()
    assert (drawn[PROJECTION] != with_projection(head, 192, 34, 8)[PROJECTION]).all()
    assert with_projection(head, 192, 0, 7) == head
    assert with_projection({}, 192, 34, 7) == {}


def inputs(embed: int = 5, seed: int = 3):
    rng = np.random.default_rng(seed)
    return {
        INPUTS_WEIGHT: rng.normal(size=(embed, embed)).astype(np.float32),
        INPUTS_BIAS: rng.normal(size=embed).astype(np.float32),
    }


def test_inputs_of_a_worked_example():
    """(3, 4) is (0.6, 0.8) at length 1; swapped and doubled (1.6, 1.2); less (1, 2)."""
    fixed = {INPUTS_WEIGHT: array([[0, 2], [2, 0]]), INPUTS_BIAS: array([-1, -2])}
    assert classifier_inputs(fixed, array([[3, 4]])) == pytest.approx(array([[0.6, -0.8]]))
    assert classifier_inputs({}, array([[3, 4]])).tolist() == [[3, 4]]


def test_inputs_solved_from_statistics_are_centred_uncorrelated_and_of_variance_one_on_average():
    """In a direction of 16 times the variance inputs vary 4 times as much: half-way whitened."""
    rng = new_rng()
    x = rng.normal(size=(4000, 6)).astype(np.float32) * array([4, 1, 1, 1, 1, 1]) + 9
    unit = features(x, None)
    fixed = solve_inputs(gram_statistics(unit, rng.integers(0, 3, 4000), 3))
    found = classifier_inputs(fixed, x)
    assert found.mean(axis=0) == pytest.approx(np.zeros(6), abs=0.01)
    variances = np.diag(np.cov(found.T))
    assert np.cov(found.T) == pytest.approx(np.diag(variances), abs=0.01)
    assert variances.mean() == pytest.approx(1, rel=0.01)
    raw = np.linalg.eigvalsh(np.cov(unit.T.astype(np.float64)))
    assert np.sort(variances) / variances.max() == pytest.approx(np.sqrt(raw / raw.max()), abs=0.01)


def test_a_classifier_learns_and_predicts_on_its_inputs():
    (x, labels), whole, fixed = examples(), params(), inputs()
    turned = classifier_inputs(fixed, x)
    found, _ = train(whole, lambda _: (x, labels), SOME_STEPS, 1.0, new_rng(), fixed)
    expected, _ = train(whole, lambda _: (turned, labels), SOME_STEPS, 1.0, new_rng())
    assert all((found[name] == expected[name]).all() for name in found)
    both = found | fixed | anchor()
    sums = predict(found, turned) + anchor_logits(anchor(), x)
    assert predict(both, x) == pytest.approx(sums, abs=1e-6)


@pytest.mark.parametrize("norm", ["none", "layer", "batch"])
def test_a_silent_start_predicts_what_the_anchor_does_and_can_learn(norm):
    (x, labels), silent = examples(), start_silent(params(8, norm))
    fixed = anchor() | inputs()
    assert (predict(silent | fixed, x) == anchor_logits(fixed, x)).all()
    trained, _ = train(silent, lambda _: (x, labels), SOME_STEPS, 1.0, new_rng(), fixed)
    assert all((trained[n] != silent[n]).any() for n in silent)
    assert all((silent[n] == params(8, norm)[n]).all() for n in silent if "fc3" not in n)


@pytest.mark.parametrize("levels", [(0.5,), (0.5, 0.5)])
@pytest.mark.parametrize("norm", ["none", "layer", "batch"])
def test_a_level_trains_the_leading_neurons_and_leaves_the_others_as_they_were(levels, norm):
    whole, data = params(8, norm), examples()
    trained, _ = train(whole, lambda _: data, SOME_STEPS, 1.0, new_rng(), None, levels)
    widths = hidden_widths(whole)
    first = leading_neurons(widths, 0.5)
    last = Subnet({axis: np.arange(4, 8) for axis in widths})
    moved, rested = extract(trained, first), extract(trained, last)
    was, before = extract(whole, first), extract(whole, last)
    bias = "fc3.bias"  # which has no neurons, so that every level trains it
    assert all((rested[name] == before[name]).all() for name in set(rested) - {bias})
    assert all((moved[name] != was[name]).any() for name in moved)
    across = (slice(4, 8), slice(0, 4)), (slice(0, 4), slice(4, 8))
    assert all((trained["fc2.weight"][at] == whole["fc2.weight"][at]).all() for at in across)


def test_to_train_a_level_is_to_train_the_leading_slice():
    whole, data = params(8), examples()
    found, loss = train(whole, lambda _: data, SOME_STEPS, 2.0, new_rng(), anchor(), (0.5,))
    subnet = leading_neurons(hidden_widths(whole), 0.5)
    slice_, slice_loss = train(
        extract(whole, subnet), lambda _: data, SOME_STEPS, 2.0, new_rng(), anchor()
    )
    expected = merge(whole, [(subnet, slice_, 1)])
    assert loss == pytest.approx(slice_loss, rel=1e-5)
    for name in whole:
        assert found[name] == pytest.approx(expected[name], abs=1e-5), name


def test_each_step_draws_a_level_of_its_own():
    """Of 40 first steps about half train all neurons, the others the leading half alone."""
    whole, data = params(8), examples()
    how = LocalTraining(0, 1, 40, "sgd", 0.1)
    outer_moved = []
    for seed in range(40):
        trained, _ = train(whole, lambda _: data, how, 1.0, new_rng(seed), None, (0.5, 1.0))
        changed = trained["fc1.bias"] != whole["fc1.bias"]
        assert changed[:4].any()
        outer_moved.append(bool(changed[4:].any()))
    assert 10 <= sum(outer_moved) <= 30
