"""Random features in place of embeddings: drawn from the seed on both sides, so none travels."""

from functools import partial

import numpy as np
import pytest

from fed_ist.classifier.layout import init_params
from fed_ist.errors import InputError
from fed_ist.statistics.anchors import INPUTS_PROJECTION, classifier_inputs, random_inputs
from fed_ist.training.local import LocalTraining, evaluate, train


@pytest.fixture
def featured(federate, embedded):
    return partial(federate, cache_dir=embedded, random_features=40, hidden_layers=0)


def test_the_classifier_has_their_number_of_inputs_and_they_do_not_travel(featured):
    federation = featured(strategy="fedavg").begin()
    assert federation.params[INPUTS_PROJECTION].shape == (192, 40)
    after = federation.round()
    assert after["fc1.weight"].shape == (4, 40)
    assert set(federation.slice_to(900)) == {"fc1.weight", "fc1.bias"}
    again = random_inputs(192, 40, federation.config.seed)
    assert np.array_equal(after[INPUTS_PROJECTION], again[INPUTS_PROJECTION])


def test_ist_deals_neurons_on_top_of_them(featured):
    federation = featured(strategy="ist", hidden_layers=1).begin()
    after = federation.round()
    assert after["fc1.weight"].shape == (24, 40)


def test_their_mean_square_is_one_as_that_of_embeddings():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((100, 16)).astype(np.float32)
    inputs = classifier_inputs(random_inputs(16, 300, 0), values)
    assert inputs.shape == (100, 300)
    assert (inputs >= 0).all()
    assert np.mean(inputs**2) == pytest.approx(1, rel=1e-4)


def test_a_linear_head_on_them_learns_what_no_line_tells_apart():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((2000, 2)).astype(np.float32)
    labels = (values.prod(axis=1) > 0).astype(np.int64)  # opposite quadrants
    how = LocalTraining(20, 0, 64, "adam", 0.01)

    def accuracy(n_features: int) -> float:
        fixed = random_inputs(2, n_features, 0)
        head = init_params(n_features or 2, 1, 2, rng, hidden_layers=0)
        head, _ = train(head, lambda _: (values, labels), how, 1.0, rng, fixed)
        return evaluate(head | fixed, values, labels)[0]

    assert accuracy(0) < 0.7
    assert accuracy(100) > 0.9


@pytest.mark.parametrize("anchor", ["inputs", "ridge"])
def test_an_anchor_is_solved_on_embeddings_and_goes_without_them(anchor, make_config):
    with pytest.raises(InputError, match="random-features = 40 does not go with anchor"):
        make_config(random_features=40, anchor=anchor)
