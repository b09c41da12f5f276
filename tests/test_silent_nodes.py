"""Nodes that do not answer, or late: they do not set the pace, and nobody slow is left out."""

import math
from functools import partial

import pytest
from clocked import clocked

NODES = [800, 100, 700, 300, 600, 200, 500, 400]  # with the partitions 0 to 7
ROUND_S, PREPARE_S = 5.0, 15.0


@pytest.fixture
def federate(federate, embedded):
    return partial(
        federate, NODES, cache_dir=embedded, hidden_layers=1, num_rounds=10, anchor="none"
    )


def usual(message):
    return PREPARE_S if message.metadata.message_type == "query" else ROUND_S


def seconds(federation, takes, monkeypatch):
    """Those of a run on a clock that only its waiting moves."""
    clock = clocked(federation, takes, monkeypatch)
    federation.prepare()
    federation.strategy.run(federation.grid, lambda number, params: None)
    return clock.now_s


def asked(federation, node_id):
    """The rounds in which a node was asked to train."""
    return [
        int(message.metadata.group_id)
        for message in federation.grid.sent
        if (message.metadata.message_type, message.metadata.dst_node_id) == ("train", node_id)
    ]


@pytest.mark.parametrize("answers", [0, 1, 4, 12])
def test_a_node_that_falls_silent_costs_half_the_time_at_most(federate, answers, monkeypatch):
    """It answers so many questions, the preparation the first of them."""
    honest = seconds(federate(), lambda node_id, message: usual(message), monkeypatch)
    federation, left = federate(), answers

    def takes(node_id, message):
        nonlocal left
        if node_id != 300:
            return usual(message)
        left -= 1
        return usual(message) if left >= 0 else math.inf

    took = seconds(federation, takes, monkeypatch)
    
    assert took <= 1.5 * honest
