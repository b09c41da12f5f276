"""The strategies and the ClientApp, with real Flower messages between them."""

import shutil
from copy import copy
from pathlib import Path

import numpy as np
import pytest
from faulty_grid import an_error, replace_array, replace_bytes, replace_metric, silence
from federation import NODES
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.task_identity import TaskIdentity

from clients.data import EMBEDDINGS, STATE
from clients.node import Node, device
from fed_ist.classifier.slices import slice_bytes
from fed_ist.config.methods import STRATEGIES as STRATEGY_NAMES
from fed_ist.encoder.embeddings import load_cached
from fed_ist.errors import InputError
from fed_ist.rng import generator
from fed_ist.traffic import protocol
from fed_ist.traffic.codecs import HEADER_BYTES, shapes_of
from fed_ist.training.local import LocalTraining, train
from fed_ist.training.optimizers import OPTIMIZERS
from fed_ist.training.optimizers import OPTIMIZERS as OPTIMIZER_NAMES
from strategies import METHOD_CLASSES
from strategies.core.wire import from_record, message_bytes


@pytest.fixture(autouse=True)
def task_identity(monkeypatch):
    """Flower sets these in the process of a ServerApp; messages cannot be made without."""
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


def test_names_in_the_config_are_those_that_exist():
    assert set(STRATEGY_NAMES) == set(METHOD_CLASSES)
    assert set(OPTIMIZER_NAMES) == set(OPTIMIZERS)


def test_each_node_gets_its_own_slice_and_no_index_travels(federate):
    federation = federate().prepare()
    federation.round()
    sent = [m for m in federation.grid.sent if m.metadata.message_type == "train"]
    slices = [federation.slice_to(m.metadata.dst_node_id) for m in sent]
    assert [s["fc2.weight"].shape for s in slices] == [(8, 8)] * 3
    rows = np.concatenate([s["fc1.weight"] for s in slices])
    assert sorted(map(tuple, rows)) == sorted(map(tuple, federation.params["fc1.weight"]))
    for message in sent:
        assert set(message.content) == {protocol.TASK}
        assert set(message.content.config_records[protocol.TASK]) == {
            protocol.ROUND,
            protocol.SCALE,
            protocol.SLICE,
            protocol.WIDTHS,
        }


def test_nothing_but_the_slice_and_scalars_leaves_a_node(federate):
    federation = federate().prepare()
    federation.round()
    queries = [m for m in federation.grid.received if m.metadata.message_type == "query"]
    trains = [m for m in federation.grid.received if m.metadata.message_type == "train"]
    assert len(queries) == len(trains) == 3
    for reply in queries:
        assert set(reply.content) == {protocol.METRICS}
        values = reply.content.metric_records[protocol.METRICS].values()
        assert all(isinstance(value, int | float) for value in values)
        assert len(values) <= 7
    for reply in trains:
        assert set(reply.content) == {protocol.REPLY}
        assert set(reply.content.config_records[protocol.REPLY]) == {
            protocol.SLICE,
            protocol.NUM_EXAMPLES,
            protocol.LOSS,
            protocol.SECONDS,
            protocol.TRAINED,
        }
        node_id = reply.metadata.src_node_id
        back, sent = federation.slice_from(node_id), federation.slice_to(node_id)
        assert shapes_of(back) == shapes_of(sent)


def test_every_neuron_is_trained_in_a_round_and_the_groups_change(federate):
    federation = federate().prepare()
    first = federation.round(1)
    assert (first["fc1.bias"] != federation.params["fc1.bias"]).all()
    federation.round(2)
    old, new = (federation.slice_to(NODES[0], number)["fc1.bias"] for number in (1, 2))
    assert set(old) != set(new)


def test_a_rotating_group_goes_on_to_the_next_node_as_it_came_back(federate):
    """Node i has in round 2 what node i + 1 had in round 1, with the weights that came back."""
    federation = federate(dealing="rotating", hidden_layers=1).prepare()
    federation.params = federation.round(1)
    had, trained = dict(federation.errands), federation.params
    federation.configure(2)
    ids = sorted(had)
    for node_id, before in zip(ids, ids[1:] + ids[:1], strict=True):
        now, then = federation.errands[node_id], had[before].subnet.neurons["h1"]
        assert (now.subnet.neurons["h1"] == then).all()
        assert (now.sent["fc1.bias"] == trained["fc1.bias"][then]).all()


@pytest.mark.parametrize("strategy", ["ist", "fedavg"])
def test_one_group_and_one_client_is_centralised_training_bit_for_bit(strategy, federate):
    federation = federate([7], strategy=strategy, min_nodes=1, local_epochs=2).prepare()
    found = next(p for p in federation.prepared)
    params = federation.params
    for number in (1, 2):
        federation.params = federation.round(number)
    state = federation.grid.contexts[found].state.config_records[STATE]
    data = load_cached(Path(str(state[EMBEDDINGS])))
    how = LocalTraining(2, 0, 8, "adam", 1e-3)
    for number in (1, 2):
        params, _ = train(
            params,
            lambda _: (data.values, data.labels),
            how,
            1.0,
            generator(0, "train", number, 0),
        )
    assert all((params[name] == federation.params[name]).all() for name in params)


def test_the_order_of_node_ids_and_of_replies_does_not_matter(federate):
    def after_two_rounds(node_ids, order):
        federation = federate(node_ids).prepare()
        for number in (1, 2):
            messages = federation.configure(number)
            replies = federation.grid.send_and_receive(messages[::order])
            merged, _ = federation.strategy.aggregate_train(number, replies)
            federation.params = from_record(merged)
        return federation.params

    first, second = after_two_rounds([900, 100, 500], 1), after_two_rounds([3, 2, 1], -1)
    assert all((first[name] == second[name]).all() for name in first)


def drop_reply(reply, asked):
    del reply.content[protocol.REPLY]
    return reply


def drop_slice(reply, asked):
    del reply.content.config_records[protocol.REPLY][protocol.SLICE]
    return reply


BAD_REPLIES = {
    "an error": an_error,
    "no reply": drop_reply,
    "no slice": drop_slice,
    "a text for a slice": replace_bytes(protocol.SLICE, lambda data: "text"),
    "a damaged slice": replace_bytes(
        protocol.SLICE, lambda data: data[:-1] + bytes([~data[-1] & 255])
    ),
    "a wrong shape": replace_array("fc1.weight", lambda a: a[:-1]),
    "a wrong dtype": replace_array("fc1.weight", lambda a: a.astype(np.float64)),
    "NaN": replace_array("fc3.bias", lambda a: a * np.float32("nan")),
    "Inf": replace_array("fc2.weight", lambda a: a + np.float32("inf")),
    "more bytes than asked for": replace_bytes(
        protocol.SLICE, lambda data: data + bytes(1_000_000)
    ),
    "no examples": replace_metric(protocol.NUM_EXAMPLES, 0),
    "a negative count": replace_metric(protocol.NUM_EXAMPLES, -5),
    "a NaN loss": replace_metric(protocol.LOSS, float("nan")),
}


@pytest.mark.parametrize("kind", BAD_REPLIES)
def test_a_bad_reply_is_refused_counted_and_changes_nothing(kind, federate):
    """The round ends as if the bad node had stayed silent."""
    federation, bad = federate().prepare(), NODES[1]
    federation.grid.faults = {bad: BAD_REPLIES[kind]}
    with_bad = federation.round()
    counts = federation.counts
    assert (counts.asked, counts.answered, counts.rejected) == (3, 3, 1)
    federation.grid.faults = {bad: silence}
    without = federation.round()
    counts = federation.counts
    assert (counts.asked, counts.answered, counts.rejected) == (3, 2, 0)
    assert all((with_bad[name] == without[name]).all() for name in without)
    assert all(np.isfinite(array).all() for array in with_bad.values())


def test_a_reply_from_a_node_that_was_not_asked_is_refused(federate):
    federation = federate().prepare()
    messages = federation.configure(1)
    replies = list(federation.grid.send_and_receive(messages))
    stranger = Message(
        RecordDict(
            {
                protocol.REPLY: ConfigRecord({protocol.NUM_EXAMPLES: 5, protocol.LOSS: 1.0}),
            }
        ),
        reply_to=Message(RecordDict(), dst_node_id=4711, message_type="train"),
    )
    federation.strategy.aggregate_train(1, [*replies, replies[0], stranger])
    assert federation.counts.rejected == 2


def test_only_silence_leaves_the_classifier_as_it_was(federate):
    federation = federate().prepare()
    federation.grid.faults = dict.fromkeys(NODES, silence)
    after = federation.round()
    assert all((after[name] == federation.params[name]).all() for name in after)
    assert (federation.counts.asked, federation.counts.answered) == (
        3,
        0,
    )


@pytest.mark.parametrize("n_groups", [1, 2, 3, 6])
def test_groups_may_be_fewer_or_more_than_nodes(n_groups, federate):
    federation = federate(groups=n_groups, seed=1).prepare()
    after = federation.round()
    touched = int((after["fc1.bias"] != federation.params["fc1.bias"]).sum())
    assert touched == 24 // n_groups * min(3, n_groups)


def test_fraction_nodes_samples_and_other_rounds_sample_others(federate):
    federation = federate([1, 2, 3, 4, 5, 6], fraction_nodes=0.5).prepare()
    asked = []
    for number in range(1, 9):
        messages = federation.configure(number)
        asked.append(frozenset(m.metadata.dst_node_id for m in messages))
    assert {len(nodes) for nodes in asked} == {3}
    assert len(set(asked)) > 3


def test_a_message_weighs_the_same_whatever_ids_flower_draws(federate, monkeypatch):
    weights = set()
    for run_id, node_id in ((1, 2), (2**63 + 5, 2**62)):
        monkeypatch.setattr(TaskIdentity, "_run_id", run_id)
        message = Message(RecordDict(), dst_node_id=node_id, message_type="train")
        weights.add(message_bytes(message))
        largest = sum(len(v.deflate()) for v in get_all_nested_objects(message).values())
        assert 0 <= message_bytes(message) - largest < 60
    assert len(weights) == 1


def test_the_ledger_counts_every_message_and_payload_follows_the_formula(federate):
    federation = federate().prepare()
    federation.round()
    federation.ledger.close()
    lines = federation.lines()
    assert [line["kind"] for line in lines] == ["prepare"] * 6 + ["train"] * 6
    assert {line["node"] for line in lines} == {"0", "1", "2"}
    trains = [line for line in lines if line["kind"] == "train"]
    formula = slice_bytes(192, 24, 4, 3)
    assert {int(line["payload_bytes"]) for line in trains} == {int(formula) + HEADER_BYTES}
    for line, message in zip(trains[:3], federation.grid.sent[3:], strict=True):
        assert int(line["message_bytes"]) == message_bytes(message) > int(line["payload_bytes"])
    up = sum(int(line["message_bytes"]) for line in lines if line["direction"] == "up")
    assert up == federation.ledger.message_bytes["up"]


def test_a_node_with_its_own_folder_agrees_on_classes_by_name(federate, image_folder):
    classes = ("forest", "beach", "glacier")
    federation = federate(
        [5], classes=classes, node_config={"data-path": str(image_folder)}, min_nodes=1
    ).prepare()
    (node,) = federation.prepared.values()
    assert node.counts[protocol.NUM_EXAMPLES] == 24
    assert node.counts[protocol.UNKNOWN_CLASSES] == 24
    assert node.name == "5"


def test_a_node_of_another_version_than_the_server_says_so(federate):
    federation = federate()
    asked = {protocol.PROTOCOL: protocol.VERSION - 1}
    messages = federation.strategy.post.questions("query", asked, NODES, 0, 60.0)
    replies = federation.grid.send_and_receive(messages)
    assert all(reply.has_error() for reply in replies)
    assert "install the same fed-ist on both" in replies[0].error.reason


def test_too_few_nodes_is_one_sentence(federate):
    federation = federate([1, 2], min_nodes=3, round_timeout_s=0.1)
    with pytest.raises(InputError, match="min-nodes = 3, but only 2 nodes are connected"):
        federation.prepare()


def test_nodes_without_images_are_passed_over_with_the_reason(federate, tmp_path, caplog):
    federation = federate([1, 2], node_config={"data-path": str(tmp_path / "none")})
    with pytest.raises(InputError, match="only 0 nodes could prepare"):
        federation.prepare()
    assert "is not a folder on this node" in caplog.text


def test_a_random_mask_shows_the_images_anew_in_every_pass(federate, tmp_path):
    federation = federate([1], mask="random", min_nodes=1, local_epochs=2).prepare()
    caches = tmp_path / "cache"
    federation.round(1)
    first = {path.parent for path in caches.rglob("embeddings.npy")}
    federation.round(2)
    second = {path.parent for path in caches.rglob("embeddings.npy")} - first
    assert (len(first), len(second)) == (2, 2)
    values = [np.load(path / "embeddings.npy") for path in first | second]
    assert all((a != b).any() for i, a in enumerate(values) for b in values[:i])


def test_a_node_that_lost_its_embeddings_is_prepared_again(federate, tmp_path):
    federation = federate().prepare()
    shutil.rmtree(tmp_path / "cache")
    federation.round(1)
    assert federation.counts.rejected == 3
    federation.round(2)
    assert federation.counts.rejected == 0
    assert federation.counts.answered == 3


def test_a_device_is_called_by_its_name_and_draws_the_same_whatever_flower_calls_it(
    federate, image_folder
):
    slices = []
    for node_id in (12345, 999):
        config = {"data-path": str(image_folder), "name": "north"}
        federation = federate([node_id], node_config=config, min_nodes=1).prepare()
        assert [line["node"] for line in federation.lines()] == ["north", "north"]
        federation.round(1)
        slices.append(federation.slice_from(node_id))
    for name, array in slices[0].items():
        assert array.tobytes() == slices[1][name].tobytes()


def test_a_device_whose_name_is_a_number_draws_what_that_partition_draws():
    assert device(4711, "2", "/images").number == Node(2, 4, "").number


def test_a_device_that_returns_under_another_id_takes_its_place_once_the_old_one_is_gone(
    federate, image_folder, caplog
):
    federation = federate([1], min_nodes=1, anchor="ridge", hidden_layers=1)
    context = federation.grid.contexts[1]
    context.node_config = {"data-path": str(image_folder), "name": "north"}
    federation.begin().round(1)
    federation.grid.contexts[2] = returned = copy(context)
    returned.node_id, returned.state = 2, RecordDict()
    federation.round(2)
    assert "has the name 'north'" in caplog.text
    assert list(federation.prepared) == [1]
    del federation.grid.contexts[1]
    federation.round(3)
    assert list(federation.prepared) == [2]
    assert set(federation.received("train", 3)) == {2}
    asked = [line for line in federation.lines() if line["kind"] == "statistics"]
    assert len(asked) == 2  # down and up: its images are counted once


@pytest.mark.parametrize("name", ["north east", "a" * 41, "|", "ä"])
def test_a_name_that_would_break_a_table_is_refused(federate, image_folder, name, caplog):
    config = {"data-path": str(image_folder), "name": name}
    with pytest.raises(InputError, match="only 0 nodes could prepare"):
        federate([1], node_config=config, min_nodes=1).prepare()
    assert "is not possible: give up to 40 letters" in caplog.text
