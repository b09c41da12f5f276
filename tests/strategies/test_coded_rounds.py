"""Rounds whose slices travel in fewer bits: what arrives, what is lost, and what is refused."""

from functools import partial

import numpy as np
import pytest
from faulty_grid import replace_bytes, silence
from federation import NODES, statistics, task

from fed_ist.config.derive import count_features
from fed_ist.rng import generator
from fed_ist.statistics.anchors import INPUTS_WEIGHT, WEIGHT, anchor_shapes, inputs_shapes
from fed_ist.traffic import protocol
from fed_ist.traffic.codecs import CODECS, HEADER_BYTES, ROTATED, encoded_bytes, shapes_of
from fed_ist.training.local import LocalTraining, train

PLAIN = [codec for codec in CODECS if codec not in ROTATED]
LOSSY = [codec for codec in PLAIN if codec != "fp32"]


@pytest.fixture
def federate(federate, embedded):
    return partial(federate, cache_dir=embedded)


def trained_alone(federation, sent, number=1):
    """What node 0 makes of a slice."""
    data = federation.examples(federation.node(0))
    how, rng = LocalTraining(1, 0, 8, "adam", 1e-3), generator(0, "train", number, 0)
    trained, _ = train(sent, lambda _: (data.values, data.labels), how, 1.0, rng)
    return trained


def step(array, codec):
    """How far a number of an array may be off, row by row."""
    if codec in ("fp16", "bf16"):
        return np.maximum(2.0 ** (-11 if codec == "fp16" else -8) * np.abs(array), 2.0**-25)
    largest = np.abs(array).max(axis=-1, keepdims=True)
    return 1.01 * largest / (127 if codec == "int8" else 7)


@pytest.mark.parametrize("codec", LOSSY)
def test_a_node_trains_on_the_slice_as_it_arrives_and_answers_as_near_to_what_it_learnt(
    codec, federate
):
    federation = federate(
        [7], strategy="fedavg", min_nodes=1, down_codec=codec, up_codec=codec
    ).begin()
    before, after = federation.params, federation.round()
    sent, back = federation.slice_to(7), federation.slice_from(7)
    expected = trained_alone(federation, sent)
    for name in before:
        assert np.abs(sent[name] - before[name]).max() > 0
        assert (np.abs(sent[name] - before[name]) <= step(before[name], codec)).all()
        assert (np.abs(back[name] - expected[name]) <= step(expected[name], codec)).all()
        assert (after[name] == back[name]).all()


@pytest.mark.parametrize("codec", PLAIN)
def test_an_update_is_added_to_the_slice_as_the_server_has_it(codec, federate):
    """What the codec loses on the way down stays with the node."""
    federation = federate(
        [7], strategy="fedavg", min_nodes=1, down_codec="int4", up_codec=codec, reply="update"
    ).begin()
    before, after = federation.params, federation.round()
    sent = federation.slice_to(7)
    learnt = {name: trained_alone(federation, sent)[name] - sent[name] for name in sent}
    for name in before:
        assert np.abs(sent[name] - before[name]).max() > 0.01 * np.abs(before[name]).max()
        off = np.abs(after[name] - before[name] - learnt[name])
        rounding = 1e-6  # of the sum in float32
        allowed = 0 if codec == "fp32" else step(learnt[name], codec)
        assert (off <= allowed + rounding).all()


@pytest.mark.parametrize("codec", ROTATED)
def test_a_change_in_few_bits_is_right_along_itself(codec, federate):
    """What is added is what the node learnt, and something at right angles to it."""
    federation = federate(
        [7], strategy="fedavg", min_nodes=1, down_codec="eden2", up_codec=codec, reply="update"
    ).begin()
    before, after = federation.params, federation.round()
    sent = federation.slice_to(7)
    trained = trained_alone(federation, sent)
    learnt, added = (
        np.concatenate([(new[name] - old[name]).ravel() for name in sorted(sent)])
        for new, old in ((trained, sent), (after, before))
    )
    assert learnt @ added == pytest.approx(learnt @ learnt, rel=1e-4)
    assert 0.05 < np.sum((added - learnt) ** 2) / (learnt @ learnt) < 1


@pytest.mark.parametrize("codec", ROTATED)
def test_few_bits_are_counted_and_a_run_is_the_same_twice(codec, federate):
    settings = {"down_codec": "eden2", "up_codec": codec, "reply": "update", "zstd": True}
    first, same = (federate(**settings).begin() for _ in range(2))
    courses = [federation.rounds(1, 2) for federation in (first, same)]
    assert all((courses[0][name] == courses[1][name]).all() for name in courses[0])
    assert first.counts.rejected == 0
    up = {
        int(line["payload_bytes"])
        for line in first.lines()
        if (line["kind"], line["direction"]) == ("train", "up")
    }
    assert up == {encoded_bytes(shapes_of(first.slice_to(node_id)), codec) for node_id in NODES}


@pytest.mark.parametrize("codec", PLAIN)
@pytest.mark.parametrize("zstd", [False, True])
def test_the_ledger_counts_what_the_codec_made(codec, zstd, federate):
    federation = federate(down_codec=codec, up_codec=codec, zstd=zstd).begin()
    federation.round()
    shapes = shapes_of(federation.slice_to(NODES[0]))
    most = encoded_bytes(shapes, codec)
    lines = [line for line in federation.lines() if line["kind"] == "train"]
    found = [int(line["payload_bytes"]) for line in lines]
    assert len(found) == 6
    for n_bytes in found:
        # Weights drawn at random are not compressed in int8 or int4; exponents are much alike.
        assert n_bytes < most if zstd and not codec.startswith("int") else n_bytes == most
    records = [task(m) for m in federation.sent("train").values()]
    assert {len(record[protocol.SLICE]) for record in records} <= set(found)


@pytest.mark.parametrize("strategy", ["ist", "fedavg", "feddropout", "heterofl", "fjord"])
def test_coded_runs_of_one_seed_are_the_same_and_others_differ(strategy, federate):
    settings = {"strategy": strategy, "down_codec": "int4", "up_codec": "int8", "reply": "update"}
    first, same, other = (federate(**settings, seed=seed).begin() for seed in (0, 0, 1))
    courses = [federation.rounds(1, 2) for federation in (first, same, other)]
    assert all((courses[0][name] == courses[1][name]).all() for name in courses[0])
    assert any((courses[0][name] != courses[2][name]).any() for name in courses[0])
    assert first.lines() == same.lines()
    assert first.counts.rejected == 0


def test_nodes_with_the_same_slice_round_it_each_in_its_own_way(federate):
    federation = federate(strategy="fedavg", down_codec="int4").begin()
    federation.round()
    a, b = (federation.slice_to(node_id)["fc1.weight"] for node_id in NODES[:2])
    assert (a != b).mean() > 0.1


def test_the_anchor_and_its_statistics_travel_in_codecs_of_their_own(federate):
    federation = federate(
        anchor="ridge", down_codec="int4", up_codec="int4", reply="update", statistics_codec="fp16"
    ).begin()
    plain = federate(anchor="ridge").begin()
    federation.rounds(1, 2)
    assert federation.counts.rejected == 0
    for node_id in NODES:
        reply, exact = (f.received(protocol.STATISTICS_QUERY)[node_id] for f in (federation, plain))
        found = statistics(reply, 192, "fp16")
        for name, sums in statistics(exact, 192).items():
            assert found[name] == pytest.approx(sums, rel=2**-11, abs=2**-25)
    up = [n for n in federation.lines() if (n["kind"], n["direction"]) == ("statistics", "up")]
    assert {int(line["payload_bytes"]) for line in up} == {
        HEADER_BYTES + 2 * (193 * 194 // 2 + 4 * 193)
    }
    given = task(federation.sent("train", 1)[NODES[0]])
    assert len(given[protocol.INPUTS]) == encoded_bytes(inputs_shapes(192), "int8")
    assert len(given[protocol.ANCHOR]) == encoded_bytes(anchor_shapes(192, 4), "int8")
    # A row of the weights takes 127 steps each side of 0, so what is evaluated is whole steps.
    for name in (INPUTS_WEIGHT, WEIGHT):
        row = federation.params[name][0]
        assert len(np.unique(row)) <= 255
    assert not set(protocol.PARTS) & set(task(federation.sent("train", 2)[NODES[0]]))


@pytest.mark.parametrize("anchor_bytes", [3000, 20_000])
def test_sixteen_bits_allow_more_random_features_in_the_same_bytes(anchor_bytes, federate):
    wide, narrow = (
        federate(anchor="ridge", anchor_bytes=anchor_bytes, statistics_codec=codec).begin()
        for codec in ("fp16", "fp32")
    )
    n_wide, n_narrow = (f.params[WEIGHT].shape[1] for f in (wide, narrow))
    assert 1.3 * n_narrow < n_wide < 1.6 * n_narrow
    largest = max(
        int(n["payload_bytes"])
        for n in wide.lines()
        if n["round"] == "0" and n["kind"] == "statistics"
    )
    assert count_features(wide.config, 4) == n_wide
    assert largest <= max(anchor_bytes, 2 * (193 * 194 // 2 + 4 * 193)) + HEADER_BYTES


BAD = {
    "nothing": lambda data: b"",
    "another version": lambda data: b"\x09" + data[1:],
    "another codec": lambda data: data[:1] + b"\x03" + data[2:],
    "damaged": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "cut short": lambda data: data[:-1],
    "too long": lambda data: data * 2,
    "a bomb": lambda data: data[:1] + bytes([data[1] + 16]) + data[2:],
}


@pytest.mark.parametrize("kind", BAD)
def test_foreign_bytes_for_a_slice_are_refused_and_change_nothing(kind, federate):
    settings = {"up_codec": "int4", "reply": "update"}
    federation, other = federate(**settings).begin(), federate(**settings).begin()
    federation.grid.faults = {NODES[0]: replace_bytes(protocol.SLICE, BAD[kind])}
    other.grid.faults = {NODES[0]: silence}
    with_bad, without = federation.round(), other.round()
    assert federation.counts.rejected == 1
    assert all((with_bad[name] == without[name]).all() for name in without)


def test_a_slice_that_a_node_cannot_read_is_an_error_that_says_so(federate):
    federation = federate(down_codec="int8").begin()
    messages = federation.configure()
    record = messages[0].content.config_records[protocol.TASK]
    record[protocol.SLICE] = record[protocol.SLICE][:-1]
    replies = federation.grid.send_and_receive(messages)
    federation.strategy.aggregate_train(1, replies)
    assert federation.counts.rejected == 1
    (error,) = (reply.error.reason for reply in replies if reply.has_error())
    assert "The slice that came cannot be read: it has" in error
