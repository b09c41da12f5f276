"""Each method beside IST: the same messages and the same ledger, and its own rule by hand."""

from functools import partial

import numpy as np
import pytest
from faulty_grid import replace_array, replace_metric, replace_plain_array, silence
from federation import NODES, PLAIN_MEAN, plain_arrays, task

from clients.app import create_app
from clients.coding import MEMORY
from fed_ist.classifier.dealing import leading_neurons
from fed_ist.config.methods import CLOSED_FORMS
from fed_ist.encoder.embeddings import Counts, Embeddings
from fed_ist.errors import InputError
from fed_ist.rng import generator
from fed_ist.statistics.anchors import BIAS, PROJECTION, WEIGHT, features, solve_anchor
from fed_ist.statistics.ridge import gram_statistics
from fed_ist.traffic import protocol
from fed_ist.traffic.codecs import HEADER_BYTES
from fed_ist.traffic.ledger import Ledger
from fed_ist.training.local import LocalTraining, evaluate, predict, train
from sims.experiments.shared_embeddings import SharedData
from sims.local_grid import LocalGrid
from strategies import METHOD_CLASSES, create_strategy
from strategies.core.wire import from_record, message_bytes

EMBED, HIDDEN, CLASSES = 192, 24, 4
ENTRIES = 24 * 192 + 24 + 24 * 24 + 24 + 4 * 24 + 4
CAPACITIES = "1,0.5,0.25"  # of nodes 0, 1 and 2
IN_ROUNDS = sorted(set(METHOD_CLASSES) - set(CLOSED_FORMS))


@pytest.fixture
def federate(federate, embedded):
    return partial(federate, cache_dir=embedded)


def slice_bytes(neurons: int) -> int:
    """float32 weights and biases: d -> n, n -> n, n -> C; and what goes before them."""
    n = neurons
    return HEADER_BYTES + 4 * (EMBED * n + n + n * n + n + CLASSES * n + CLASSES)


def triangle(n: int) -> int:
    return n * (n + 1) // 2


# Payload (down, up) of nodes 0, 1 and 2 in each round, or once for the closed forms.
WHOLE = slice_bytes(24)
PAYLOADS = {
    "fedavg": [(WHOLE, WHOLE)] * 3,
    "fedavgm": [(WHOLE, WHOLE)] * 3,
    "fedadam": [(WHOLE, WHOLE)] * 3,
    # 0.25 of 24 neurons for node 2; the other 18 in equal parts.
    "ist": [(slice_bytes(n), slice_bytes(n)) for n in (9, 9, 6)],
    # A third, as there are three nodes, or a quarter where no more can be trained.
    "feddropout": [(slice_bytes(n), slice_bytes(n)) for n in (8, 8, 6)],
    "heterofl": [(slice_bytes(n), slice_bytes(n)) for n in (24, 12, 6)],
    "fjord": [(slice_bytes(n), slice_bytes(n)) for n in (24, 12, 6)],
    "fedrolex": [(slice_bytes(n), slice_bytes(n)) for n in (24, 12, 6)],
    "topk": [(WHOLE, 8 * round(0.05 * ENTRIES))] * 3,  # a float32 and an int32 each
    "fedcof": [(0, HEADER_BYTES + 4 * CLASSES * (EMBED + 1))] * 3,
    "fedncm": [(0, HEADER_BYTES + 4 * CLASSES * (EMBED + 1))] * 3,
    "fed3r": [(0, HEADER_BYTES + 4 * (triangle(EMBED + 1) + CLASSES * (EMBED + 1)))] * 3,
    "fedpft": [(0, CLASSES * (4 * EMBED + 4 * EMBED + 8))] * 3,
}


def run(federation):
    """Two rounds by the strategy's own loop; parameters before the first and after each."""
    seen = []
    federation.prepare()
    federation.strategy.run(federation.grid, lambda _, params: seen.append(params))
    return seen


def test_every_strategy_has_a_formula():
    for name in set(METHOD_CLASSES) - set(PAYLOADS):
        pytest.fail(f"'{name}' is new: say in PAYLOADS of {__file__} what its nodes get and send")


@pytest.mark.parametrize("strategy", METHOD_CLASSES)
def test_a_run_is_the_same_twice_and_every_message_and_byte_of_it_is_counted(strategy, federate):
    first, second = (
        federate(strategy=strategy, num_rounds=2, capacities=CAPACITIES) for _ in range(2)
    )
    course, again = run(first), run(second)
    n_rounds = 0 if strategy in CLOSED_FORMS else 2
    assert len(course) == len(again) == 1 + n_rounds
    for a, b in zip(course, again, strict=True):
        assert set(a) == set(b)
        assert all((a[name] == b[name]).all() for name in a)
        assert all(np.isfinite(array).all() for array in a.values())
    if n_rounds:
        assert any((course[-1][name] != course[-2][name]).any() for name in course[0])

    lines = first.lines()
    assert lines == second.lines()
    for direction, messages in (("down", first.grid.sent), ("up", first.grid.received)):
        entered = [int(line["message_bytes"]) for line in lines if line["direction"] == direction]
        assert sorted(entered) == sorted(message_bytes(message) for message in messages)
        assert sum(entered) == first.ledger.message_bytes[direction]

    kind = "train" if n_rounds else "statistics"
    hidden = first.config.hidden_layers * [first.config.hidden_dim]
    n_neuron_bytes = sum(-(-width // 8) for width in hidden)
    work = [line for line in lines if line["kind"] != "prepare"]
    assert {line["kind"] for line in work} == {kind}
    assert len(work) == 6 * max(1, n_rounds)
    for line in work:
        down, up = PAYLOADS[strategy][int(line["node"])]
        if n_rounds and line["round"] == "1":
            down = n_neuron_bytes  # nodes draw the first slice themselves
        assert int(line["payload_bytes"]) == (down if line["direction"] == "down" else up)
    assert all(line["payload_bytes"] == "0" for line in lines if line["kind"] == "prepare")


@pytest.mark.parametrize("strategy", IN_ROUNDS)
def test_no_name_or_count_of_a_node_s_images_travels_down_and_the_task_is_bounded(
    strategy, federate
):
    federation = federate(strategy=strategy, capacities=CAPACITIES).begin()
    federation.round()
    extras = {"fjord": {protocol.LEVELS}}
    usual = {protocol.ROUND, protocol.SCALE, protocol.SLICE, protocol.WIDTHS}
    for message in federation.sent("train").values():
        assert set(message.content) == {protocol.TASK}
        assert set(task(message)) == usual | extras.get(strategy, set())


@pytest.mark.parametrize("strategy", IN_ROUNDS)
def test_replies_that_are_not_what_was_asked_for_are_refused(strategy, federate):
    federation = federate(strategy=strategy).begin()
    fault = replace_array("fc1.bias", lambda a: a[:-1])
    if strategy == "topk":
        fault = replace_plain_array("values", lambda a: a[:-1])
    federation.grid.faults = {NODES[0]: fault}
    with_bad = federation.round()
    assert federation.counts.rejected == 1

    other = federate(strategy=strategy).begin()
    other.grid.faults = {NODES[0]: silence}
    without = other.round()
    assert all((with_bad[name] == without[name]).all() for name in without)


# --- slices that overlap -------------------------------------------------------------------


def test_heterofl_takes_means_where_slices_overlap_and_keeps_what_nobody_holds(federate):
    """Of 24 neurons node 0 has 0-11, node 1 has 0-5, node 2 (like 0) 0-11; 12-23 rest."""
    federation = federate(strategy="heterofl", capacities="0.5,0.25", **PLAIN_MEAN).begin()
    for i, n_examples in enumerate((10, 30, 10)):
        node_id, fault = federation.node(i), replace_metric(protocol.NUM_EXAMPLES, n_examples)
        federation.prepared[node_id].counts[protocol.NUM_EXAMPLES] = n_examples
        federation.grid.faults[node_id] = fault
    before, after = federation.params, federation.round()
    a, b, c = (federation.slice_from(federation.node(i)) for i in range(3))
    assert [len(r["fc1.bias"]) for r in (a, b, c)] == [12, 6, 12]
    # 10, 30 and 10 examples: 0.2, 0.6 and 0.2 of all.
    mean = 0.2 * a["fc1.bias"][:6] + 0.6 * b["fc1.bias"] + 0.2 * c["fc1.bias"][:6]
    assert after["fc1.bias"][:6] == pytest.approx(mean, abs=1e-6)
    two = (a["fc1.bias"][6:] + c["fc1.bias"][6:]) / 2
    assert after["fc1.bias"][6:12] == pytest.approx(two, abs=1e-6)
    assert (after["fc1.bias"][12:] == before["fc1.bias"][12:]).all()
    corner = 0.2 * a["fc2.weight"][:6, :6] + 0.6 * b["fc2.weight"]
    corner += 0.2 * c["fc2.weight"][:6, :6]
    assert after["fc2.weight"][:6, :6] == pytest.approx(corner, abs=1e-6)
    across = (a["fc2.weight"][:6, 6:] + c["fc2.weight"][:6, 6:]) / 2
    assert after["fc2.weight"][:6, 6:12] == pytest.approx(across, abs=1e-6)
    assert (after["fc2.weight"][12:] == before["fc2.weight"][12:]).all()
    assert (after["fc2.weight"][:, 12:] == before["fc2.weight"][:, 12:]).all()


def test_a_slice_of_a_share_trains_with_sums_as_large_as_the_whole_has(federate):
    scales = {}
    for rescale in (True, False):
        federation = federate(strategy="heterofl", capacities=CAPACITIES, rescale=rescale).begin()
        federation.round()
        sent = federation.sent("train")
        scales[rescale] = [task(sent[federation.node(i)])[protocol.SCALE] for i in range(3)]
    assert scales == {True: [1, 2, 4], False: [1, 1, 1]}


def test_fedrolex_rolls_its_window_on_by_one_neuron_each_round(federate):
    """Half of 24 neurons: 0-11 in round 1, 1-12 in round 2, 23 and 0-10 in round 24."""
    federation = federate(strategy="fedrolex", capacities="0.5").begin()
    for number, window in ((1, range(12)), (2, range(1, 13)), (24, [*range(11), 23])):
        before, rest = federation.params, sorted(set(range(24)) - set(window))
        after = federation.rounds(number)
        for node_id in NODES:
            sent = federation.slice_to(node_id, number)
            assert (sent["fc1.weight"] == before["fc1.weight"][list(window)]).all()
            inner = before["fc2.weight"][np.ix_(list(window), list(window))]
            assert (sent["fc2.weight"] == inner).all()
        assert (after["fc1.bias"][list(window)] != before["fc1.bias"][list(window)]).all()
        assert (after["fc1.bias"][rest] == before["fc1.bias"][rest]).all()
        assert (after["fc2.weight"][rest] == before["fc2.weight"][rest]).all()


@pytest.mark.parametrize(
    ("settings", "neurons"),
    [
        ({}, [8, 8, 8]),
        ({"groups": 6}, [4, 4, 4]),
        ({"groups": 2}, [12, 12, 12]),
        ({"capacities": "1,0.125"}, [8, 3, 8]),
    ],
)
def test_federated_dropout_sends_each_node_as_many_neurons_as_ist_but_random_ones(
    settings, neurons, federate
):
    federation = federate(strategy="feddropout", **settings).begin()
    federation.round()
    slices = [federation.slice_to(federation.node(i)) for i in range(3)]
    assert [s["fc2.weight"].shape for s in slices] == [(n, n) for n in neurons]
    rows = {row.tobytes(): i for i, row in enumerate(federation.params["fc1.weight"])}
    drawn = [[rows[row.tobytes()] for row in s["fc1.weight"]] for s in slices]
    assert len({tuple(neurons) for neurons in drawn}) == 3


@pytest.mark.parametrize(
    ("hidden", "capacities", "trained"),
    [
        # Neurons that the steps of nodes 0, 1 and 2 may train.
        (24, "1,0.5,0.25", [[6, 12, 24], [6, 12], [6]]),
        (24, "1", [[24], [24], [24]]),
        (26, "1,0.7,0.3", [[8, 18, 26], [8, 18], [8]]),  # 18.2 and 7.8
        (26, "0.3,1,0.7", [[8], [8, 18, 26], [8, 18]]),
        (25, "1,0.5,0.3", [[8, 12, 25], [8, 12], [8]]),  # 12.5 and 7.5
    ],
)
def test_fjord_s_steps_train_every_level_up_to_a_node_s_own(hidden, capacities, trained, federate):
    federation = federate(strategy="fjord", hidden_dim=hidden, capacities=capacities).begin()
    federation.round()
    sent = federation.sent("train")
    for i, expected in enumerate(trained):
        message = sent[federation.node(i)]
        n = len(federation.slice_to(federation.node(i))["fc1.bias"])
        levels = task(message)[protocol.LEVELS]
        assert n == expected[-1]
        assert [len(leading_neurons({"h": n}, level).neurons["h"]) for level in levels] == expected
        assert all(0 < level <= 1 for level in levels)
        assert task(message)[protocol.SCALE] == 1


def test_a_node_between_fjord_s_levels_trains_those_below_and_all_that_it_can(federate):
    federation = federate(strategy="fjord", capacities="1,0.5,0.25")
    federation.grid.contexts[500].node_config["capacity"] = 0.75
    federation.begin().round()
    message = federation.sent("train")[500]
    assert len(federation.slice_to(500)["fc1.bias"]) == 18
    assert task(message)[protocol.LEVELS] == pytest.approx([1 / 3, 2 / 3, 1])


# --- the server's own step -------------------------------------------------------------------


def two_rounds(federation):
    """Parameters before, between and after two rounds, and the mean reply of each by examples."""
    course, means = [federation.begin().params], []
    for number in (1, 2):
        course.append(federation.rounds(number))
        weights = {
            i: reply.content.config_records[protocol.REPLY][protocol.NUM_EXAMPLES]
            for i, reply in federation.received("train", number).items()
        }
        assert sorted(weights.values()) == [14, 14, 15]
        slices = {i: federation.slice_from(i, number) for i in weights}
        means.append(
            {name: sum(w / 43 * slices[i][name] for i, w in weights.items()) for name in course[0]}
        )
    return course, means


def test_fedavgm_carries_nine_tenths_of_the_first_difference_into_the_second_round(federate):
    (p0, p1, p2), (m1, m2) = two_rounds(
        federate(strategy="fedavgm", server_learning_rate=0.5, server_momentum=0.9, **PLAIN_MEAN)
    )
    for name in p0:
        first, second = m1[name] - p0[name], m2[name] - p1[name]
        assert p1[name] == pytest.approx(p0[name] + 0.5 * first, abs=1e-6)
        assert p2[name] == pytest.approx(p1[name] + 0.5 * (0.9 * first + second), abs=1e-6)


def test_fedavgm_without_momentum_at_its_own_rate_is_fedavg(federate):
    plain, moved = (
        federate(strategy=strategy, server_momentum=0.0).begin().rounds(1, 2)
        for strategy in ("fedavg", "fedavgm")
    )
    assert all(plain[name] == pytest.approx(moved[name], abs=1e-6) for name in plain)


def test_fedadam_steps_by_its_moments(federate):
    """Rate 0.01, beta1 0.9, beta2 0.99, tau 0.001; v starts at tau²."""
    (p0, p1, p2), (m1, m2) = two_rounds(federate(strategy="fedadam", **PLAIN_MEAN))
    for name in p0:
        d1, d2 = m1[name] - p0[name], m2[name] - p1[name]
        mean, square = 0.1 * d1, 0.99e-6 + 0.01 * d1**2
        step = 0.01 * mean / (np.sqrt(square) + 0.001)
        assert p1[name] == pytest.approx(p0[name] + step, abs=1e-6)
        mean, square = 0.9 * mean + 0.1 * d2, 0.99 * square + 0.01 * d2**2
        step = 0.01 * mean / (np.sqrt(square) + 0.001)
        assert p2[name] == pytest.approx(p1[name] + step, abs=1e-6)


@pytest.mark.parametrize("strategy", ["fedavgm", "fedadam"])
def test_running_moments_of_batch_norm_are_averaged_whatever_the_server_s_optimiser(
    strategy, federate
):
    """They are no gradients: momentum would carry a variance past 0."""
    (_, p1, p2), (m1, m2) = two_rounds(federate(strategy=strategy, norm="batch", **PLAIN_MEAN))
    for name in ("norm1.mean", "norm1.var", "norm2.mean", "norm2.var"):
        assert p1[name] == pytest.approx(m1[name], abs=1e-6)
        assert p2[name] == pytest.approx(m2[name], abs=1e-6)
    assert np.abs(p2["norm1.weight"] - m2["norm1.weight"]).max() > 1e-6


def test_a_running_variance_below_zero_is_refused(federate):
    federation = federate(norm="batch").begin()
    federation.grid.faults = {NODES[0]: replace_array("norm1.var", lambda a: -a, norm="batch")}
    after = federation.round()
    assert federation.counts.rejected == 1
    assert (after["norm1.var"] > 0).all()


# --- compressed uploads ----------------------------------------------------------------------


def flat(params):
    return np.concatenate([params[name].ravel() for name in sorted(params)])


def dense_update(federation, number, sent):
    """What node 0, alone, learns in a round."""
    data = federation.examples(federation.node(0))
    how = LocalTraining(1, 0, 8, "adam", 1e-3)
    trained, _ = train(
        sent, lambda _: (data.values, data.labels), how, 1.0, generator(0, "train", number, 0)
    )
    return {name: trained[name] - sent[name] for name in sent}


def test_top_k_sends_the_largest_entries_and_what_it_kept_back_counts_in_the_next_round(federate):
    federation = federate([7], strategy="topk", min_nodes=1, upload_share=0.01).begin()
    n_sent, memory = round(0.01 * ENTRIES), np.zeros(ENTRIES, dtype=np.float32)
    for number in (1, 2):
        before = federation.params
        left = flat(dense_update(federation, number, before)) + memory
        after = federation.rounds(number)
        arrived = flat(after) - flat(before)
        largest = np.sort(np.argsort(-np.abs(left))[:n_sent])
        reply = plain_arrays(federation.received("train", number)[7])
        assert reply["indices"].tolist() == largest.tolist()
        assert reply["values"] == pytest.approx(left[largest], rel=1e-6)
        assert np.flatnonzero(arrived).tolist() == largest.tolist()
        assert arrived[largest] == pytest.approx(left[largest], abs=1e-7)
        memory = left
        memory[largest] = 0
        kept = from_record(federation.grid.contexts[7].state.array_records[MEMORY])
        assert (flat(kept) == memory).all()
        assert {name: array.shape for name, array in kept.items()} == {
            name: array.shape for name, array in before.items()
        }


def test_top_k_of_everything_is_fedavg(federate):
    everything = federate(strategy="topk", upload_share=1.0).begin().rounds(1, 2)
    plain = federate(strategy="fedavg").begin().rounds(1, 2)
    assert all(everything[name] == pytest.approx(plain[name], abs=1e-5) for name in plain)


@pytest.mark.parametrize(
    "settings",
    [{"strategy": "topk"}, {"strategy": "fedavg"}, {"up_codec": "int4", "reply": "update"}],
)
def test_an_update_that_diverged_is_an_error_of_that_node_and_the_round_goes_on(settings, federate):
    federation = federate(**settings, optimizer="sgd", learning_rate=1e30, local_steps=9).begin()
    after = federation.round()
    assert federation.counts.rejected == 3
    assert all((after[name] == federation.params[name]).all() for name in after)
    reasons = {reply.error.reason for reply in federation.received("train").values()}
    assert len(reasons) == 1
    assert "diverged" in reasons.pop()


# --- closed forms ----------------------------------------------------------------------------


def pooled(federation):
    """All nodes' examples in one place."""
    parts = [federation.examples(node_id) for node_id in federation.prepared]
    return np.concatenate([p.values for p in parts]), np.concatenate([p.labels for p in parts])


@pytest.mark.parametrize(("anchor_bytes", "n_features"), [(0, 8), (1500, 22)])
def test_fed3r_is_the_ridge_regression_of_all_examples_in_one_place(
    anchor_bytes, n_features, make_config, tmp_path
):
    """400 embeddings of 8 numbers, dealt unevenly to 5 nodes.

    1500 bytes for 4 classes: 4 (q (q + 1) / 2 + 4 q) <= 1500 has q = 23, hence 22 features.
    """
    config = make_config(
        strategy="fed3r",
        anchor_bytes=anchor_bytes,
        anchor_scale=2.0,
        partitioner="dirichlet",
    )
    data = embeddings(400)
    strategy = create_strategy(config, tuple("abcd"), 8, Ledger(tmp_path / "ledger.csv"))
    grid = LocalGrid(create_app(SharedData((data,), config, 5)), config, [1, 2, 3, 4, 5])
    strategy.require_nodes(grid)
    head = strategy.begin({}, grid)
    projection = head.get(PROJECTION)
    assert (projection is None) == (anchor_bytes == 0)
    seen = features(data.values, projection)
    assert head[WEIGHT].shape == (4, n_features)
    alone = solve_anchor(gram_statistics(seen, data.labels, CLASSES), 2.0)
    for name in (WEIGHT, BIAS):
        assert head[name] == pytest.approx(alone[name], abs=1e-3)
    accuracy, _ = evaluate(head, data.values, data.labels)
    assert accuracy > 0.8


def embeddings(n: int, seed: int = 0) -> Embeddings:
    """Four classes in 8 dimensions."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, n)
    values = rng.normal(size=(n, 8)).astype(np.float32)
    values[np.arange(n), labels] += 3
    return Embeddings(values, labels, Counts(n, 0, 900 * n, 800 * n, 700 * n))


def test_fedncm_is_the_nearest_class_mean_of_all_examples_in_one_place(federate):
    federation = federate(strategy="fedncm").begin()
    values, labels = pooled(federation)
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    means = np.stack([unit[labels == label].mean(axis=0) for label in range(CLASSES)])
    squares = ((unit[:, None] - means) ** 2).sum(axis=2)
    nearest = predict(federation.params, values).argmax(axis=1)
    assert (nearest == squares.argmin(axis=1)).all()
    assert federation.params[WEIGHT] == pytest.approx(2 * means, abs=1e-5)
    assert set(federation.params) == {WEIGHT, BIAS}


def test_fedpft_learns_from_gaussians_alone_and_depends_on_the_seed_alone(federate):
    first, same, differs = (
        federate(strategy="fedpft", num_rounds=20, seed=seed).begin() for seed in (0, 0, 1)
    )
    assert all((first.params[k] == same.params[k]).all() for k in first.params)
    assert any((first.params[k] != differs.params[k]).any() for k in first.params)
    assert evaluate(first.params, *pooled(first))[0] > 0.6


def counts(change):
    return replace_plain_array("counts", change)


@pytest.mark.parametrize(
    "fault",
    [
        counts(lambda a: -a),
        counts(lambda a: np.array([-1, 5, 5, 5])),
        counts(lambda a: a * 0),
        counts(lambda a: a + 2**50),
        counts(lambda a: np.array([2**63 - 1, 2**63 - 1, 3, 0])),  # which add up to 1
        replace_plain_array("variances", lambda a: a * np.float32("nan")),
        replace_plain_array("means", lambda a: a[:, :-1]),
    ],
)
def test_gaussians_of_no_possible_examples_are_refused(fault, federate):
    federation = federate(strategy="fedpft", num_rounds=1)
    federation.grid.faulty_type, federation.grid.faults = "query.statistics", {NODES[0]: fault}
    with_bad = federation.begin().params
    other = federate(strategy="fedpft", num_rounds=1)
    other.grid.faulty_type, other.grid.faults = "query.statistics", {NODES[0]: silence}
    without = other.begin().params
    assert all((with_bad[name] == without[name]).all() for name in without)


@pytest.mark.parametrize("strategy", CLOSED_FORMS)
def test_a_closed_form_of_too_few_nodes_is_one_sentence(strategy, federate):
    federation = federate(strategy=strategy, min_nodes=2)
    federation.grid.faulty_type = "query.statistics"
    federation.grid.faults = dict.fromkeys(NODES[:2], silence)
    with pytest.raises(InputError, match="min-nodes = 2, but only 1 nodes sent their statistics"):
        federation.begin()


# --- capacities ------------------------------------------------------------------------------


def neurons(federation, number=1):
    sent = federation.sent("train", number)
    return {i: len(federation.slice_to(i, number)["fc1.bias"]) for i in sent}


@pytest.mark.parametrize("groups", [0, 2, 5])
def test_ist_never_deals_a_node_more_than_it_can_train(groups, federate):
    """A quarter of 24 neurons is 6, for nodes 1 and 3 and for who shares a group with them."""
    federation = federate([1, 2, 3, 4], capacities="1,0.25", groups=groups, batch_size=4).begin()
    for number in (1, 2, 3):
        federation.round(number)
        found = neurons(federation, number)
        assert len(found) == 4
        assert all(found[federation.node(i)] <= 6 for i in (1, 3))
        if groups == 0:
            assert sorted(found.values()) == [6, 6, 6, 6]


def test_what_a_weak_node_leaves_the_others_take(federate):
    """Node 1 can train 1/8 of 24 neurons, 3; 0 and 2 get 10 or 11 of the other 21."""
    federation = federate(capacities="1,0.125").begin()
    federation.round()
    found = neurons(federation)
    assert found[federation.node(1)] == 3
    assert sorted(found[federation.node(i)] for i in (0, 2)) == [10, 11]


def test_a_node_s_own_capacity_goes_before_its_level(federate):
    federation = federate(strategy="heterofl", capacities="0.5,0.25")
    federation.grid.contexts[900].node_config["capacity"] = 0.125
    federation.grid.contexts[100].node_config["capacity"] = 1  # a whole number will do
    federation.begin().round()
    assert neurons(federation) == {900: 3, 100: 24, 500: 12}


def test_devices_have_the_first_level_until_they_say_more(federate, image_folder):
    federation = federate(
        [4, 5, 6],
        strategy="heterofl",
        capacities="0.5,0.25",
        node_config={"data-path": str(image_folder)},
    )
    federation.grid.contexts[6].node_config = {"data-path": str(image_folder), "capacity": 0.125}
    federation.begin().round()
    assert neurons(federation) == {4: 12, 5: 12, 6: 3}


@pytest.mark.parametrize("capacity", ["half", 0, -0.5, 1.5, float("nan")])
def test_a_capacity_that_is_not_possible_is_one_sentence_and_costs_its_node_alone(
    capacity, federate, caplog
):
    federation = federate()
    federation.grid.contexts[500].node_config["capacity"] = capacity
    federation.begin()
    assert set(federation.prepared) == {900, 100}
    sentence = f"capacity = {capacity!r} is not possible: give a number in (0, 1]."
    (error,) = (reply.error for reply in federation.grid.received if reply.has_error())
    assert error.reason == sentence
    assert f"Node 500: {sentence}" in caplog.text


@pytest.mark.parametrize("capacity", [0.0, 1.5, -1.0, float("nan"), float("inf")])
def test_a_capacity_that_no_node_could_have_is_refused_by_the_server(capacity, federate):
    federation = federate()
    federation.grid.contexts[500].node_config["capacity"] = 0.5
    federation.grid.faulty_type = "query"

    def claims(reply, asked):
        reply.content.metric_records[protocol.METRICS][protocol.CAPACITY] = capacity
        return reply

    federation.grid.faults = {500: claims}
    federation.begin()
    assert set(federation.prepared) == {900, 100}
