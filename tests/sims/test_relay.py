"""Devices with one lasting connection each, through a real gate to a real SuperLink."""

import asyncio
import json
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from conftest import HANG_S, ROOT
from field import read_table, until
from relay_cuts import Link
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from fed_ist.deploy.gatekeeper import find_nginx
from fed_ist.deploy.node_keys import write_node_key
from fed_ist.deploy.node_signatures import sign
from fed_ist.errors import InputError
from fed_ist.relay.frames import Kind, pack, unpack
from fed_ist.relay.tls import client_context
from sims.benchmarks.gated import SUPERLINK, Gated, Process, gated
from sims.drawn_images import draw_images

try:
    find_nginx()
    LACKING = ""
except InputError as lacking:
    LACKING = str(lacking)
pytestmark = [pytest.mark.flower, pytest.mark.skipif(bool(LACKING), reason=LACKING)]
ROUNDS = 2
# A reply of this classifier is some 30 kB: a cut after 10 kB of a round is in its middle.
HIDDEN_DIM, INTO_A_REPLY = 40, 10_000


@dataclass
class Served:
    hosts: Gated
    link: Link
    device: Process

    def said(self, name: str) -> str:
        return self.hosts.log(name).read_text(encoding="utf-8", errors="replace")

    async def connected(self, name: str, context: ssl.SSLContext | None = None):
        """A connection with a device's key, or without one."""
        context = context or client_context(self.hosts.certificates.authority)
        headers = sign(self.hosts.key(name)) if name else {}
        url = f"wss://127.0.0.1:{self.hosts.port}/relay"
        return await connect(url, ssl=context, additional_headers=headers, proxy=None)


@pytest.fixture(scope="module")
def field() -> Iterator[Served]:
    with gated() as hosts, ExitStack() as stack:
        hosts.start_superlink()
        hosts.start_gate()
        for name in ("north", "south"):
            hosts.register(name)
        write_node_key(hosts.keys, "stranger")
        link = Link(hosts.port)
        stack.callback(link.close)
        images = draw_images(hosts.folder / "images", 0)
        yield Served(hosts, link, hosts.start_relayed("north", images, link.port))


def refusal(field: Served, name: str) -> int:
    async def attempt() -> int:
        with pytest.raises(InvalidStatus) as refused:
            await field.connected(name)
        return refused.value.response.status_code

    return asyncio.run(attempt())


def test_who_is_not_registered_gets_no_connection(field):
    assert refusal(field, "stranger") == 401
    assert refusal(field, "") == 401


NOT_A_DEVICES = {
    "noise": bytes([255, 1, 2, 3]),
    "what the server alone may say": pack(Kind.WELCOME, [b"1"]),
    "a reply without its list": pack(Kind.REPLY),
    "a reply that is no reply": pack(Kind.REPLY, [b"\xff\xff"]),
    "a signature of nobody": pack(Kind.SIGN, [b"2026-12-01T00:00:00+00:00", b"0"]),
    "text": "hello",
}


@pytest.mark.parametrize("what", NOT_A_DEVICES)
def test_what_no_device_says_ends_its_connection_alone_with_a_sentence(what, field):
    opened = field.link.opened

    async def speak() -> int:
        connection = await field.connected("south")
        await connection.send(NOT_A_DEVICES[what])
        with pytest.raises(ConnectionClosed) as closed:
            async with asyncio.timeout(HANG_S):
                await connection.recv()
        return closed.value.rcvd.code

    before = field.said("gate").count("is cut off: it sent")
    assert asyncio.run(speak()) == 1007
    assert field.said("gate").count("is cut off: it sent") == before + 1
    assert field.link.opened == opened


def test_of_two_connections_with_one_key_the_later_stays(field):
    async def both() -> None:
        first = await field.connected("south")
        second = await field.connected("south")
        async with asyncio.timeout(HANG_S):
            await first.wait_closed()
            await second.send(pack(Kind.ENTER, [b""]))
            assert unpack(await second.recv())[0] is Kind.WELCOME
            await second.send(pack(Kind.LEAVE))
            await second.close()

    asyncio.run(both())


def test_after_a_cut_a_connection_is_resumed_without_the_certificate(field):
    context = client_context(field.hosts.certificates.authority)

    async def enter() -> bool:
        connection = await field.connected("south", context)
        await connection.send(pack(Kind.ENTER, [b""]))
        kind, _ = unpack(await connection.recv())
        assert kind is Kind.WELCOME
        context.note(connection.transport)
        await connection.send(pack(Kind.LEAVE))  # the run below is north's alone
        reused = connection.transport.get_extra_info("ssl_object").session_reused
        await connection.close()
        return reused

    async def twice() -> list[bool]:
        return [await enter(), await enter()]

    assert asyncio.run(twice()) == [False, True]


def test_a_run_completes_over_a_link_that_is_cut_and_nothing_is_trained_twice(field):
    """One cut comes while the node waits, and one in the middle of its first reply."""
    field.link.cut()
    settings = {
        "dataset": str(field.hosts.folder / "images"),
        "strategy": "fedavg",
        "hidden-layers": 1,
        "hidden-dim": HIDDEN_DIM,
        "num-rounds": ROUNDS,
        "min-nodes": 1,
    }
    run = field.hosts.run(ROOT, "cut", settings)
    said = "Receiving: train message"
    until(lambda: said in field.said("north") or run.poll() is not None, "round 1 begins")
    opened = field.link.opened
    field.link.cut_after_up = field.link.n_up + INTO_A_REPLY
    assert run.wait(timeout=HANG_S) == 0, field.said("run-cut")
    assert field.link.opened > opened, "it was not cut"
    assert field.said("north").count(said) == ROUNDS
    lines = read_table(field.hosts.folder / "results" / "cut" / "ledger.csv")
    assert [line["direction"] for line in lines].count("up") == ROUNDS + 1
    assert all(line["kind"] != "error" for line in lines)
    rounds = read_table(field.hosts.folder / "results" / "cut" / "rounds.csv")
    assert [row["answered"] for row in rounds[1:]] == ["1"] * ROUNDS


def test_a_device_that_is_told_to_end_is_gone_for_the_superlink_and_may_come_back(field):
    def online() -> int:
        listed = field.hosts.order("supernode", "ls", SUPERLINK, "--format", "json")
        return [node["status"] for node in json.loads(listed)["nodes"]].count("online")

    until(lambda: online() == 1, "north alone is there")
    field.device.terminate()
    field.device.wait(timeout=HANG_S)
    until(lambda: online() == 0, "the SuperLink knows that it is gone")
    field.hosts.start_relayed("north", field.hosts.folder / "images", field.link.port)
    until(lambda: online() == 1, "it is back")
