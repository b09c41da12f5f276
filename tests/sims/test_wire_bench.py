"""What crosses real wires between namespaces, against the ledger's estimate."""

import random
import subprocess
import sys

import pytest
from conftest import ROOT

from fed_ist.errors import InputError
from sims.wires.namespaces import read_counters, require_namespaces, wired, within
from sims.wires.report import difference
from sims.wires.sizes import sniffing
from sims.wires.slow_wire import QUEUE_BYTES, Lane
from sims.wires.wire import WireBench, measure


def why_not() -> str:
    """Why namespaces are not possible here, "" where they are."""
    try:
        require_namespaces()
    except InputError as reason:
        return str(reason)
    return ""


needs_namespaces = pytest.mark.skipif(bool(why_not()), reason=why_not() or "possible")


def namespaces() -> str:
    command = ["ip", "netns", "list"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_packet_arrives_after_those_before_it_and_the_latency():
    lane = Lane(bits_per_s=8000.0, latency_s=0.5, loss=0.0)
    assert lane.take(10.0, 1000) == pytest.approx(10 + 1 + 0.5)
    assert lane.take(10.2, 500) == pytest.approx(11 + 0.5 + 0.5)
    assert lane.take(20.0, 500) == pytest.approx(20 + 0.5 + 0.5)


def test_a_full_queue_drops_what_comes():
    lane = Lane(bits_per_s=8000.0, latency_s=0.0, loss=0.0)
    fitting = [lane.take(0.0, 1000) for _ in range(QUEUE_BYTES // 1000)]
    assert None not in fitting
    assert lane.take(0.0, 1000) is None
    assert lane.take(1.0, 1000) is not None  # one packet has left


def test_a_share_of_the_packets_is_lost():
    lane = Lane(1e12, 0.0, loss=0.25, draw=random.Random(0))
    lost = sum(lane.take(float(i), 1000) is None for i in range(4000))
    assert 900 < lost < 1100


def test_without_root_it_is_one_sentence(monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(InputError, match="needs Linux and root"):
        require_namespaces()


@needs_namespaces
def test_wires_count_ip_packets_and_are_gone_afterwards():
    send = "import socket; socket.socket(2, 2).sendto(bytes(100), ('{}', 9))"
    with pytest.raises(KeyboardInterrupt), wired(2, tun=False) as wires:
        server = subprocess.Popen(
            within(wires.server, [sys.executable, "-c", "print(flush=True); input()"]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert server.stdout is not None
        server.stdout.readline()  # it is in its namespace now
        command = [sys.executable, "-c", send.format(wires.address(1))]
        subprocess.run(within(wires.nodes[1], command), check=True)
        counters = read_counters(server.pid, wires)
        server.communicate(b"\n")
        assert (counters[0].packets_up, counters[0].bytes_up) == (0, 0)
        # ARP takes 28 bytes either way; a datagram has 28 bytes of headers.
        assert counters[1].bytes_up == 28 + 128
        assert wires.server in namespaces()
        raise KeyboardInterrupt
    assert wires.server not in namespaces()


@needs_namespaces
def test_packets_on_a_wire_are_counted_by_what_they_are():
    serve = (
        "import socket; s = socket.create_server(('', 9)); print(flush=True); s.accept()[0].recv(9)"
    )
    send = (
        "import socket, time; s = socket.create_connection(('{}', 9)); s.send(bytes(5)); s.recv(1)"
    )
    with wired(1, tun=False) as wires:
        command = within(wires.server, [sys.executable, "-c", serve])
        with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
            assert server.stdout is not None
            server.stdout.readline()
            with sniffing(wires, 0) as sizes:
                command = [sys.executable, "-c", send.format(wires.address(0))]
                subprocess.run(within(wires.nodes[0], command), check=True)
        # A packet has 52 bytes of headers; 5 of what was sent.
        assert sizes.counts["up, carries data"] == [1, 57]
        assert sizes.counts["up, opens or ends a connection"][0] == 2
        assert "| up, carries data | 1 | 57 |" in sizes.render()


@needs_namespaces
@pytest.mark.flower
@pytest.mark.slow
def test_the_ledgers_estimate_is_within_5_percent_of_the_counters(capsys):
    request = WireBench(1, [10_000], 2, True, "", "", 0.0, "")
    before = namespaces()
    found = [exchange for _, exchange in measure(request, ROOT)]
    assert namespaces() == before
    assert [(e.round, e.node) for e in found if e.round > 0] == [(1, 0), (2, 0)]
    assert abs(difference(found)) < 0.05
    # The app bundle came with the first message, and is not in the ledger. It is small.
    assert 2000 < min(e.counted.down - e.link.down for e in found if e.round == 0) < 10_000
    assert "the estimate against the counters, all rounds" in capsys.readouterr().out
