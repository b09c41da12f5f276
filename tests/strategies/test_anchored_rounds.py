"""What statistics give the classifier, end to end: asked once, solved, sent once, and mended."""

from functools import partial
from zlib import crc32

import numpy as np
import pytest
from faulty_grid import an_error, replace_bytes, silence
from federation import NODES, statistics, task
from flwr.app import Message, RecordDict

from clients.kept import VERSION
from fed_ist.config.derive import count_features, fixed_codec
from fed_ist.errors import InputError
from fed_ist.statistics.anchors import (
    BIAS,
    INPUTS_BIAS,
    INPUTS_WEIGHT,
    PROJECTION,
    WEIGHT,
    anchor_shapes,
    draw_projection,
    features,
    inputs_shapes,
    solve_anchor,
    solve_inputs,
)
from fed_ist.statistics.ridge import gram_statistics
from fed_ist.traffic import protocol
from fed_ist.traffic.codecs import HEADER_BYTES, decode
from fed_ist.training.local import evaluate

LATE = 900
FEW = 1300  # bytes that 20 random features fit, fewer than there are examples
N_GRAM = 193 * 194 // 2  # numbers of a triangle of 192 and a one


@pytest.fixture
def federate(federate, embedded):
    return partial(federate, cache_dir=embedded, anchor="ridge", norm="none")


def asked(federation, number=None):
    """(node, kind of statistics) of each request, sorted."""
    return sorted(
        (m.metadata.dst_node_id, task(m)[protocol.STATISTICS])
        for m in federation.grid.sent
        if m.metadata.message_type == protocol.STATISTICS_QUERY
        and number in (None, int(m.metadata.group_id))
    )


def given(federation, number):
    """Nodes that got the inputs or the anchor with their slice of this round."""
    messages = federation.sent("train", number)
    return {i for i, message in messages.items() if set(protocol.PARTS) & set(task(message))}


def fixed(federation, number, node_id):
    found = task(federation.sent("train", number)[node_id])
    n_features = count_features(federation.config, 4) or 192
    shapes = {
        protocol.INPUTS: inputs_shapes(192),
        protocol.ANCHOR: anchor_shapes(n_features, 4),
    }
    codec, given = fixed_codec(federation.config), {}
    for part in set(protocol.PARTS) & set(found):
        given |= decode(found[part], codec, shapes[part])
    return given


@pytest.mark.parametrize("strategy", ["ist", "fedavg", "topk", "fedrolex"])
def test_statistics_are_asked_and_what_they_gave_is_sent_once(strategy, federate):
    federation = federate(strategy=strategy).begin()
    federation.rounds(1, 2, 3)
    assert asked(federation) == [(i, protocol.GRAM) for i in sorted(NODES)]
    assert [given(federation, number) for number in (1, 2, 3)] == [set(NODES), set(), set()]
    assert all(task(m)[protocol.VERSIONS] == [1, 1] for m in federation.sent("train").values())
    assert federation.counts.rejected == 0


def test_a_node_gets_just_what_the_server_evaluates_but_for_the_features_it_draws(federate):
    federation = federate(anchor_bytes=FEW).begin()
    after = federation.rounds(1)
    for node_id in NODES:
        sent = fixed(federation, 1, node_id)
        assert set(sent) == {INPUTS_WEIGHT, INPUTS_BIAS, WEIGHT, BIAS}
        assert all((sent[name] == after[name]).all() for name in sent)
    assert (after[PROJECTION] == draw_projection(192, 20, federation.config.seed)).all()


def test_what_statistics_give_is_that_of_all_examples_in_one_place(federate):
    federation = federate(anchor_bytes=FEW).begin()
    parts = [federation.examples(node_id) for node_id in NODES]
    values = np.concatenate([part.values for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    seen = features(values, draw_projection(192, 20, 0))
    alone = solve_anchor(gram_statistics(seen, labels, 4), federation.config.anchor_scale)
    for name in (WEIGHT, BIAS):
        assert federation.params[name] == pytest.approx(alone[name], abs=0.01)
    turned = solve_inputs(gram_statistics(features(values, None), labels, 4))
    for a, b in ((turned, federation.params), (federation.params, turned)):
        # Axes of equal variance may be turned into each other; lengths stay.
        x = features(values, None) @ a[INPUTS_WEIGHT].T + a[INPUTS_BIAS]
        y = features(values, None) @ b[INPUTS_WEIGHT].T + b[INPUTS_BIAS]
        assert np.linalg.norm(x, axis=1) == pytest.approx(np.linalg.norm(y, axis=1), rel=0.01)


def test_a_run_starts_from_the_anchor_s_accuracy(federate):
    federation = federate().begin()
    parts = [federation.examples(node_id) for node_id in NODES]
    accuracies = [evaluate(federation.params, part.values, part.labels)[0] for part in parts]
    assert np.mean(accuracies) > 0.7
    plain = federate(anchor="none").begin()
    assert np.mean([evaluate(plain.params, p.values, p.labels)[0] for p in parts]) < 0.6


def test_a_node_that_lost_all_it_had_is_mended_in_the_next_round(federate):
    federation = federate().begin()
    federation.rounds(1)
    federation.grid.contexts[LATE].state = RecordDict()
    federation.rounds(2)
    assert federation.counts.rejected == 1
    federation.rounds(3)
    assert (federation.counts.answered, federation.counts.rejected) == (
        3,
        0,
    )
    assert given(federation, 3) == {LATE}
    assert asked(federation, 3) == []  # its statistics are counted already


@pytest.mark.parametrize("lost", ["record", "version"])
def test_a_node_without_the_anchor_says_so_and_is_mended_in_the_next_round(lost, federate):
    federation = federate().begin()
    federation.rounds(1)
    state = federation.grid.contexts[LATE].state
    if lost == "record":
        del state[protocol.ANCHOR]
    else:
        state.config_records[protocol.ANCHOR][VERSION] = 0
    federation.rounds(2)
    assert federation.counts.rejected == 1
    assert "has not got the anchor" in federation.received("train", 2)[LATE].error.reason
    federation.rounds(3)
    assert (federation.counts.answered, federation.counts.rejected) == (
        3,
        0,
    )
    assert given(federation, 3) == {LATE}


def without(federation, node_id):
    """The federation before this node came, and its context."""
    context = federation.grid.contexts.pop(node_id)
    return federation.begin(), context


def test_the_anchor_after_a_late_node_is_that_of_all_nodes(federate):
    federation, late = without(federate(anchor_bytes=FEW), LATE)
    first = federation.rounds(1)
    federation.grid.contexts[LATE] = late
    second = federation.rounds(2)
    together = federate(anchor_bytes=FEW).begin().params
    for name in (WEIGHT, BIAS):
        assert second[name] == pytest.approx(together[name], abs=0.01)
        assert np.abs(second[name] - first[name]).max() > 0.1
    assert asked(federation, 2) == [(LATE, protocol.RANDOM_GRAM)]
    assert given(federation, 2) == set(NODES)
    assert federation.counts.rejected == 0


@pytest.mark.parametrize("anchor", ["ridge", "inputs"])
def test_a_late_node_does_not_turn_the_inputs_that_weights_have_learnt_from(anchor, federate):
    federation, late = without(federate(anchor=anchor), NODES[1])
    first = federation.rounds(1)
    federation.grid.contexts[NODES[1]] = late
    second = federation.rounds(2)
    assert (first[INPUTS_WEIGHT] == second[INPUTS_WEIGHT]).all()
    assert (first[INPUTS_BIAS] == second[INPUTS_BIAS]).all()
    assert (fixed(federation, 2, NODES[1])[INPUTS_WEIGHT] == first[INPUTS_WEIGHT]).all()
    assert (WEIGHT in second) == (anchor == "ridge")
    if anchor == "ridge":  # the others have the inputs already
        assert set(fixed(federation, 2, LATE)) == {WEIGHT, BIAS}
    if anchor == "inputs":  # nothing is new, so nothing is asked, and only the late node gets it
        assert asked(federation, 2) == []
        assert given(federation, 2) == {NODES[1]}


def stranger(reply, asked):
    """The reply of a node, under the name of one that nobody asked."""
    asked = Message(RecordDict(), dst_node_id=4711, message_type=protocol.STATISTICS_QUERY)
    return Message(reply.content, reply_to=asked)


def no_sums(reply, asked):
    del reply.content[protocol.REPLY]
    return reply


def with_number(value):
    """Sums in fp32 with one number changed and the checksum in order."""

    def change(data):
        body = bytearray(data[HEADER_BYTES:])
        body[8:12] = np.float32(value).tobytes()
        return data[:2] + crc32(body).to_bytes(4, "little") + bytes(body)

    return replace_bytes(protocol.STATISTICS, change)


BAD_STATISTICS = {
    "an error": an_error,
    "too few numbers": replace_bytes(protocol.STATISTICS, lambda data: data[:-4]),
    "too many numbers": replace_bytes(protocol.STATISTICS, lambda data: data + bytes(4)),
    "damaged numbers": replace_bytes(protocol.STATISTICS, lambda data: data[:-1] + b"?"),
    "NaN": with_number("nan"),
    "Inf": with_number("inf"),
    "no sums": no_sums,
    "a stranger": stranger,
    "silence": silence,
}


@pytest.mark.parametrize("kind", BAD_STATISTICS)
def test_bad_statistics_are_refused_and_asked_again_in_the_next_round_or_after_a_rest(
    kind, federate
):
    federation = federate(anchor_bytes=FEW)
    federation.grid.faulty_type = protocol.STATISTICS_QUERY
    federation.grid.faults = {NODES[1]: BAD_STATISTICS[kind]}
    with_bad = federation.begin().params
    other, _ = without(federate(anchor_bytes=FEW), NODES[1])
    assert set(with_bad) == set(other.params)
    for name in (WEIGHT, BIAS, INPUTS_WEIGHT, INPUTS_BIAS):
        assert (with_bad[name] == other.params[name]).all()
    assert {line["node"] for line in federation.lines()} == {"0", "1", "2"}
    federation.grid.faults = {}
    is_silent = kind == "silence"
    federation.rounds(*[1, 2, 3][: 3 if is_silent else 1])
    assert asked(federation, 1) == ([] if is_silent else [(NODES[1], protocol.RANDOM_GRAM)])
    assert asked(federation, 3) == ([(NODES[1], protocol.RANDOM_GRAM)] if is_silent else [])
    together = federate(anchor_bytes=FEW).begin().params
    assert federation.params[WEIGHT] == pytest.approx(together[WEIGHT], abs=0.01)


def test_a_node_that_answers_twice_counts_once(federate):
    federation = federate(anchor_bytes=FEW)
    federation.prepare()
    honest = federation.grid.pull_messages

    def twice(message_ids):
        replies = list(honest(message_ids))
        return [*replies, *replies[:1]]

    federation.grid.pull_messages = twice
    doubled = federation.strategy.begin(federation.params, federation.grid)
    once = federate(anchor_bytes=FEW).begin().params
    assert all((doubled[name] == once[name]).all() for name in once)
    up = [n for n in federation.lines() if (n["kind"], n["direction"]) == ("statistics", "up")]
    assert len(up) == 6  # two kinds from three nodes


@pytest.mark.parametrize("anchor", ["ridge", "inputs"])
def test_a_run_whose_statistics_are_all_refused_goes_on_without_them_until_some_come(
    anchor, federate
):
    federation = federate(anchor=anchor)
    federation.grid.faulty_type = protocol.STATISTICS_QUERY
    federation.grid.faults = dict.fromkeys(NODES, with_number("nan"))
    federation.begin()
    plain = federate(anchor="none").begin()
    assert set(federation.params) == set(plain.params)
    first, expected = federation.rounds(1), plain.rounds(1)
    assert all((first[name] == expected[name]).all() for name in expected)
    assert all(
        protocol.VERSIONS not in task(message) for message in federation.sent("train", 1).values()
    )
    federation.grid.faults = {}
    second = federation.rounds(2)
    assert INPUTS_WEIGHT in second
    assert given(federation, 2) == set(NODES)


def test_refused_random_features_are_asked_again_though_the_inputs_are_known(federate):
    federation = federate(anchor_bytes=FEW)
    federation.grid.faulty_type = protocol.STATISTICS_QUERY

    def only_random(reply, asked):
        return reply if task(asked)[protocol.STATISTICS] == protocol.GRAM else None

    federation.grid.faults = dict.fromkeys(NODES, only_random)
    federation.begin()
    assert INPUTS_WEIGHT in federation.params
    assert WEIGHT not in federation.params
    federation.rounds(1)
    federation.grid.faults = {}
    federation.rounds(2)
    assert asked(federation, 2) == [(i, protocol.RANDOM_GRAM) for i in sorted(NODES)]
    together = federate(anchor_bytes=FEW).begin().params
    assert federation.params[WEIGHT] == pytest.approx(together[WEIGHT], abs=0.01)


# --- noise ------------------------------------------------------------------------------------


def gram(federation, node_id):
    """The triangle in the last reply of the node, which was of random features if there are any."""
    reply = federation.received(protocol.STATISTICS_QUERY)[node_id]
    n_features = count_features(federation.config, 4) or 192
    return statistics(reply, n_features)[protocol.GRAM]


def exact_gram(federation, node_id, n_features):
    """The triangle that the node's noise was added to; 0 features for the embeddings' own."""
    found = federation.examples(node_id)
    seen = features(found.values, draw_projection(192, n_features, federation.config.seed))
    return gram_statistics(seen, found.labels, 4).gram


def test_a_run_on_noisy_statistics_is_possible_and_repeats_itself_in_a_simulation(federate):
    noisy, same = (federate(statistics_noise=0.5, anchor_bytes=FEW).begin() for _ in range(2))
    noise = {i: gram(noisy, i) - exact_gram(noisy, i, 20) for i in NODES}
    for node_id in NODES:
        assert 0.35 < noise[node_id].std() < 0.65  # of 231 numbers
        assert (gram(noisy, node_id) == gram(same, node_id)).all()
    assert np.abs(noise[NODES[0]] - noise[NODES[1]]).min() > 0
    first, again = noisy.rounds(1, 2), same.rounds(1, 2)
    assert all((first[name] == again[name]).all() for name in first)
    assert all(np.isfinite(array).all() for array in first.values())
    assert noisy.counts.rejected == 0


def test_both_kinds_of_statistics_have_noise_of_their_own(federate):
    """The same noise on both would cancel out in what they have in common: their counts."""
    noisy = federate(statistics_noise=0.5, anchor_bytes=FEW).begin()
    drawn = {}
    kinds = {protocol.GRAM: 0, protocol.RANDOM_GRAM: count_features(noisy.config, 4)}
    for asked_for, message in zip(noisy.grid.sent, noisy.grid.received, strict=True):
        if message.metadata.message_type == protocol.STATISTICS_QUERY:
            n_features = kinds[task(asked_for)[protocol.STATISTICS]]
            node_id = message.metadata.src_node_id
            came = statistics(message, n_features or 192)[protocol.GRAM]
            drawn[node_id, len(came)] = came - exact_gram(noisy, node_id, n_features)
    small = min(n for _, n in drawn)
    assert small < N_GRAM
    for node_id in NODES:
        first, second = drawn[node_id, N_GRAM][:small], drawn[node_id, small]
        assert np.abs(np.corrcoef(first, second)[0, 1]) < 0.5


def test_a_device_draws_noise_that_nobody_can_draw_again(federate, image_folder):
    settings = {"node_config": {"data-path": str(image_folder)}, "statistics_noise": 0.5}
    first, second = (federate([5, 6], **settings).begin() for _ in range(2))
    assert (gram(first, 5) != gram(second, 5)).mean() > 0.99


def test_a_node_that_is_asked_again_has_no_new_noise_to_average_away(federate, image_folder):
    settings = {"node_config": {"data-path": str(image_folder)}, "statistics_noise": 0.5}
    federation = federate([5, 6], **settings).begin()
    again = dict(federation.strategy.gathering.collect(federation.grid, 0, [5], protocol.GRAM))
    assert (again[5].gram == gram(federation, 5)).all()


# --- judged -----------------------------------------------------------------------------------


def test_statistics_that_know_nothing_are_not_used_and_the_log_says_so(federate, caplog):
    """Noise of 1000 on sums over 48 images leaves no trace of a class."""
    federation = federate(statistics_noise=1000.0).begin()
    assert WEIGHT not in federation.params
    assert "Done without anchor: by cross-validation on the statistics" in caplog.text
    assert protocol.ANCHOR not in federation.strategy.foundation.used
    after = federation.rounds(1, 2)
    assert WEIGHT not in after
    assert federation.counts.rejected == 0


def test_what_was_used_is_known(federate):
    assert federate().begin().strategy.foundation.used == "inputs, anchor"
    assert federate(anchor="inputs").begin().strategy.foundation.used == "inputs"
    assert federate(anchor="none").begin().strategy.foundation.used == "none"


def test_an_anchor_that_slices_have_learnt_beside_stays_whatever_comes(federate):
    federation, late = without(federate(), LATE)
    federation.rounds(1)
    assert "anchor" in federation.strategy.foundation.used
    assert federation.strategy.foundation.is_good(protocol.ANCHOR, "a reason")
    federation.grid.contexts[LATE] = late
    assert WEIGHT in federation.rounds(2)


# --- bytes ------------------------------------------------------------------------------------


def statistics_up(federation):
    found = [line for line in federation.lines() if line["kind"] == "statistics"]
    return [int(line["payload_bytes"]) for line in found if line["direction"] == "up"]


@pytest.mark.parametrize(("strategy", "n_bytes"), [("ist", 20_000), ("fed3r", 1300)])
def test_anchor_bytes_bound_the_statistics_of_random_features(strategy, n_bytes, federate):
    """With one feature more, q = n + 1 numbers grow by q + 1 in the triangle and 4 in the sums."""
    anchor = "ridge" if strategy == "ist" else "none"
    federation = federate(strategy=strategy, anchor=anchor, anchor_bytes=n_bytes).begin()
    n = federation.params[WEIGHT].shape[1]
    q = n + 1
    sums = 4 * (q * (q + 1) // 2 + 4 * q)
    assert sums <= n_bytes < sums + 4 * (q + 1 + 4)
    found = [n - HEADER_BYTES for n in statistics_up(federation)]
    assert found.count(sums) == 3
    # The inputs need the embeddings' own triangle beside it.
    assert set(found) - {sums} == ({4 * (N_GRAM + 4 * 193)} if strategy == "ist" else set())


def test_bytes_that_not_one_random_feature_fits_are_one_sentence(federate):
    with pytest.raises(
        InputError,
        match="anchor-bytes = 40 is too little for the statistics of 4 classes: give 44 or",
    ):
        federate(anchor_bytes=40).begin()


def test_what_statistics_gave_is_counted_in_the_message_that_brought_it(federate):
    federation = federate(strategy="fedavg").begin()
    federation.rounds(1, 2)
    down = [
        (line["round"], int(line["payload_bytes"]))
        for line in federation.lines()
        if (line["kind"], line["direction"]) == ("train", "down")
    ]
    whole = 4 * (24 * 192 + 24 + 24 * 24 + 24 + 4 * 24 + 4) + HEADER_BYTES
    given = 4 * (192 * 192 + 192 + 4 * 192 + 4) + 2 * HEADER_BYTES
    assert down == [("1", whole + given)] * 3 + [("2", whole)] * 3
