"""Local differential privacy: the noise that a promise takes, and what then leaves a node."""

import math
from functools import partial

import numpy as np
import pytest
from federation import NODES
from hypothesis import given
from hypothesis import strategies as st

from fed_ist.errors import InputError
from fed_ist.traffic import protocol
from fed_ist.training.privacy import epsilon_after, noise_deviation

EPSILONS = st.floats(1e-2, 1e4)
DELTAS = st.floats(1e-10, 0.1)


@pytest.fixture
def federate(federate, embedded):
    return partial(federate, cache_dir=embedded)


def least_delta(epsilon, ratio):
    """By integration: how far N(ratio, 1) exceeds e^epsilon times N(0, 1)."""
    x = np.linspace(-40, ratio + 40, 2_000_001)
    p, q = (np.exp(-((x - at) ** 2) / 2) / math.sqrt(2 * math.pi) for at in (ratio, 0))
    return float(np.maximum(p - math.exp(epsilon) * q, 0).sum() * (x[1] - x[0]))


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 10.0, 100.0])
@pytest.mark.parametrize("delta", [1e-2, 1e-5])
def test_the_noise_gives_the_delta_that_the_definition_asks_for(epsilon, delta):
    ratio = 2 * 3.0 / noise_deviation(3.0, epsilon, delta)
    assert least_delta(epsilon, ratio) == pytest.approx(delta, rel=1e-3)


def test_noise_of_a_known_example_is_less_than_the_usual_formula_s_up_to_1_and_more_beyond():
    """For epsilon 1 and delta 1e-5 Balle and Wang's sigma is 3.73 times the sensitivity."""

    def usual(epsilon):
        return math.sqrt(2 * math.log(1.25e5)) / epsilon

    assert noise_deviation(0.5, 1.0, 1e-5) == pytest.approx(3.7306, abs=1e-3)
    assert noise_deviation(0.5, 1.0, 1e-5) < usual(1.0)
    assert noise_deviation(0.5, 100.0, 1e-5) > usual(100.0)
    assert noise_deviation(0.0, 1.0, 1e-5) == 0


@given(epsilon=EPSILONS, delta=DELTAS, rounds=st.integers(1, 1000))
def test_rounds_cost_as_much_as_one_round_with_as_much_less_noise(epsilon, delta, rounds):
    total = epsilon_after(rounds, epsilon, delta)
    louder = noise_deviation(1.0, epsilon, delta)
    assert noise_deviation(1.0, total, delta) == pytest.approx(louder / math.sqrt(rounds), rel=1e-6)
    assert total >= epsilon * (1 - 1e-9)
    assert total <= rounds * epsilon * (1 + 1e-9) or delta > 1e-3


def test_one_round_is_one_round():
    assert epsilon_after(1, 2.5, 1e-6) == pytest.approx(2.5)


def learnt(federation, node_id):
    sent, back = federation.slice_to(node_id), federation.slice_from(node_id)
    return np.concatenate([(back[n] - sent[n]).ravel() for n in sorted(sent)])


@pytest.mark.parametrize("strategy", ["ist", "fedavg"])
def test_what_leaves_a_node_is_clipped_and_as_noisy_as_was_promised(strategy, federate):
    settings = {"strategy": strategy, "dp_clip_norm": 0.02, "dp_epsilon": 1e9}
    federation, plain = federate(**settings).begin(), federate(strategy=strategy).begin()
    federation.round()
    plain.round()
    for node_id in NODES:
        clipped, whole = learnt(federation, node_id), learnt(plain, node_id)
        assert np.linalg.norm(whole) > 0.03  # there is something to clip
        assert np.linalg.norm(clipped) == pytest.approx(0.02, rel=0.02)  # and hardly any noise
        assert clipped == pytest.approx(whole * 0.02 / np.linalg.norm(whole), abs=1e-4)
    noisy = federate(strategy=strategy, dp_clip_norm=0.5, dp_epsilon=20.0).begin()
    noisy.round()
    assert noisy.counts.rejected == 0
    deviations = [learnt(noisy, node_id).std() for node_id in NODES]
    assert deviations == pytest.approx([noise_deviation(0.5, 20.0, 1e-5)] * 3, rel=0.1)


def test_noise_that_drowns_the_slice_is_not_mistaken_for_an_attack(federate):
    federation = federate(dp_clip_norm=100.0, dp_epsilon=0.1).begin()
    federation.rounds(1, 2)
    assert federation.counts.rejected == 0


def test_the_loss_stays_at_home(federate):
    federation = federate(dp_clip_norm=1.0).begin()
    federation.round()
    for reply in federation.received("train").values():
        assert reply.content.config_records[protocol.REPLY][protocol.LOSS] == 0


def test_noise_in_a_simulation_comes_from_the_seed_and_leaves_numpy_s_own_as_it_was(federate):
    first, same, other = (federate(dp_clip_norm=1.0, seed=seed).begin() for seed in (0, 0, 1))
    np.random.seed(5)
    courses = [federation.rounds(1, 2) for federation in (first, same, other)]
    drawn = np.random.random()
    np.random.seed(5)
    assert drawn == np.random.random()
    assert all((courses[0][name] == courses[1][name]).all() for name in courses[0])
    assert any((courses[0][name] != courses[2][name]).any() for name in courses[0])
    noise = [learnt(first, node_id) for node_id in NODES]
    assert abs(np.corrcoef(noise)[0, 1]) < 0.2  # no two nodes draw the same


def test_noise_on_a_device_is_its_own_and_nobody_can_draw_it_again(federate, image_folder):
    """Two runs of one seed on nodes with folders of their own."""
    settings = {"strategy": "fedavg", "dp_clip_norm": 1.0, "dp_epsilon": 10.0, "min_nodes": 1}
    runs = [
        federate([5], node_config={"data-path": str(image_folder)}, **settings).begin()
        for _ in range(2)
    ]
    for federation in runs:
        np.random.seed(0)
        federation.round()
    first, second = (learnt(federation, 5) for federation in runs)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.2


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"dp_clip_norm": -1.0}, "dp-clip-norm = -1.0 is not possible"),
        ({"dp_epsilon": 0.0}, "dp-epsilon = 0.0 is not possible: give a number above 0"),
        ({"dp_delta": 1.0}, "dp-delta = 1.0 is not possible: give a number between 0 and 1"),
        ({"dp_clip_norm": 1.0, "norm": "batch"}, "norm = 'batch' does not go with dp-clip-norm"),
    ],
)
def test_privacy_that_is_not_possible_is_one_sentence(changes, says, make_config):
    with pytest.raises(InputError, match=says):
        make_config(**changes)
