"""Rounds in which some nodes mean harm and keep to the protocol: what each way of merging makes."""

from functools import partial

import numpy as np
import pytest
from faulty_grid import replace_array
from federation import NODES

from fed_ist.classifier.robust import clip_changes, trimmed_mean
from fed_ist.classifier.slices import extract
from fed_ist.config.methods import TRAINED
from fed_ist.errors import InputError

BAD = NODES[1]


@pytest.fixture
def federate(federate, embedded):
    return partial(federate, cache_dir=embedded)


def far(federation):
    """The bad node moves a layer as far as it can unnoticed; a quarter of it would be noticed."""
    federation.grid.faults = {BAD: replace_array("fc1.weight", lambda a: a + np.float32(1))}
    return federation


def returned(federation):
    """What came back in the first round, as `slices.merge` takes it."""
    errands = federation.errands
    return [
        (errand.subnet, federation.slice_from(node_id), errand.n_examples)
        for node_id, errand in errands.items()
    ]


@pytest.mark.parametrize("strategy", ["fedavg", "heterofl", "fedrolex"])
def test_a_trimmed_round_is_the_trimmed_mean_of_what_came_back(strategy, federate):
    settings = {"aggregation": "trimmed-mean", "clip_norm": 0.0}
    federation = far(federate(strategy=strategy, **settings).begin())
    before, after = federation.params, federation.round()
    assert federation.counts.rejected == 0
    expected = trimmed_mean(before, returned(federation), 0.25)
    assert all((after[name] == expected[name]).all() for name in before)
    assert np.abs(after["fc1.weight"] - before["fc1.weight"]).max() < 0.1  # the others learn less


def test_a_clipped_round_of_disjoint_slices_takes_in_less_of_the_bad_one(federate):
    federation = far(federate(clip_norm=1.0).begin())
    before, after = federation.params, federation.round()
    found = returned(federation)
    for subnet, clipped, _ in clip_changes(before, found, 1.0):
        merged = extract(after, subnet)
        assert (merged["fc1.weight"] == clipped["fc1.weight"]).all()
    assert np.abs(after["fc1.weight"] - before["fc1.weight"]).max() < 0.1


@pytest.mark.parametrize("settings", [{"aggregation": "trimmed-mean"}, {"clip_norm": 1.0}])
@pytest.mark.parametrize("strategy", ["fedavgm", "fedadam"])
def test_the_server_s_optimiser_steps_from_what_is_left(strategy, settings, federate):
    federation = far(federate(strategy=strategy, **settings).begin())
    before, after = federation.params, federation.rounds(1, 2)
    assert np.abs(after["fc1.weight"] - before["fc1.weight"]).max() < 0.2
    assert (after["fc1.weight"] != before["fc1.weight"]).any()


@pytest.mark.parametrize("strategy", [name for name in TRAINED if name != "topk"])
def test_every_strategy_goes_on_with_both(strategy, federate):
    settings = {"aggregation": "trimmed-mean", "clip_norm": 2.0, "groups": 1}
    federation = federate(strategy=strategy, **settings).begin()
    before, after = federation.params, federation.rounds(1, 2)
    assert federation.counts.rejected == 0
    assert any((after[name] != before[name]).any() for name in before)


def test_a_round_of_one_node_is_neither_clipped_nor_trimmed_away(federate):
    federation, plain = (
        federate([7], strategy="fedavg", min_nodes=1, clip_norm=clip).begin() for clip in (0.5, 0.0)
    )
    after, whole = federation.round(), plain.round()
    before = plain.params
    for name in before:  # half of its own change, which is the median
        half = before[name] + (whole[name] - before[name]) / 2
        assert after[name] == pytest.approx(half, abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"groups": 0}, "groups = 0, where each node has a slice of its own"),
        ({"groups": 0, "strategy": "feddropout"}, "strategy = 'feddropout' and groups = 0"),
        ({"strategy": "topk"}, "does not go with strategy = 'topk'"),
        ({"groups": 1, "trim_share": 0.6}, r"trim-share = 0.6 .*give a number in \[0, 0.5\]"),
    ],
)
def test_trimming_that_is_not_possible_is_one_sentence(changes, says, make_config):
    with pytest.raises(InputError, match=says):
        make_config(aggregation="trimmed-mean", **changes)


@pytest.mark.parametrize("changes", [{"groups": 2}, {"strategy": "fedavg", "fraction_nodes": 0.7}])
def test_too_few_nodes_for_trimming_is_one_sentence_at_the_start(changes, federate):
    with pytest.raises(InputError, match=r"needs [36] nodes in a round of [12] slices, and there"):
        federate(aggregation="trimmed-mean", **changes).begin()
