"""Statistics are held against what so many images can have made: honest ones always pass."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed_ist.statistics.anchors import draw_projection, features
from fed_ist.statistics.factors import factorise, from_factor, noisy
from fed_ist.statistics.gaussians import Gaussians, class_gaussians
from fed_ist.statistics.plausible import (
    require_possible_gaussians,
    require_possible_gram,
    require_possible_sums,
)
from fed_ist.statistics.ridge import Gram, class_sums, gram_statistics, with_noise
from fed_ist.traffic.codecs import decode, encode, shapes_of

SEEDS = st.integers(0, 2**32)
COUNTS = st.integers(1, 300)
CODECS = st.sampled_from(["fp32", "fp16"])


def examples(seed, n, d=24, classes=5):
    """Embeddings of any scale, some of them alike, and labels that leave classes out."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) * 10.0 ** rng.uniform(-3, 3) + rng.normal(size=d)
    return x.astype(np.float32), rng.integers(0, rng.integers(1, classes + 1), n)


def sent(arrays, codec):
    """As it arrives."""
    return decode(encode(arrays, codec, np.random.default_rng(0)), codec, shapes_of(arrays))


def honest(seed, n, codec="fp32", sigma=0.0, n_features=0):
    x, labels = examples(seed, n)
    stats = gram_statistics(features(x, draw_projection(24, n_features, seed)), labels, 5)
    if sigma:
        given = with_noise(stats, sigma, np.random.default_rng(seed))
        came = sent({"gram": given.gram, "sums": given.sums}, codec)
        return noisy(came["gram"], came["sums"], sigma, codec)
    triangle, sums = factorise(stats)
    came = sent({"gram": triangle, "sums": sums}, codec)
    return from_factor(came["gram"], came["sums"], codec)


@given(seed=SEEDS, n=COUNTS, codec=CODECS, n_features=st.sampled_from([0, 7, 60]))
def test_honest_sums_are_possible_in_any_codec(seed, n, codec, n_features):
    require_possible_gram(honest(seed, n, codec, n_features=n_features), n, codec)


@given(seed=SEEDS, n=COUNTS, codec=CODECS, sigma=st.floats(0.01, 100))
def test_honest_sums_with_noise_are_possible(seed, n, codec, sigma):
    require_possible_gram(honest(seed, n, codec, sigma), n, codec)


@given(seed=SEEDS, n=COUNTS, codec=CODECS)
def test_honest_class_sums_and_gaussians_are_possible(seed, n, codec):
    x, labels = examples(seed, n)
    sums = sent({"sums": class_sums(features(x, None), labels, 5)}, codec)["sums"]
    require_possible_sums(sums, n, codec)
    require_possible_gaussians(class_gaussians(x, labels, 5), n)


def test_honest_sums_of_many_images_are_possible():
    """Where float32 and fp16 have the most to lose."""
    for codec in ("fp32", "fp16"):
        require_possible_gram(honest(0, 60_000, codec), 60_000, codec)


def at(array, index, value):
    array[index] = value


IMPOSSIBLE = {
    "scaled up": lambda g, s: (g.__imul__(1.01), s.__imul__(1.01)),
    "scaled down": lambda g, s: (g.__imul__(0.99), s.__imul__(0.99)),
    "long embeddings": lambda g, s: g.__imul__(np.where(g == g[-1], 1, 2)),
    "a negative diagonal": lambda g, s: at(g, 0, -0.1),
    "products beyond lengths": lambda g, s: at(g, 1, 50),
    "sums of other images": lambda g, s: s.__setitem__((slice(None), slice(None, -1)), -s[:, :-1]),
    "a class below 0": lambda g, s: (at(s, (0, -1), s[0, -1] + 9), at(s, (4, -1), s[4, -1] - 9)),
    "a class too long": lambda g, s: (at(s, (0, 0), 99), at(s, (1, 0), s[1, 0] - 99)),
    "nothing": lambda g, s: (g.__imul__(0), s.__imul__(0)),
    "beyond the sums of float32": lambda g, s: at(g, 3, 3e38),
}


FORGED = {
    "a longer scatter": lambda t, s: t.__imul__(np.where(np.arange(t.size) < 24, 3, 1)),
    "another reference": lambda t, s: at(t, 24, t[24] + 1),
    "a scatter less than its sums": lambda t, s: at(s, 0, s[0] + 9 * np.eye(1, 25)[0]),
    "beyond what float64 squares": lambda t, s: at(t, 3, 3e38),
}


@pytest.mark.parametrize("kind", FORGED)
@pytest.mark.parametrize("codec", ["fp32", "fp16"])
def test_a_factor_that_no_images_give_is_refused(kind, codec):
    x, labels = examples(1, 40)
    triangle, sums = factorise(gram_statistics(features(x, None), labels, 5))
    FORGED[kind](triangle, sums)
    with pytest.raises(ValueError, match=r"images|sum of squares|length"):
        require_possible_gram(from_factor(triangle, sums, codec), 40, codec)


@pytest.mark.parametrize("kind", IMPOSSIBLE)
@pytest.mark.parametrize("codec", ["fp32", "fp16"])
def test_sums_that_no_images_give_are_refused(kind, codec):
    stats = honest(1, 40, codec)
    IMPOSSIBLE[kind](stats.gram, stats.sums)
    with pytest.raises(ValueError, match=r"images|sum of squares|length"):
        require_possible_gram(stats, 40, codec)


@pytest.mark.parametrize("n_said", [39, 41, 4000])
def test_sums_of_another_number_of_images_than_was_said_are_refused(n_said):
    x, labels = examples(1, 40)
    with pytest.raises(ValueError, match=f"it counts 40 images, not {n_said}"):
        require_possible_gram(honest(1, 40), n_said, "fp32")
    with pytest.raises(ValueError, match=f"it counts 40 images, not {n_said}"):
        require_possible_sums(class_sums(features(x, None), labels, 5), n_said, "fp32")
    with pytest.raises(ValueError, match=f"images, not {n_said}"):
        require_possible_gaussians(class_gaussians(x, labels, 5), n_said)


def test_noise_that_was_not_asked_for_is_refused_and_so_is_much_more_than_was():
    came = honest(1, 40, sigma=1.0)
    require_possible_gram(came, 40, "fp32")
    for said in (0.0, 0.01**2):
        with pytest.raises(ValueError, match="images"):
            require_possible_gram(Gram(came.gram, came.sums, said), 40, "fp32")


FAULTS = {
    "a negative count": lambda m, v, c: at(c, 0, c[0] - 100),
    "a count that overflows": lambda m, v, c: c.__setitem__(slice(0, 2), 2**63 - 1),
    "a negative variance": lambda m, v, c: at(v, (0, 0), -1e-3),
    "a mean beyond any encoder's": lambda m, v, c: at(m, (0, 0), -1e7),
    "a variance beyond any encoder's": lambda m, v, c: at(v, (0, 0), 1e15),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_gaussians_that_no_images_give_are_refused(kind):
    found = class_gaussians(*examples(1, 40), 5)
    means, variances, counts = found.means, found.variances, found.counts
    FAULTS[kind](means, variances, counts)
    with pytest.raises(ValueError, match=r"images|variance|number of"):
        require_possible_gaussians(Gaussians(means, variances, counts), 40)
