"""What sums say of a head's worth, held against examples that it never saw."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fed_ist.statistics.anchors import (
    INPUTS_BIAS,
    INPUTS_WEIGHT,
    features,
    judge_anchor,
    judge_inputs,
    solve_anchor,
    solve_inputs,
)
from fed_ist.statistics.cross_validation import validate, whitening_pays
from fed_ist.statistics.factors import factorise, from_factor
from fed_ist.statistics.ridge import centre, gram_statistics, solve_ridge, squared_error, with_noise

SEEDS = st.integers(0, 2**32)


def examples(seed, n, d=20, classes=3, apart=1.0):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(5).normal(size=(classes, d)) * apart
    labels = rng.integers(0, classes, n)
    return (centres[labels] + 2 * rng.normal(size=(n, d)) + 3).astype(np.float32), labels


def statistics(seed, n, **how):
    x, labels = examples(seed, n, **how)
    return gram_statistics(features(x, None), labels, 3)


def test_the_error_is_that_of_leaving_one_out():
    """Worked out 60 times without an example: within a tenth, as the leverages differ."""
    x, labels = examples(0, 60)
    x = features(x, None)
    strength = validate(centre(gram_statistics(x, labels, 3))).strength
    missed = chance = 0.0
    for i in range(60):
        rest = np.delete(np.arange(60), i)
        one = gram_statistics(x[i : i + 1], labels[i : i + 1], 3)
        stats = gram_statistics(x[rest], labels[rest], 3)
        missed += squared_error(one, solve_ridge(stats, strength))
        shares = np.bincount(labels[rest], minlength=3) / 59
        chance += float(np.sum((np.eye(3)[labels[i]] - shares) ** 2))
    assert validate(centre(gram_statistics(x, labels, 3))).error == pytest.approx(
        missed / chance, rel=0.1
    )


@settings(deadline=None, max_examples=25)
@given(seed=SEEDS, n=st.integers(60, 300), d=st.integers(3, 100))
def test_labels_dealt_at_random_are_hardly_ever_taken_for_knowledge(seed, n, d):
    rng = np.random.default_rng(seed)
    x = features(rng.normal(size=(n, d)).astype(np.float32), None)
    found = validate(centre(gram_statistics(x, rng.integers(0, 3, n), 3)))
    assert found.gain < 5 * max(found.chance, 1 / n)


@settings(deadline=None, max_examples=25)
@given(seed=SEEDS, n=st.integers(40, 300))
def test_a_used_anchor_is_never_worse_than_the_class_shares_on_new_examples(seed, n):
    """In 16 bits, of few examples: whatever is not judged bad is of use."""
    apart = float(np.random.default_rng(seed).choice([0.0, 0.1, 0.3, 1.0]))
    triangle, sums = (
        a.astype(np.float16).astype(np.float32) for a in factorise(statistics(seed, n, apart=apart))
    )
    stats = from_factor(triangle, sums, "fp16")
    if judge_anchor(stats):
        return
    head = solve_anchor(stats, 1.0)
    new = statistics(seed + 1, 2000, apart=apart)
    shares = stats.sums[:, -1] / stats.sums[:, -1].sum()
    nothing = (np.zeros_like(head["anchor.weight"]), shares.astype(np.float32))
    solved = (head["anchor.weight"], head["anchor.bias"])
    assert squared_error(new, solved) < 1.02 * squared_error(new, nothing)


def test_an_anchor_that_knows_something_is_used_and_one_that_knows_nothing_is_not():
    assert judge_anchor(statistics(0, 200)) == ""
    assert "no more than chance may" in judge_anchor(statistics(0, 200, apart=0.0))


def test_a_handful_of_examples_solves_nothing():
    assert judge_anchor(statistics(0, 2)) != ""
    none = gram_statistics(np.zeros((0, 4), np.float32), np.zeros(0, int), 3)
    assert "nothing off the error of the class shares, of so few" in judge_anchor(none)
    assert "nothing off the error of the class shares, of so few" in judge_inputs(none)


def test_noise_that_hides_the_classes_is_no_knowledge():
    stats = statistics(0, 200)
    assert judge_anchor(with_noise(stats, 0.05, np.random.default_rng(0))) == ""
    assert judge_anchor(with_noise(stats, 1000.0, np.random.default_rng(0))) != ""


def loud_and_quiet(seed, n, quiet_knows):
    """64 directions of variances over four decades: classes differ in all, or in the first eight
    alone, the others being noise.
    """
    rng = np.random.default_rng(seed)
    labels, scales = rng.integers(0, 3, n), np.logspace(0, -2, 64)
    centres = rng.normal(size=(3, 64)) * (0.4 if quiet_knows else np.arange(64) < 8)
    x = (rng.normal(size=(n, 64)) + centres[labels]) * scales
    return gram_statistics(x.astype(np.float32), labels, 3)


def test_whitening_is_used_where_classes_differ_in_what_varies_little_and_not_where_noise_does():
    assert judge_inputs(loud_and_quiet(0, 200, quiet_knows=True)) == ""
    reason = judge_inputs(loud_and_quiet(0, 200, quiet_knows=False))
    assert re.match(r"a ridge on decorrelated inputs would take \d+\.\d% off", reason)


def test_with_many_examples_whitening_costs_next_to_nothing_and_is_used():
    plain, whitened, pays = whitening_pays(centre(loud_and_quiet(0, 6000, quiet_knows=False)))
    assert pays
    assert whitened.gain == pytest.approx(plain.gain, rel=0.02)


@pytest.mark.parametrize(("n", "d"), [(1000, 1280), (100, 192), (400, 300)])
def test_new_images_are_not_much_longer_than_those_that_inputs_were_solved_from(n, d):
    """Fewer examples than dimensions leave directions without variance, which new images have."""
    rng = np.random.default_rng(0)
    scales = np.logspace(0, -1.5, d)
    x, new = ((rng.normal(size=(m, d)) * scales).astype(np.float32) for m in (n, 300))
    fixed = solve_inputs(gram_statistics(x, rng.integers(0, 3, n), 3))
    seen, unseen = (
        np.sqrt(np.mean((each @ fixed[INPUTS_WEIGHT].T + fixed[INPUTS_BIAS]) ** 2))
        for each in (x, new)
    )
    assert unseen < 1.3 * seen
