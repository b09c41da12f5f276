"""Anchors for few bytes, end to end: class means in 4 bits, sums of products in 8."""

from functools import partial

import numpy as np
import pytest
from faulty_grid import replace_bytes, silence
from federation import NODES, task

from fed_ist.statistics.anchors import INPUTS_WEIGHT, WEIGHT
from fed_ist.traffic import protocol
from fed_ist.training.local import evaluate

COARSE = {"means": "int4", "ridge": "int8"}
LINEAR = {"strategy": "fedavg", "hidden_layers": 0, "down_codec": "int4", "up_codec": "int4"}


@pytest.fixture
def federate(federate, embedded):
    return partial(federate, cache_dir=embedded, norm="none", reply="update")


def accuracy(federation):
    parts = [federation.examples(node_id) for node_id in NODES]
    found = [evaluate(federation.params, part.values, part.labels)[0] for part in parts]
    return np.mean(found)


@pytest.mark.parametrize("anchor", COARSE)
def test_a_few_bits_a_number_give_an_anchor_as_good_as_all(anchor, federate):
    exact = accuracy(federate(anchor=anchor).begin())
    coarse = accuracy(federate(anchor=anchor, statistics_codec=COARSE[anchor]).begin())
    assert coarse > exact - 0.05 > 0.6


@pytest.mark.parametrize("anchor", COARSE)
def test_a_linear_head_is_trained_beside_an_anchor(anchor, federate):
    """It begins as zeros, from which any change is infinitely large in proportion."""
    federation = federate(anchor=anchor, statistics_codec=COARSE[anchor], **LINEAR).begin()
    before = federation.params["fc1.weight"]
    after = federation.rounds(1, 2)["fc1.weight"]
    assert not before.any() and after.any()
    assert federation.counts.rejected == 0


def test_an_encoder_that_decorrelates_needs_no_inputs_beside_a_ridge(federate):
    plain, light = federate(anchor="ridge"), federate(anchor="ridge")
    light.strategy.foundation.decorrelated = True
    for federation in (plain, light):
        federation.begin().rounds(1)
    assert INPUTS_WEIGHT in plain.params and INPUTS_WEIGHT not in light.params
    assert light.strategy.foundation.used == "anchor"
    assert all(protocol.INPUTS not in task(m) for m in light.sent("train").values())


def test_inputs_are_solved_for_any_encoder_where_they_are_asked_for(federate):
    federation = federate(anchor="inputs")
    federation.strategy.foundation.decorrelated = True
    assert INPUTS_WEIGHT in federation.begin().params


@pytest.mark.parametrize(
    "counts", [[-1, 1, 1, 1], [1, 1, 1], [10**6] * 4, ["a"] * 4, [1.5] * 4, 3, [True] * 4]
)
def test_a_node_that_states_impossible_counts_is_left_out(counts, federate):
    federation = federate(anchor="means", statistics_codec="int4", min_nodes=2)
    federation.grid.faulty_type = protocol.STATISTICS_QUERY
    federation.grid.faults = {NODES[0]: replace_bytes(protocol.COUNTS, lambda _: counts)}
    federation.begin()
    assert federation.counts.rejected == 1
    assert WEIGHT in federation.params


def test_an_anchor_of_means_is_solved_anew_with_a_node_that_comes_later(federate):
    federation = federate(anchor="means", statistics_codec="int4", min_nodes=2)
    federation.grid.faulty_type = protocol.STATISTICS_QUERY
    federation.grid.faults = {NODES[0]: silence}
    early = federation.begin().params[WEIGHT]
    federation.grid.faults = {}
    late = federation.rounds(1, 2, 3)[WEIGHT]
    assert not np.array_equal(early, late)
    state = federation.strategy.foundation.save()
    again = federate(anchor="means", statistics_codec="int4", min_nodes=2)
    again.strategy.foundation.restore(state)
    assert again.strategy.foundation.save().values == state.values
