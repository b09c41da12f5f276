"""What messages cost on a link, against sums made by hand."""

from importlib.metadata import version

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from fed_ist.traffic.packets import (
    FLOWER,
    LinkBytes,
    bytes_of_message,
    bytes_of_start,
    bytes_of_waiting,
    round_trips,
)
from strategies.core.wire import weigh

SIZES = st.integers(400, 20_000_000)
OBJECTS = st.integers(1, 40)
DIRECTIONS = st.sampled_from(["down", "up"])


def test_a_reply_of_one_object_costs_what_its_packets_add_up_to():
    # PushMessages lists the object in 294 bytes and is told in 178 that it is wanted.
    listed_up = (820 + 23 + 3) + 52 + 294 + 52 + 52  # headers, body, an acknowledgement
    listed_down = 52 + (127 + 3) + 52 + 178 + 52
    # PushObject: 129 bytes beside the 1000, an answer of 2.
    pushed_up = (820 + 21 + 4) + 52 + 1129 + 52 + 52
    pushed_down = 52 + (127 + 1) + 52 + 2 + 52
    # One connection: SYN, acknowledgements, and FIN.
    opened_up, opened_down = 60 + 3 * 52, 60 + 2 * 52
    found = bytes_of_message("up", 1000, 1, tls=False)
    assert found == LinkBytes(
        listed_down + pushed_down + opened_down, listed_up + pushed_up + opened_up
    )


def test_a_message_down_costs_requests_up():
    # PullMessages, PullObject and ConfirmMessageReceived: headers, bodies of 13, 89 and 89.
    headers = (820 + 23 + 2) + (820 + 21 + 2) + (820 + 34 + 2)
    up = headers + 13 + 89 + 89 + 3 * (52 + 52 + 52)
    assert bytes_of_message("down", 1000, 1, tls=False).up == up


def test_the_sizes_are_those_of_the_flower_that_is_tested_with():
    assert FLOWER.version == version("flwr")


def test_two_packets_are_acknowledged_by_one():
    # 100 packets of 1448 bytes more: 50 acknowledgements come back.
    small, large = (bytes_of_message("up", n, 1, tls=False) for n in (200_000, 344_800))
    assert large.up - small.up == 100 * 1500
    assert large.down - small.down == 50 * 52


def test_tls_adds_22_bytes_for_16_kib_and_handshakes():
    plain, secure = (bytes_of_message("up", 16_384 * 100, 1, tls=tls) for tls in (False, True))
    handshake = 517 + 80 + 3 * 52
    # Two headers, two bodies, a record more for each 16 KiB; these fill a packet and a half more.
    records = 22 * (2 + 2 + 100)
    packets = 52 * 2
    assert secure.up - plain.up == handshake + records + packets


def test_a_waiting_node_polls_about_twenty_times_a_minute():
    # A request in two packets and an acknowledgement, 19.96 times; and three heartbeats.
    minute = bytes_of_waiting(60, tls=False)
    polls, beats = 60 / 3.006, 3
    poll_up, beat_up = 845 + 13 + 3 * 52, 820 + 29 + 2 + 22 + 3 * 52
    assert minute.up == round(polls * poll_up + beats * beat_up)
    assert bytes_of_waiting(3600).up == pytest.approx(60 * bytes_of_waiting(60).up, rel=1e-3)


def test_the_start_of_a_run_is_the_app_bundle():
    start = bytes_of_start(700_000, tls=False)
    assert 700_000 < start.down < 700_000 * 1.05
    assert start.up < 700_000 * 0.025


def test_objects_are_asked_for_two_at_a_time():
    # Down: PullMessages, ceil(3 / 2) times PullObject, ConfirmMessageReceived.
    assert round_trips("down", 3) == 1 + 2 + 1
    # Up: PushMessages and the objects, and a connection with its TLS handshake first.
    assert round_trips("up", 12) == 1 + 6 + 2
    assert round_trips("up", 12, tls=False) == 1 + 6 + 1


@given(DIRECTIONS, SIZES, OBJECTS, st.booleans())
def test_a_larger_message_costs_more_and_never_less_than_its_bytes(way, n_bytes, n_objects, tls):
    found = bytes_of_message(way, n_bytes, n_objects, tls=tls)
    more = bytes_of_message(way, n_bytes + 5000, n_objects, tls=tls)
    assert getattr(found, way) > n_bytes
    assert getattr(more, way) >= getattr(found, way) + 5000
    assert more.down >= found.down and more.up >= found.up


@given(DIRECTIONS, SIZES, OBJECTS)
def test_tls_and_more_objects_cost_more(way, n_bytes, n_objects):
    def cost(n=n_objects, **how):
        found = bytes_of_message(way, n_bytes, n, **how)
        return found.down + found.up

    assert cost(tls=False) < cost(tls=True) < cost(n_objects + 1)


def test_equal_arrays_are_one_object_and_each_line_of_the_ledger_has_its_estimate(federate):
    federation = federate().prepare()
    equal = {name: Array(np.zeros(3, np.float32)) for name in "ab"}
    other = equal | {"b": Array(np.ones(3, np.float32))}
    counts = [
        weigh(Message(RecordDict({"x": ArrayRecord(arrays)}), 1, "train"))[1]
        for arrays in (equal, other)
    ]
    assert counts[1] == counts[0] + 2  # an array, and its chunk
    federation.round()
    lines = federation.lines()
    for line, message in zip(
        [line for line in lines if line["kind"] == "train" and line["direction"] == "down"],
        federation.sent("train", 1).values(),
        strict=True,
    ):
        n_bytes, n_objects = weigh(message)
        link = bytes_of_message("down", n_bytes, n_objects)
        assert (int(line["link_bytes_down"]), int(line["link_bytes_up"])) == (link.down, link.up)
        assert int(line["n_objects"]) == n_objects
    total = sum(int(line["link_bytes_up"]) for line in lines)
    assert total == federation.ledger.link_bytes["up"]
