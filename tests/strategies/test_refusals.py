"""Nodes that send what no node could have made: each is refused and named, the others go on."""

from functools import partial

import numpy as np
import pytest
from faulty_grid import replace_array, replace_bytes, replace_metric, replace_plain_array, silence
from federation import NODES
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord

from fed_ist.classifier.robust import MOST_CHANGE, root_mean_square
from fed_ist.traffic import protocol
from fed_ist.traffic.codecs import shapes_of
from strategies.core.replies import LONGEST_REASON
from strategies.core.wire import message_bytes

BAD, NAME = NODES[1], "1"  # its name is its partition
SLICE_BYTES = 20_000  # more than the slices of these tests have


@pytest.fixture
def federate(federate, embedded):
    return partial(federate, cache_dir=embedded)


def same(params, others):
    return all((params[name] == others[name]).all() for name in others)


def add_record(record):
    def fault(reply, asked):
        reply.content["more"] = record
        return reply

    return fault


def change_metrics(**values):
    """Of a node that is prepared."""

    def fault(reply, asked):
        metrics = reply.content.metric_records[protocol.METRICS]
        for name, value in values.items():
            metrics[name.replace("_", "-")] = value
        return reply

    return fault


def fail_with(reason):
    return lambda reply, asked: Message(Error(0, reason), reply_to=asked)


HUGE = 100 * SLICE_BYTES
TOO_LARGE = {
    "the slice": replace_bytes(protocol.SLICE, lambda data: data * 100),
    "a text for the slice": replace_bytes(protocol.SLICE, lambda data: "x" * HUGE),
    "a key that nobody asked for": replace_metric("more", bytes(HUGE)),
    "a list for the loss": replace_metric(protocol.LOSS, [0.5] * (HUGE // 8)),
    "a record of settings": add_record(ConfigRecord({"text": "x" * HUGE})),
    "a record of metrics": add_record(MetricRecord({"numbers": [0.5] * (HUGE // 8)})),
    "a record of arrays": add_record(ArrayRecord({"a": Array(np.zeros(HUGE // 4, np.float32))})),
}


@pytest.mark.parametrize("kind", TOO_LARGE)
def test_a_reply_that_is_too_large_is_refused_unread_and_stands_in_the_ledger(
    kind, federate, caplog
):
    federation, other = federate().begin(), federate().begin()
    federation.grid.faults, other.grid.faults = {BAD: TOO_LARGE[kind]}, {BAD: silence}
    with_bad, without = federation.round(), other.round()
    assert same(with_bad, without)
    assert not same(with_bad, federation.params)  # the others' slices are merged
    assert federation.counts.rejected == 1
    n_bytes = message_bytes(federation.received("train")[BAD])
    (warning,) = (r.getMessage() for r in caplog.records if "rejected" in r.getMessage())
    assert f"Reply of node {NAME} rejected: it has {n_bytes} bytes, and no more than" in warning
    name = federation.prepared[BAD].name
    (line,) = (
        line
        for line in federation.lines()
        if (line["kind"], line["direction"], line["node"]) == ("train", "up", name)
    )
    assert int(line["message_bytes"]) == n_bytes > 10 * SLICE_BYTES
    federation.grid.faults = {}
    federation.params = with_bad
    federation.round(2)
    counts = federation.counts
    assert (counts.asked, counts.answered, counts.rejected) == (3, 3, 0)


@pytest.mark.parametrize("strategy", ["fedavg", "topk"])
def test_an_honest_reply_is_never_too_large(strategy, federate):
    """The most that a reply may weigh is not far above what it weighs."""
    federation = federate(strategy=strategy).begin()
    federation.round()
    assert federation.counts.rejected == 0
    shapes = shapes_of(federation.slice_to(BAD))
    most = federation.strategy.purse.reply_bytes(shapes)
    assert message_bytes(federation.received("train")[BAD]) < most < 3 * SLICE_BYTES * 4


def test_the_text_of_an_error_is_cut_and_cannot_steer_a_terminal(federate, caplog):
    federation = federate().begin()
    federation.grid.faults = {BAD: fail_with("no\n\x1b[2Jmemory \u202e" + "x" * 10_000_000)}
    federation.round()
    (warning,) = (r.getMessage() for r in caplog.records if "rejected" in r.getMessage())
    assert warning.isprintable()
    assert warning.startswith(f"Reply of node {NAME} rejected: no  [2Jmemory  xxx")
    assert len(warning) < LONGEST_REASON + 50
    (line,) = (line for line in federation.lines() if line["kind"] == "error")
    assert int(line["message_bytes"]) > 10_000_000


LIES = {
    "beyond training": replace_array("fc1.weight", lambda a: a + np.float32(100)),
    "nearly infinite": replace_array("fc2.bias", lambda a: a + np.float32(3e38)),
    "another number of images": replace_metric(protocol.NUM_EXAMPLES, 2**20),
    "half an image": replace_metric(protocol.NUM_EXAMPLES, 12.5),
    "a loss below 0": replace_metric(protocol.LOSS, -1.0),
    "endless training": replace_metric(protocol.SECONDS, float("inf")),
    "no slice named": replace_metric(protocol.TRAINED, ""),
}


@pytest.mark.parametrize("kind", LIES)
def test_a_reply_that_no_training_gives_changes_nothing_and_the_next_round_goes_on(kind, federate):
    federation, other = federate().begin(), federate().begin()
    federation.grid.faults, other.grid.faults = {BAD: LIES[kind]}, {BAD: silence}
    with_bad, without = federation.round(), other.round()
    assert same(with_bad, without)
    assert not same(with_bad, federation.params)
    assert federation.counts.rejected == 1
    federation.grid.faults, federation.params = {}, with_bad
    federation.round(2)
    counts = federation.counts
    assert (counts.asked, counts.answered, counts.rejected) == (3, 3, 0)


@pytest.mark.parametrize("reply", ["slice", "update"])
@pytest.mark.parametrize("times", [0.5, 2.0])
def test_a_change_is_refused_from_a_hundred_times_what_was_sent(reply, times, federate):
    federation = federate([7], strategy="fedavg", min_nodes=1, reply=reply).begin()
    sent = federation.params
    size = sum(array.size for array in sent.values()) / sent["fc1.weight"].size
    far = times * MOST_CHANGE * root_mean_square(sent.values()) * np.sqrt(size)
    federation.grid.faults = {7: replace_array("fc1.weight", lambda a: a + np.float32(far))}
    after = federation.round()
    assert federation.counts.rejected == (times > 1)
    assert same(after, sent) == (times > 1)


def test_training_from_a_silent_last_layer_in_few_bits_is_never_refused(federate):
    settings = {"optimizer": "sgd", "learning_rate": 0.1}
    for more in ({}, settings, {"down_codec": "int4", "up_codec": "int4", "reply": "update"}):
        federation = federate(anchor="ridge", local_epochs=5, **more).begin()
        federation.rounds(1, 2)
        assert federation.counts.rejected == 0


def test_a_slice_for_another_group_is_refused(federate):
    """Two nodes whose replies have got mixed up: of the same shape, but of other neurons."""
    federation = federate().begin()
    sent = federation.configure()
    replies = {m.metadata.src_node_id: m for m in federation.grid.send_and_receive(sent)}
    records = [replies[i].content.config_records[protocol.REPLY] for i in NODES[:2]]
    replies[NODES[0]].content[protocol.REPLY], replies[NODES[1]].content[protocol.REPLY] = (
        ConfigRecord(dict(record)) for record in reversed(records)
    )
    federation.strategy.aggregate_train(1, replies.values())
    assert federation.counts.rejected == 2


@pytest.mark.parametrize("strategy", ["ist", "fedavg"])
def test_a_slice_of_another_round_is_refused(strategy, federate):
    """Even where nothing has changed in between, so that the same slice was sent twice."""
    federation = federate(strategy=strategy).begin()
    late = list(federation.grid.send_and_receive(federation.configure(1)))
    federation.configure(2)
    merged, _ = federation.strategy.aggregate_train(2, late)
    assert merged is None
    assert federation.counts.rejected == 3


def test_a_node_whose_images_have_changed_prepares_again(federate):
    federation = federate().begin()
    federation.prepared[BAD].counts[protocol.NUM_EXAMPLES] += 5
    federation.round(1)
    assert federation.counts.rejected == 1
    federation.round(2)
    assert federation.counts.rejected == 0
    n_examples = len(federation.examples(BAD).labels)
    assert federation.prepared[BAD].counts[protocol.NUM_EXAMPLES] == n_examples


IMPOSSIBLE_METRICS = {
    "no images": change_metrics(num_examples=0),
    "half an image": change_metrics(num_examples=12.5),
    "more images than there are": change_metrics(num_examples=2**40),
    "skipped images below 0": change_metrics(images_skipped=-1),
    "bytes without end": change_metrics(packed_bytes=float("inf")),
    "bytes beyond counting": change_metrics(raw_bytes=2**60),
    "a list": change_metrics(original_bytes=[1, 2]),
    "a partition below 0": change_metrics(partition=-1),
    "half a partition": change_metrics(partition=0.5),
    "a list of partitions": change_metrics(partition=[0]),
    "a hundred times the bytes": change_metrics(more=[1] * 120_000),
    "a hundred times the bytes elsewhere": add_record(ConfigRecord({"text": "x" * 120_000})),
    "an error of ten megabytes": fail_with("x" * 10_000_000),
}


@pytest.mark.parametrize("kind", IMPOSSIBLE_METRICS)
def test_a_node_that_cannot_be_as_it_says_is_passed_over_and_the_others_go_on(
    kind, federate, caplog
):
    """Of the nodes 100, 500 and 900, which have the partitions 1, 2 and 0, 900 is out of order."""
    federation = federate()
    bad, others = 900, {100, 500}
    federation.grid.faulty_type, federation.grid.faults = "query", {bad: IMPOSSIBLE_METRICS[kind]}
    federation.begin()
    assert set(federation.prepared) == others
    assert federation.counts.rejected == 1
    warnings = [r.getMessage() for r in caplog.records if f"Node {bad}" in r.getMessage()]
    assert len(warnings) == 2  # why, and that it is passed over
    assert max(map(len, warnings)) < LONGEST_REASON + 50
    up = {line["node"]: line for line in federation.lines() if line["direction"] == "up"}
    answer = federation.received("query")[bad]
    assert max(int(n["message_bytes"]) for n in up.values()) >= message_bytes(answer)
    federation.round(1)
    counts = federation.counts
    assert (counts.asked, counts.answered, counts.rejected) == (2, 2, 0)


def test_a_node_that_claims_another_s_partition_is_refused_as_often_as_it_does(federate, caplog):
    federation = federate()
    federation.grid.faulty_type, federation.grid.faults = (
        "query",
        {900: change_metrics(partition=2)},
    )
    federation.begin()
    assert set(federation.prepared) == {100, 500}
    assert federation.counts.rejected == 1
    assert "Node 900 came later, and is asked again: node 500" in caplog.text
    federation.round(1)
    counts = federation.counts
    assert (counts.asked, counts.answered, counts.rejected) == (2, 2, 1)
    federation.grid.faults = {}
    federation.round(2)
    assert set(federation.prepared) == set(NODES)


LARGE_STATISTICS = {
    "sums": ("fedncm", replace_bytes(protocol.STATISTICS, lambda data: data * 100)),
    "a record beside the sums": ("fed3r", add_record(ConfigRecord({"text": "x" * 10_000_000}))),
    "an array": ("fedpft", replace_plain_array("means", lambda a: np.tile(a, (100, 1)))),
    "an array beside them": ("fedpft", replace_plain_array("means", lambda a: a.astype(np.str_))),
}


@pytest.mark.parametrize("kind", LARGE_STATISTICS)
def test_statistics_that_are_too_large_are_refused_unread(kind, federate, caplog):
    strategy, fault = LARGE_STATISTICS[kind]
    federation, other = (federate(strategy=strategy, num_rounds=1) for _ in range(2))
    for each, node_fault in ((federation, fault), (other, silence)):
        each.grid.faulty_type, each.grid.faults = protocol.STATISTICS_QUERY, {BAD: node_fault}
    assert same(federation.begin().params, other.begin().params)
    n_bytes = message_bytes(federation.received(protocol.STATISTICS_QUERY)[BAD])
    assert f"Statistics of node {NAME} rejected: it has {n_bytes} bytes" in caplog.text
    assert federation.counts.rejected == 1
    found = [n["message_bytes"] for n in federation.lines() if n["kind"] == "statistics"]
    assert str(n_bytes) in found
