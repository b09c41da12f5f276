"""Nodes that do not answer, or late: they do not set the pace, and nobody slow is left out.

Time passes on a clock that only the strategies' waiting moves.
"""

import math
from collections import Counter
from functools import partial

import numpy as np
import pytest
from clocked import clocked
from flwr.app import RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.superlink.grid import InMemoryGrid

from clients.app import create_app
from fed_ist.encoder.embeddings import Counts, Embeddings
from fed_ist.errors import InputError
from sims.experiments.shared_embeddings import SharedData
from strategies.core.exchange import Progress

NODES = [800, 100, 700, 300, 600, 200, 500, 400]  # with the partitions 0 to 7
ODD = 300  # the node that is unlike the others; its partition is 3
ROUND_S, PREPARE_S = 5.0, 15.0


@pytest.fixture
def federate(federate):
    return partial(federate, NODES, hidden_layers=1, local_steps=1, local_epochs=0)


def put_on_clock(federation, takes, monkeypatch):
    """Its nodes with embeddings that need no encoder; returns the clock."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(80, 192)).astype(np.float32)
    labels = np.arange(80) % 4
    data = Embeddings(values, labels, Counts(80, 0, 0, 0, 0))
    clock = clocked(federation, takes, monkeypatch)
    federation.grid.app = create_app(SharedData((data,), federation.config, len(NODES)))
    return clock


def run(federation, clock):
    """All rounds; the times at which they end."""
    ends = []
    federation.prepare()
    federation.strategy.run(federation.grid, lambda number, params: ends.append(clock.now_s))
    return ends


def usual(message):
    return PREPARE_S if message.metadata.message_type == "query" else ROUND_S


def but_for_one(seconds):
    """All nodes take the usual time, but ODD as many seconds as `seconds` says of a message, None
    for the usual.
    """

    def takes(node_id, message):
        found = seconds(message) if node_id == ODD else None
        return usual(message) if found is None else found

    return takes


def in_training(seconds):
    return but_for_one(
        lambda message: seconds if message.metadata.message_type == "train" else None
    )


def asked(federation, node_id=ODD, kind="train"):
    """The rounds in which a node was asked something."""
    return [
        int(message.metadata.group_id)
        for message in federation.grid.sent
        if (message.metadata.message_type, message.metadata.dst_node_id) == (kind, node_id)
    ]


def answers(federation):
    """The nodes that were heard of in training, and how often."""
    lines = [line for line in federation.lines() if line["direction"] == "up"]
    return Counter(line["node"] for line in lines if line["kind"] == "train")


@pytest.mark.parametrize("num_rounds", [3, 12])
@pytest.mark.parametrize("n_answers", [0, 1, 3])
def test_a_node_that_falls_silent_costs_half_the_time_at_most(
    n_answers, num_rounds, federate, monkeypatch
):
    """It answers so many questions, of which the first is to prepare."""
    federation, left = federate(num_rounds=num_rounds), n_answers

    def seconds(message):
        nonlocal left
        left -= 1
        return None if left >= 0 else math.inf

    clock = put_on_clock(federation, but_for_one(seconds), monkeypatch)
    run(federation, clock)
    assert clock.now_s <= 1.5 * (PREPARE_S + num_rounds * ROUND_S)
    assert sorted(answers(federation)) == sorted(
        set("01234567") - ({"3"} if n_answers < 2 else set())
    )


def test_a_silent_node_is_asked_less_and_less_often(federate, monkeypatch):
    federation = federate(num_rounds=20)
    clock = put_on_clock(federation, in_training(math.inf), monkeypatch)
    run(federation, clock)
    assert asked(federation) == [1, 4, 9, 18]
    assert asked(federation, NODES[0]) == list(range(1, 21))


def test_a_node_that_answers_too_late_is_asked_again_at_once_and_its_bytes_count(
    federate, monkeypatch, caplog
):
    federation = federate(num_rounds=6)
    late = iter([19.5])  # a second longer than it is waited for
    takes = but_for_one(
        lambda message: next(late, None) if message.metadata.message_type == "train" else None
    )
    run(federation, put_on_clock(federation, takes, monkeypatch))
    assert "Node 3 has answered too late" in caplog.text
    assert asked(federation) == [1, 3, 4, 5, 6]  # by its silence it would rest in round 3
    assert answers(federation)["3"] == 5


def test_a_node_at_work_on_an_earlier_message_gets_no_other(federate, monkeypatch):
    """It would have it before it only when nobody waits for it any more."""
    federation = federate(num_rounds=20)
    late = iter([45.0, 45.0])
    takes = but_for_one(
        lambda message: next(late, None) if message.metadata.message_type == "train" else None
    )
    ends = run(federation, put_on_clock(federation, takes, monkeypatch))
    first, second, third, *_ = asked(federation)
    assert (first, second) == (1, 4)  # again while it is at work: it was not heard of
    assert ends[third - 2] < PREPARE_S + 2 * 45 <= ends[third - 1]
    assert answers(federation)["3"] == len(asked(federation))


@pytest.mark.parametrize("times", [2, 3])
def test_a_slow_node_takes_part_in_every_round(times, federate, monkeypatch):
    federation = federate(num_rounds=6)
    clock = put_on_clock(federation, in_training(times * ROUND_S), monkeypatch)
    run(federation, clock)
    assert set(answers(federation).values()) == {6}
    assert len(answers(federation)) == 8


def test_a_node_much_slower_than_the_others_comes_to_take_part(federate, monkeypatch):
    federation = federate(num_rounds=40)
    clock = put_on_clock(federation, in_training(6 * ROUND_S), monkeypatch)
    run(federation, clock)
    assert asked(federation)[-20:] == list(range(21, 41))
    assert answers(federation)["3"] == len(asked(federation))


def test_a_node_that_prepares_for_twenty_minutes_joins_when_it_is_ready(
    federate, monkeypatch, caplog
):
    federation = federate(num_rounds=16)
    takes = {"query": 1200.0, "train": 100.0}

    def seconds(node_id, message):
        kind = message.metadata.message_type
        return 60.0 if (kind, node_id != ODD) == ("query", True) else takes[kind]

    clock = put_on_clock(federation, seconds, monkeypatch)
    ends = run(federation, clock)
    assert ends[0] < 120
    assert "Node 300 is not prepared after" in caplog.text
    assert len(asked(federation, kind="query")) == 1
    first = next(i for i, end in enumerate(ends) if end >= 1200) + 1
    assert asked(federation) == list(range(first, 17))


def test_a_node_that_never_prepares_is_asked_again_now_and_then(federate, monkeypatch):
    federation = federate(num_rounds=20, prepare_timeout_s=30.0)
    clock = put_on_clock(federation, but_for_one(lambda message: 1e6), monkeypatch)
    run(federation, clock)
    rounds = asked(federation, kind="query")
    assert 2 <= len(rounds) <= 4
    assert clock.now_s <= 1.5 * (PREPARE_S + 20 * ROUND_S)


def test_too_few_prepared_nodes_are_waited_for_until_the_time_is_up(federate, monkeypatch):
    federation = federate(min_nodes=8)
    clock = put_on_clock(federation, but_for_one(lambda message: math.inf), monkeypatch)
    with pytest.raises(InputError, match="min-nodes = 8, but only 7 nodes could prepare"):
        federation.prepare()
    assert clock.now_s == pytest.approx(federation.config.prepare_timeout_s, rel=0.01)


def test_a_round_waits_for_as_many_nodes_as_the_config_says(federate, monkeypatch):
    for changes in ({"enough_share": 1.0}, {"min_nodes": 8}):
        federation = federate(num_rounds=1, **changes)
        clock = put_on_clock(federation, in_training(500.0), monkeypatch)
        begun, ended = run(federation, clock)
        assert ended - begun == pytest.approx(500, rel=0.01)
        assert len(answers(federation)) == 8


def test_a_node_may_use_the_whole_deadline_of_a_round(federate, monkeypatch):
    """Its slice is as large as it can train in that time."""
    federation = federate(num_rounds=3, round_deadline_s=60.0)
    clock = put_on_clock(federation, in_training(59.0), monkeypatch)
    run(federation, clock)
    assert set(answers(federation).values()) == {3}


def test_most_nodes_being_silent_costs_one_timeout(federate, monkeypatch):
    federation = federate(num_rounds=12)

    def takes(node_id, message):
        silent = node_id not in NODES[:3] and message.metadata.message_type == "train"
        return math.inf if silent else usual(message)

    clock = put_on_clock(federation, takes, monkeypatch)
    run(federation, clock)
    assert clock.now_s <= federation.config.round_timeout_s + 2 * (PREPARE_S + 12 * ROUND_S)
    assert answers(federation) == {"0": 12, "1": 12, "2": 12}


def test_statistics_are_not_waited_for_either_and_are_added_later(federate, monkeypatch, caplog):
    federation = federate(num_rounds=8, anchor="ridge")
    late = iter([30.0])
    kind = "query.statistics"
    takes = but_for_one(
        lambda message: next(late, None) if message.metadata.message_type == kind else None
    )
    clock = put_on_clock(federation, takes, monkeypatch)
    ends = run(federation, clock)
    assert ends[0] <= 1.5 * (PREPARE_S + ROUND_S)
    assert "Statistics of 7 of 8 nodes added" in caplog.text
    assert "Statistics of 1 of 1 nodes added" in caplog.text
    assert asked(federation)[-1] == 8


def test_a_closed_form_goes_on_with_those_that_have_answered(federate, monkeypatch):
    federation = federate(strategy="fed3r")
    takes = but_for_one(lambda message: None if usual(message) == PREPARE_S else math.inf)
    clock = put_on_clock(federation, takes, monkeypatch)
    run(federation, clock)
    assert clock.now_s <= 1.5 * (PREPARE_S + ROUND_S)
    lines = [line["node"] for line in federation.lines() if line["kind"] == "statistics"]
    assert (lines.count("3"), lines.count("0")) == (1, 2)  # down; down and up


def test_who_rests_changes_neither_the_order_nor_the_choice_of_the_others(federate, monkeypatch):
    found = []
    for rests in (False, True):
        federation = federate(strategy="fedavg", fraction_nodes=0.5)
        put_on_clock(federation, but_for_one(usual), monkeypatch)
        federation.prepare()
        if rests:
            federation.strategy.post.waiting.rests.note_silent("3", 3)
        rounds = [federation.configure(number) for number in range(1, 6)]
        found.append([[m.metadata.dst_node_id for m in messages] for messages in rounds])
    assert any(ODD in node_ids for node_ids in found[0])
    for before, after in zip(*found, strict=True):
        kept = [node_id for node_id in before if node_id != ODD]
        assert len(after) == 4
        assert ODD not in after
        assert after[: len(kept)] == kept


def test_all_are_asked_where_too_few_would_be_left(federate, monkeypatch):
    federation = federate(min_nodes=5)
    put_on_clock(federation, but_for_one(usual), monkeypatch)
    federation.prepare()
    for name in "0123":
        federation.strategy.post.waiting.rests.note_silent(name, 0)
    assert len(federation.configure(1)) == 8


def test_a_resumed_run_lets_the_same_nodes_rest(federate, monkeypatch):
    federation, resumed = federate(), federate()
    put_on_clock(resumed, but_for_one(usual), monkeypatch)
    for server_round in (1, 4):
        federation.strategy.post.waiting.rests.note_silent("3", server_round)
    resumed.strategy.restore(federation.strategy.save())
    resumed.prepare()
    resumed.rounds(5, 9)
    assert [asked(resumed, ODD), asked(resumed, NODES[0])] == [[9], [5, 9]]


def test_a_simulation_waits_for_all_its_nodes(federate):
    """They take turns on this machine's cores."""
    post = federate().strategy.post
    progress = Progress(dict.fromkeys(NODES[:7], 0.1), NODES[7:], 0)
    share = post.awaited_share(InMemoryGrid.__new__(InMemoryGrid))
    assert post.waiting.count_lacking(progress, 0, share) == 1


def test_a_node_that_restarts_unnoticed_is_prepared_again_at_once(federate, monkeypatch):
    """The SuperLink knows when it came in, and it was never away for as long as it is missed."""
    federation = federate(num_rounds=3)
    clock = put_on_clock(federation, but_for_one(usual), monkeypatch)
    federation.grid.known[ODD] = NodeInfo(node_id=ODD, last_activated_at="2026-11-30T08:00:00")
    federation.prepare()
    federation.rounds(1)
    federation.grid.known[ODD] = NodeInfo(node_id=ODD, last_activated_at="2026-11-30T08:10:00")
    federation.grid.contexts[ODD].state = RecordDict()
    federation.rounds(2)
    assert asked(federation, kind="query") == [0, 2]
    assert asked(federation) == [1, 2]
    counts = federation.counts
    assert (counts.asked, counts.answered, counts.rejected) == (8, 8, 0)
    assert clock.now_s < 2.2 * (PREPARE_S + ROUND_S)
