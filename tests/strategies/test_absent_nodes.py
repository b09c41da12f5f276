"""Nodes that are away when they are asked, and what happens when they return."""

import pytest
from faulty_grid import an_error, away, silence
from flwr.app import RecordDict
from flwr.supercore.task_identity import TaskIdentity

from fed_ist.traffic import protocol

NODE = 100  # of federation.NODES, with partition 1


@pytest.fixture(autouse=True)
def task_identity(monkeypatch):
    """Flower sets these in the process of a ServerApp; messages cannot be made without."""
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


def counts(federation):
    found = federation.counts
    return found.asked, found.answered, found.rejected


def restart(federation, node_id=NODE):
    """The node's SuperNode: what it kept in memory is gone."""
    federation.grid.contexts[node_id].state = RecordDict()


@pytest.mark.parametrize(
    "fault, said", [(away, "Node 1 is away"), (silence, "Node 1 has not answered within")]
)
def test_the_round_goes_on_without_a_node_that_is_not_heard_of(federate, caplog, fault, said):
    federation = federate(hidden_layers=1).prepare()
    federation.grid.faults[NODE] = fault
    before = federation.params
    after = federation.round(1)
    assert counts(federation) == (3, 2, 0)
    assert said in caplog.text
    rows = federation.errands[NODE].subnet.neurons["h1"]
    assert (after["fc1.weight"][rows] == before["fc1.weight"][rows]).all()
    assert (after["fc1.weight"] != before["fc1.weight"]).any()
    lines = [line for line in federation.lines() if line["kind"] == "train"]
    assert [line["node"] for line in lines if line["direction"] == "up"] == ["0", "2"]


def test_a_node_that_seems_to_be_away_while_it_works_is_waited_for(federate):
    federation = federate().prepare()
    federation.grid.absent[NODE] = 1  # in the first look for replies; the others take a while
    federation.round(1)
    assert counts(federation) == (3, 3, 0)


def test_a_node_that_stays_away_is_not_waited_for_until_the_time_is_up(federate, caplog):
    federation = federate().prepare()
    federation.grid.absent[NODE] = 10**6
    federation.round(1)
    assert counts(federation) == (3, 2, 0)
    assert "Node 1 is away" in caplog.text


def test_a_run_that_needs_a_node_that_is_away_waits_until_it_returns(federate):
    federation = federate(min_nodes=3)
    times_away = 2

    def at_first(reply, asked):
        nonlocal times_away
        times_away -= 1
        return away(reply, asked) if times_away >= 0 else reply

    federation.grid.faulty_type, federation.grid.faults[NODE] = "query", at_first
    federation.prepare()
    assert len(federation.prepared) == 3


def test_a_node_that_was_away_when_asked_to_prepare_is_asked_again(federate, caplog):
    federation = federate()
    federation.grid.faulty_type, federation.grid.faults[NODE] = "query", away
    federation.prepare()
    assert len(federation.prepared) == 2
    federation.grid.faults.clear()
    federation.round(1)
    assert counts(federation) == (3, 3, 0)


@pytest.mark.parametrize("fault", [an_error, silence])
def test_a_node_that_could_not_prepare_is_asked_again_once_it_has_been_away(federate, fault):
    federation = federate()
    federation.grid.faulty_type, federation.grid.faults[NODE] = "query", fault
    federation.prepare()
    federation.grid.faults.clear()
    federation.round(1)
    assert counts(federation) == (2, 2, 0)
    context = federation.grid.contexts.pop(NODE)
    federation.round(2)
    federation.grid.contexts[NODE] = context
    federation.round(3)
    assert counts(federation) == (3, 3, 0)


def test_a_node_that_returns_without_its_memory_takes_part_at_once(federate, tmp_path):
    federation = federate().prepare()
    entries = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.npy")}
    context = federation.grid.contexts.pop(NODE)
    federation.round(1)
    assert counts(federation) == (2, 2, 0)
    federation.grid.contexts[NODE] = context
    restart(federation)
    federation.round(2)
    assert counts(federation) == (3, 3, 0)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("*.npy")} == entries


def test_a_node_that_goes_away_in_a_round_and_returns_before_the_next_takes_part_in_that(federate):
    federation = federate().prepare()
    federation.grid.faults[NODE] = away
    federation.round(1)
    federation.grid.faults.clear()
    restart(federation)
    federation.round(2)
    assert counts(federation) == (3, 3, 0)


def test_a_node_that_restarted_unnoticed_takes_part_in_the_round_after_its_error(federate):
    federation = federate().prepare()
    restart(federation)
    federation.round(1)
    assert counts(federation) == (3, 3, 1)
    federation.round(2)
    assert counts(federation) == (3, 3, 0)


def test_only_what_a_returned_node_has_lost_is_sent_again(federate):
    federation = federate(anchor="ridge", hidden_layers=1).begin()
    for number, loses in ((1, False), (3, False), (5, True)):
        federation.rounds(number)
        context = federation.grid.contexts.pop(NODE)
        federation.rounds(number + 1)
        federation.grid.contexts[NODE] = context
        if loses:
            restart(federation)
    federation.rounds(7)
    assert counts(federation) == (3, 3, 0)
    for number, parts in ((1, True), (3, False), (5, False), (7, True)):
        sent = federation.sent("train", number)[NODE].content.config_records[protocol.TASK]
        assert (protocol.INPUTS in sent, protocol.ANCHOR in sent) == (parts, parts), number


@pytest.mark.parametrize("versions", [7, [1], [1, 1, 1]])
def test_a_node_that_says_nonsense_of_what_it_holds_is_passed_over(federate, versions, caplog):
    def fault(reply, asked):
        reply.content.metric_records[protocol.METRICS][protocol.VERSIONS] = versions
        return reply

    federation = federate()
    federation.grid.faulty_type, federation.grid.faults[NODE] = "query", fault
    federation.prepare()
    assert NODE not in federation.prepared
    assert "its 'versions' are" in caplog.text
