"""Rounds with a beat begin at fixed times, on a clock that only the strategies' waiting moves."""

from functools import partial
from itertools import pairwise

import pytest
from test_silent_nodes import ODD, but_for_one, put_on_clock, run, usual

from fed_ist.traffic.beat import until_beat_s

NODES = [800, 100, 700, 300]
HOUR_S = 3600.0


@pytest.fixture
def federate(federate):
    return partial(federate, NODES, hidden_layers=1, local_steps=1, local_epochs=0, min_nodes=1)


def begins(federation, takes, monkeypatch) -> list[float]:
    """The times since 1970 at which the first message of each round is sent."""
    clock = put_on_clock(federation, takes, monkeypatch)
    found: dict[str, float] = {}
    push = federation.grid.push_messages

    def noted(messages):
        messages = list(messages)
        for message in messages:
            if message.metadata.message_type == "train":
                found.setdefault(message.metadata.group_id, clock.time())
        return push(messages)

    monkeypatch.setattr(federation.grid, "push_messages", noted)
    run(federation, clock)
    return list(found.values())


def assert_at_beats(found) -> None:
    for moment in found:
        late_s = HOUR_S - until_beat_s(moment, HOUR_S)
        assert late_s < 60 or late_s == HOUR_S  # what was done before the message was sent


def test_each_round_begins_at_the_next_full_hour(federate, monkeypatch):
    found = begins(federate(num_rounds=3, round_every_s=HOUR_S), lambda _, m: usual(m), monkeypatch)
    assert_at_beats(found)
    assert [round((b - a) / HOUR_S) for a, b in pairwise(found)] == [1, 1]


def test_a_round_that_takes_longer_makes_the_next_begin_a_beat_later(federate, monkeypatch):
    def slow_in_the_first(message):
        is_first = message.metadata.group_id == "1"
        return 1.5 * HOUR_S if message.metadata.message_type == "train" and is_first else None

    federation = federate(
        num_rounds=3, round_every_s=HOUR_S, round_timeout_s=2 * HOUR_S, enough_share=1.0
    )
    found = begins(federation, but_for_one(slow_in_the_first), monkeypatch)
    assert ODD in NODES
    assert_at_beats(found)
    assert [round((b - a) / HOUR_S) for a, b in pairwise(found)] == [2, 1]
