"""A classifier without hidden layers: a linear head, for strategies that send all of it."""

from functools import partial

import numpy as np
import pytest

from fed_ist.classifier.layout import init_params
from fed_ist.config.methods import SLICED, TRAINED
from fed_ist.errors import InputError

WHOLE = [name for name in TRAINED if name not in SLICED]


@pytest.fixture
def linear(federate, embedded):
    return partial(federate, cache_dir=embedded, hidden_layers=0, strategy="fedavg")


@pytest.mark.parametrize("strategy", WHOLE)
def test_a_round_trains_the_head_and_sends_nothing_else(strategy, linear):
    federation = linear(strategy=strategy).begin()
    before = {name: array.copy() for name, array in federation.params.items()}
    after = federation.round()
    assert set(after) == {"fc1.weight", "fc1.bias"}
    assert after["fc1.weight"].shape == (4, 192)
    assert not np.array_equal(after["fc1.weight"], before["fc1.weight"])
    assert set(federation.slice_to(900)) == {"fc1.weight", "fc1.bias"}


def test_in_four_bits_a_message_is_as_short_as_the_head(linear):
    federation = linear(down_codec="int4", up_codec="int4", reply="update", zstd=True).begin()
    federation.rounds(1, 2)
    n_bytes = [int(line["message_bytes"]) for line in federation.lines() if line["kind"] == "train"]
    assert len(n_bytes) == 2 * 3 * 2  # to three nodes and back, in two rounds
    assert max(n_bytes) < 4 * 193 / 2 + 600


@pytest.mark.parametrize("strategy", SLICED)
def test_where_neurons_are_dealt_there_must_be_some(strategy, make_config):
    with pytest.raises(InputError, match="a linear head has no hidden neurons to deal"):
        make_config(strategy=strategy, hidden_layers=0)


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_a_head_has_no_hidden_layer_to_normalise(norm, make_config):
    with pytest.raises(InputError, match="there is no hidden layer to normalise"):
        make_config(strategy="fedavg", hidden_layers=0, norm=norm)


def test_a_head_is_drawn_within_one_over_the_root_of_its_inputs():
    params = init_params(100, 7, 5, np.random.default_rng(0), hidden_layers=0)
    assert {name: array.shape for name, array in params.items()} == {
        "fc1.weight": (5, 100), "fc1.bias": (5,),
    }  # fmt: skip
    assert np.abs(params["fc1.weight"]).max() <= 0.1
