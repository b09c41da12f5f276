"""A slice that nobody has trained does not travel: both sides draw it from the seed."""

from functools import partial

import numpy as np
import pytest
from faulty_grid import replace_bytes
from federation import NODES, task
from hypothesis import given
from hypothesis import strategies as st

from fed_ist.classifier.dealing import random_neurons
from fed_ist.classifier.slices import extract, from_neuron_bits, neuron_bits
from fed_ist.config.derive import draw_classifier
from fed_ist.statistics.anchors import trained_and_fixed
from fed_ist.traffic import protocol

WIDTHS = st.dictionaries(st.sampled_from(["h", "h1", "h2"]), st.integers(1, 70))


@pytest.fixture
def federate(federate, embedded):
    """A federation whose classifier is the drawn one, as in a run."""

    def drawn(*args, **settings):
        federation = federate(*args, cache_dir=embedded, **settings)
        n_inputs = settings.get("random_features") or 192
        federation.params = draw_classifier(federation.config, n_inputs, 4)
        return federation.begin()

    return partial(drawn)


@given(widths=WIDTHS, share=st.floats(0.01, 1), seed=st.integers(0, 99))
def test_neurons_in_bits_are_the_same_neurons(widths, share, seed):
    subnet = random_neurons(widths, share, np.random.default_rng(seed))
    data = neuron_bits(subnet, widths)
    found = from_neuron_bits(data, widths)
    assert set(found.neurons) == set(subnet.neurons)
    assert all((found.neurons[axis] == rows).all() for axis, rows in subnet.neurons.items())
    with pytest.raises(ValueError, match=f"{len(data) + 1} bytes where there should be"):
        from_neuron_bits(data + b"x", widths)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"anchor": "ridge", "down_codec": "int4"},
        {"strategy": "fedavg", "hidden_layers": 2, "norm": "batch"},
        {"strategy": "fedavg", "hidden_layers": 0},
        {"strategy": "fedavg", "hidden_layers": 0, "random_features": 64},
        {"strategy": "fjord", "capacities": "0.5,1,1"},
    ],
)
def test_the_first_slice_is_drawn_by_the_node_exactly_and_the_next_one_travels(settings, federate):
    federation = federate(**settings)
    start, _ = trained_and_fixed(federation.params)
    federation.rounds(1, 2)
    assert federation.counts.rejected == 0
    for node_id, message in federation.sent("train", 1).items():
        asked = task(message)
        assert protocol.SLICE not in asked
        widths = {a: len(federation.params[f"fc{a[1:] or 1}.bias"]) for a in axes(federation)}
        subnet = from_neuron_bits(asked[protocol.NEURONS], widths)
        drawn, expected = federation.slice_to(node_id, 1), extract(start, subnet)
        assert all((drawn[name] == expected[name]).all() for name in expected)
    assert all(protocol.SLICE in task(m) for m in federation.sent("train", 2).values())


def axes(federation):
    if federation.config.norm != "none":
        return ["h"]
    return [f"h{i}" for i in range(1, federation.config.hidden_layers + 1)]


def test_a_round_that_nobody_answered_leaves_the_next_one_to_be_drawn_too(federate):
    federation = federate()
    federation.grid.faults = {n: replace_bytes(protocol.SLICE, lambda data: b"") for n in NODES}
    federation.rounds(1)
    federation.grid.faults = {}
    federation.rounds(2)
    assert all(protocol.DRAWN in task(m) for m in federation.sent("train", 2).values())
    assert federation.counts.rejected == 0


def test_a_node_that_draws_other_numbers_is_refused(federate):
    """As one with another version of numpy might."""
    federation = federate()
    federation.grid.contexts[NODES[0]].run_config["seed"] = 1
    federation.round()
    assert federation.counts.rejected == 1
