"""Heads in closed form: against other ways to the same head, and by hand-worked examples."""

import re

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fed_ist.errors import InputError
from fed_ist.statistics.anchors import features
from fed_ist.statistics.cross_validation import choose_strength
from fed_ist.statistics.ridge import (
    Gram,
    add,
    class_means,
    feature_dim_for_budget,
    gram_statistics,
    half_whitening,
    solve_ridge,
    squared_error,
    with_noise,
)

SEEDS = st.integers(0, 2**32)


def examples(seed: int, n: int, d: int = 4, classes: int = 3):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    x = rng.normal(size=(n, d)) + 2 * np.eye(classes, d)[labels]
    return x.astype(np.float32), labels


def whole_numbers(seed: int, n: int, d: int = 3, classes: int = 3):
    """Embeddings of which float32 adds up squares exactly."""
    rng = np.random.default_rng(seed)
    return rng.integers(-9, 10, (n, d)).astype(np.float32), rng.integers(0, classes, n)


def logits(head, x):
    weight, bias = head
    return x.astype(np.float64) @ weight.T + bias


def test_the_statistics_of_a_worked_example():
    stats = gram_statistics(np.array([[2, 3], [1, 0]], np.float32), np.array([1, 0]), 3)
    # (2, 3, 1) and (1, 0, 1), each with itself: rows of the upper triangle.
    assert stats.gram.tolist() == [4 + 1, 6, 2 + 1, 9, 3, 1 + 1]
    assert stats.sums.tolist() == [[1, 0, 1], [2, 3, 1], [0, 0, 0]]
    assert stats.gram.dtype == stats.sums.dtype == np.float64


def test_no_examples_have_statistics_of_zero_and_change_no_sum():
    nothing = gram_statistics(np.zeros((0, 3), np.float32), np.zeros(0, np.int64), 2)
    assert not nothing.gram.any()
    assert not nothing.sums.any()
    some = gram_statistics(*whole_numbers(0, 5, classes=2), 2)
    assert (add(some, nothing).gram == some.gram).all()
    weight, bias = solve_ridge(nothing, 0.1)
    assert not weight.any()
    assert not bias.any()


@given(seed=SEEDS, n=st.integers(0, 30), at=st.lists(st.integers(0, 30), max_size=4))
def test_statistics_of_the_parts_add_up_to_those_of_the_whole(seed, n, at):
    x, y = whole_numbers(seed, n)
    cuts = sorted(min(each, n) for each in at)
    pairs = zip(np.split(x, cuts), np.split(y, cuts), strict=True)
    total, *others = (gram_statistics(*pair, 3) for pair in pairs)
    for other in others:
        total = add(total, other)
    whole = gram_statistics(x, y, 3)
    assert (total.gram == whole.gram).all()
    assert (total.sums == whole.sums).all()


def test_sums_of_many_nodes_are_kept_in_float64():
    many = Gram(np.full(3, 2.0**24, np.float32), np.full((1, 2), 2.0**24, np.float32))
    one = Gram(np.ones(3, np.float32), np.ones((1, 2), np.float32))
    total = add(many, one)
    assert total.gram.tolist() == [2**24 + 1] * 3  # which float32 cannot hold
    assert total.sums.tolist() == [[2**24 + 1] * 2]


def test_the_upper_triangle_is_half_the_bytes():
    d = 255
    stats = gram_statistics(np.zeros((1, d), np.float32), np.array([0]), 2)
    side = d + 1
    assert 4 * stats.gram.size == 4 * side * (side + 1) / 2 == 131_584
    assert 4 * stats.gram.size - 4 * side / 2 == 4 * side**2 / 2  # and half of the diagonal


def test_ridge_of_a_worked_example():
    """Class 0 at 0, 0 and class 1 at 4, 4: the mean is 2, the scatter 4 · 2² = 16."""
    stats = gram_statistics(np.array([[0], [0], [4], [4]], np.float32), np.array([0, 0, 1, 1]), 2)
    weight, bias = solve_ridge(stats, 1)  # the penalty is 16: weight ±4 / (16 + 16)
    assert np.allclose(weight, [[-1 / 8], [1 / 8]], atol=1e-6)
    assert np.allclose(bias, [1 / 2 + 2 / 8, 1 / 2 - 2 / 8], atol=1e-6)
    weight, bias = solve_ridge(stats, 0)  # goes through all points
    assert np.allclose(weight, [[-1 / 4], [1 / 4]], atol=1e-6)
    assert np.allclose(bias, [1, 0], atol=1e-6)


@given(
    seed=SEEDS,
    n=st.integers(2, 40),
    d=st.integers(1, 6),
    classes=st.integers(2, 4),
    strength=st.floats(0.01, 10),
)
def test_ridge_is_least_squares_with_a_penalty_on_all_but_the_bias(seed, n, d, classes, strength):
    x, y = whole_numbers(seed, n, d, classes)
    assume((x != x[0]).any())
    targets = np.eye(classes)[y]
    penalty = strength * (x.astype(np.float64).var(axis=0) * n).mean()
    # A penalty is d more examples, at the axes, with the target 0 and no bias.
    rows = np.block([[x, np.ones((n, 1))], [np.sqrt(penalty) * np.eye(d), np.zeros((d, 1))]])
    best = np.linalg.lstsq(rows, np.concatenate([targets, np.zeros((d, classes))]), rcond=None)[0]
    weight, bias = solve_ridge(gram_statistics(x, y, classes), strength)
    assert np.allclose(weight, best[:-1].T, atol=1e-5)
    assert np.allclose(bias, best[-1], atol=1e-5)


@given(seed=SEEDS, strength=st.floats(0.001, 10))
def test_ridge_satisfies_the_normal_equations(seed, strength):
    x, y = examples(seed, 30)
    weight, bias = solve_ridge(gram_statistics(x, y, 3), strength)
    missed = np.eye(3)[y] - logits((weight, bias), x)
    penalty = strength * (x.astype(np.float64).var(axis=0) * 30).mean()
    assert np.allclose(missed.T @ x, penalty * weight, atol=1e-3)
    assert np.allclose(missed.sum(axis=0), 0, atol=1e-3)


@given(seed=SEEDS)
def test_the_penalty_depends_neither_on_the_scale_nor_on_the_number_of_examples(seed):
    x, y = examples(seed, 20)
    weight, bias = solve_ridge(gram_statistics(x, y, 3), 0.1)
    larger = solve_ridge(gram_statistics(1000 * x, y, 3), 0.1)
    assert np.allclose(1000 * larger[0], weight, atol=1e-4)
    assert np.allclose(larger[1], bias, atol=1e-4)
    once = gram_statistics(x, y, 3)
    twice = solve_ridge(add(once, once), 0.1)
    assert np.allclose(twice[0], weight, atol=1e-4)
    assert np.allclose(twice[1], bias, atol=1e-4)


def test_a_stronger_penalty_makes_a_smaller_weight_and_in_the_end_the_class_shares():
    x, y = examples(0, 40)
    stats = gram_statistics(x, y, 3)
    sizes = [np.linalg.norm(solve_ridge(stats, strength)[0]) for strength in (0, 0.1, 1, 10, 1e9)]
    assert (np.diff(sizes) < 0).all()
    assert np.allclose(solve_ridge(stats, 1e9)[1], np.bincount(y) / 40, atol=1e-6)


@given(seed=SEEDS, strength=st.floats(0, 10))
def test_ridge_never_predicts_a_class_without_examples(seed, strength):
    """All logits add up to 1, of which such a class has 0."""
    x, y = examples(seed, 25)
    head = solve_ridge(gram_statistics(x, np.array([0, 2, 3])[y], 5), strength)
    anywhere = 5 * np.random.default_rng(seed).normal(size=(200, 4))
    assert np.isin(logits(head, anywhere).argmax(axis=1), [0, 2, 3]).all()
    assert np.allclose(logits(head, anywhere).sum(axis=1), 1, atol=1e-3)
    assert not logits(head, anywhere)[:, [1, 4]].any()


@pytest.mark.parametrize("strength", [0, 1e-6, 1])
@given(seed=SEEDS, n=st.integers(1, 9))
def test_examples_all_alike_teach_the_class_shares_and_no_weight_of_note(strength, seed, n):
    """Their scatter is what sums lost: dividing by it would make weights out of nothing."""
    x, y = examples(seed, n)
    x[:] = x[0]
    weight, bias = solve_ridge(gram_statistics(x, y, 3), strength)
    assert np.allclose(logits((weight, bias), x[:1]), np.bincount(y, minlength=3) / n, atol=1e-5)
    assert np.linalg.norm(weight, axis=1).max() * np.linalg.norm(x[0]) <= 1


def test_negative_eigenvalues_count_as_zero():
    """A scatter of 8 along one axis and, by noise, of -4 along the other; their mean counts 4."""
    stats = Gram(np.array([8, 0, 0, -4, 0, 2.0]), np.array([[3, 1, 1], [-3, -1, 1.0]]))
    weight, bias = solve_ridge(stats, 0.5)  # the penalty is 2
    assert np.allclose(weight, [[3 / (8 + 2), 1 / (0 + 2)], [-3 / (8 + 2), -1 / (0 + 2)]])
    assert np.allclose(bias, 0.5)


@given(seed=SEEDS, sigma=st.floats(0, 1000), strength=st.floats(0, 1))
def test_a_head_is_finite_however_noisy_the_statistics(seed, sigma, strength):
    stats = gram_statistics(*examples(seed, 5), 3)
    noisy = with_noise(stats, sigma, np.random.default_rng(seed))
    for weight, bias in (solve_ridge(noisy, strength), class_means(noisy.sums)):
        assert np.isfinite(weight).all()
        assert np.isfinite(bias).all()


@pytest.mark.parametrize("strength", [-0.1, float("inf"), float("nan")])
def test_a_strength_below_zero_or_without_a_value_is_refused(strength):
    stats = gram_statistics(*examples(0, 5), 3)
    with pytest.raises(InputError, match=f"A ridge strength of {strength} .* give 0 or more"):
        solve_ridge(stats, strength)
    with pytest.raises(InputError, match=f"A ridge strength of {strength}"):
        choose_strength(stats, [1, strength])


@given(seed=SEEDS, n=st.integers(0, 30))
def test_the_error_from_sums_is_the_error_from_examples(seed, n):
    head = solve_ridge(gram_statistics(*examples(seed, 30), 3), 0.1)
    x, y = examples(seed + 1, n)
    missed = np.eye(3)[y] - logits(head, x)
    assert np.isclose(squared_error(gram_statistics(x, y, 3), head), (missed**2).sum(), atol=1e-4)


def test_the_error_of_a_worked_example():
    """At x = 2 the logits are 1 and -1 where 0 and 1 are wanted: 1² + 2²."""
    head = (np.array([[1], [-1]], np.float32), np.array([-1, 1], np.float32))
    assert squared_error(gram_statistics(np.array([[2]], np.float32), np.array([1]), 2), head) == 5


def test_noise_adds_up_and_its_size_is_known():
    stats = gram_statistics(*examples(0, 20), 3)
    noisy = with_noise(stats, 2.0, np.random.default_rng(0))
    assert add(noisy, with_noise(stats, 1.0, np.random.default_rng(1))).noise == 5.0


def test_axes_that_are_nothing_but_noise_are_not_blown_up():
    """Of 40 axes one varies; noise of 1 on the sums of 400 examples covers the other 39."""
    rng = np.random.default_rng(0)
    x = (0.01 * rng.normal(size=(400, 40))).astype(np.float32)
    x[:, 0] += rng.normal(size=400)
    stats = gram_statistics(x, rng.integers(0, 3, 400), 3)
    noisy = with_noise(stats, 1.0, rng)
    for known, largest in ((noisy, 4.0), (Gram(noisy.gram, noisy.sums), 1e9)):
        scales = np.linalg.norm(half_whitening(known)[0], axis=1)
        ratio = scales.max() / scales.min()
        assert ratio < largest
    assert ratio > 5  # where the noise is not known to be there


def test_ridge_is_penalised_by_no_less_than_the_noise():
    x, y = examples(0, 50)
    noisy = with_noise(gram_statistics(x, y, 3), 30.0, np.random.default_rng(0))
    weight, _ = solve_ridge(noisy, 0.0)
    unaware, _ = solve_ridge(Gram(noisy.gram, noisy.sums), 0.0)
    assert 100 * np.abs(weight).max() < np.abs(unaware).max()


@given(seed=SEEDS)
def test_half_whitened_inputs_have_mean_0_and_variances_of_the_root(seed):
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(4000, 4)) @ rng.normal(size=(4, 4)) + 3).astype(np.float32)
    weight, bias = half_whitening(gram_statistics(x, np.zeros(4000, np.int64), 1))
    inputs = x.astype(np.float64) @ weight.T.astype(np.float64) + bias
    covariance = np.cov(inputs.T, bias=True)
    assert np.allclose(inputs.mean(axis=0), 0, atol=1e-2)
    assert np.isclose(np.trace(covariance) / 4, 1, atol=2e-2)
    roots = np.sqrt(np.linalg.eigvalsh(np.cov(x.T.astype(np.float64), bias=True)))
    assert np.allclose(np.sort(np.diag(covariance)), roots / roots.mean(), atol=5e-2)
    assert np.allclose(covariance, np.diag(np.diag(covariance)), atol=5e-2)


def test_the_chosen_strength_has_the_least_error_of_cross_validation():
    """Worked out with the hat matrix of the examples themselves."""
    x, y = examples(3, 40, d=12)
    strengths = [1e-4, 1e-2, 0.1, 1, 10, 100]
    errors = []
    for strength in strengths:
        centred = x - x.mean(axis=0)
        penalty = strength * np.linalg.eigvalsh(centred.T @ centred).mean()
        hat = centred @ np.linalg.solve(centred.T @ centred + penalty * np.eye(12), centred.T)
        hat += 1 / 40
        residual = np.eye(3)[y] - hat @ np.eye(3)[y]
        errors.append((residual**2).sum() / (40 - np.trace(hat)) ** 2)
    stats = gram_statistics(x, y, 3)
    assert choose_strength(stats, strengths) == strengths[int(np.argmin(errors))]
    assert 0 < int(np.argmin(errors)) < 5  # so that it does not just take an end


def test_the_chosen_strength_is_nearly_as_good_as_the_best_on_new_examples():
    x, y = examples(0, 60, d=40)
    new, new_labels = examples(1, 2000, d=40)
    held_out = gram_statistics(new, new_labels, 3)
    stats = gram_statistics(x, y, 3)
    strengths = list(np.logspace(-5, 1, 25))
    errors = {each: squared_error(held_out, solve_ridge(stats, each)) for each in strengths}
    assert errors[choose_strength(stats, strengths)] < 1.1 * min(errors.values())
    assert max(errors.values()) > 1.5 * min(errors.values())


def test_fewer_examples_than_dimensions_are_not_fitted_exactly():
    x, y = examples(0, 40, d=60)
    held_out = gram_statistics(*examples(1, 2000, d=60), 3)
    stats = gram_statistics(x, y, 3)
    strengths = list(np.logspace(-5, 1, 25))
    errors = {each: squared_error(held_out, solve_ridge(stats, each)) for each in strengths}
    assert errors[choose_strength(stats, strengths)] < 1.3 * min(errors.values())
    assert choose_strength(gram_statistics(x[:1], y[:1], 3), strengths) == max(strengths)


def test_of_equal_strengths_the_first_is_chosen():
    stats = gram_statistics(*examples(0, 5), 3)
    assert choose_strength(stats, [0.5, 0.5]) == 0.5


def test_class_means_of_a_worked_example():
    """Class 0 at (1, 0) and (3, 0), class 2 at (0, 1): means (2, 0) and (0, 1)."""
    x = np.array([[1, 0], [3, 0], [0, 1]], np.float32)
    weight, bias = class_means(gram_statistics(x, np.array([0, 0, 2]), 3).sums)
    assert weight.tolist() == [[4, 0], [0, 0], [0, 2]]
    assert bias.tolist() == [-4, np.float32(-1e30), -1]


@given(seed=SEEDS)
def test_class_means_predict_the_nearest_mean_and_never_a_class_without_examples(seed):
    x, y = examples(seed, 30)
    y = np.array([0, 2, 3])[y]
    head = class_means(gram_statistics(x, y, 5).sums)
    present = np.unique(y)
    means = np.stack([x[y == label].mean(axis=0) for label in present])
    anywhere = 5 * np.random.default_rng(seed).normal(size=(100, 4))
    distances = np.linalg.norm(anywhere[:, None] - means, axis=2)
    nearest, second = np.sort(distances, axis=1)[:, :2].T
    clear = second - nearest > 1e-4  # rounding may decide the rest
    predicted = logits(head, anywhere).argmax(axis=1)
    assert (predicted == present[distances.argmin(axis=1)])[clear].all()
    assert np.isin(predicted, present).all()


def test_noise_has_the_asked_deviation_in_both_arrays_and_leaves_the_original():
    stats = Gram(np.full(201 * 101, 7, np.float32), np.full((200, 201), 7, np.float32))
    noisy = with_noise(stats, 3, np.random.default_rng(0))
    for array in (noisy.gram, noisy.sums):
        assert array.dtype == np.float32
        assert abs(array.mean() - 7) < 0.1
        assert abs(array.std() - 3) < 0.05
    assert (stats.gram == 7).all()
    correlation = np.corrcoef(noisy.gram, noisy.sums.ravel()[: noisy.gram.size])[0, 1]
    assert abs(correlation) < 0.03
    again = with_noise(stats, 3, np.random.default_rng(0))
    assert (again.gram == noisy.gram).all()
    assert (again.sums == noisy.sums).all()


def test_one_example_moves_the_statistics_by_the_stated_distance_at_most():
    """√5 for embeddings of length 1: an example along an axis goes that far."""
    rng = np.random.default_rng(0)
    lone = [np.eye(5, dtype=np.float32)[:1] * 100]
    for x in lone + [rng.normal(size=(1, 5)).astype(np.float32) * 9**i for i in range(-2, 3)] * 50:
        label = rng.integers(0, 3, 1)
        rest = features(rng.normal(size=(10, 5)).astype(np.float32), None), rng.integers(0, 3, 10)
        without = gram_statistics(*rest, 3)
        both = np.concatenate([rest[0], features(x, None)]), np.concatenate([rest[1], label])
        moved = gram_statistics(*both, 3)
        differences = [moved.gram - without.gram, (moved.sums - without.sums).ravel()]
        distance = np.linalg.norm(np.concatenate(differences))
        assert distance <= np.sqrt(5) * (1 + 1e-5)
        if x is lone[0]:
            assert np.isclose(distance, np.sqrt(5), rtol=1e-5)


def size_of_gram(d: int, classes: int) -> int:
    stats = gram_statistics(np.zeros((0, d), np.float32), np.zeros(0, np.int64), classes)
    return 4 * (stats.gram.size + stats.sums.size)


@given(n_bytes=st.integers(-1000, 20_000), classes=st.integers(1, 40))
def test_the_dimension_for_a_budget_is_the_largest_that_fits(n_bytes, classes):
    if n_bytes < size_of_gram(1, classes):
        least = rf"anchor-bytes = {n_bytes} is .* of {classes} classes: give (\d+) or more"
        with pytest.raises(InputError, match=least) as refused:
            feature_dim_for_budget(n_bytes, classes)
        named = re.search(least, str(refused.value))
        assert named and int(named[1]) == size_of_gram(1, classes)
        return
    d = feature_dim_for_budget(n_bytes, classes)
    assert size_of_gram(d, classes) <= n_bytes < size_of_gram(d + 1, classes)


def test_the_dimension_for_a_budget_of_a_worked_example():
    # d = 2, C = 2: 3 · 4 / 2 + 2 · 3 = 12 numbers of 4 bytes.
    assert [feature_dim_for_budget(n, 2) for n in (47, 48)] == [1, 2]


@pytest.mark.parametrize(
    ("gram", "sums", "says"),
    [
        (np.zeros(6), np.zeros((2, 2)), "does not fit"),
        (np.zeros((2, 2)), np.zeros((2, 2)), "does not fit"),
        (np.zeros(3), np.zeros(2), "does not fit"),
        (np.zeros(3), np.zeros((1, 2, 2)), "does not fit"),
        (np.zeros(1), np.zeros((2, 1)), "does not fit"),
        (np.zeros(3), np.zeros(()), "does not fit"),
        (np.zeros(()), np.zeros((2, 2)), "does not fit"),
        (np.array([0, np.nan, 0]), np.zeros((2, 2)), "not finite"),
        (np.zeros(3), np.array([[0, 0], [0, -np.inf]]), "not finite"),
        (np.array(["1", "2", "3"]), np.zeros((2, 2)), "not floating-point"),
        (np.zeros(3), np.zeros((2, 2), complex), "not floating-point"),
    ],
)
def test_statistics_that_nobody_could_have_summed_are_refused(gram, sums, says):
    with pytest.raises(ValueError, match=says):
        Gram(gram, sums)


def test_statistics_of_other_shapes_are_not_added():
    two, three = (gram_statistics(*examples(0, 5, d, 2), 2) for d in (2, 3))
    more_classes = gram_statistics(*examples(0, 5, 2, 2), 3)
    for other in (three, more_classes):
        with pytest.raises(ValueError, match="cannot be added"):
            add(two, other)
