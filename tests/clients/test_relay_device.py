"""What a device's relay answers to a SuperNode by itself, and when it leaves until the next beat.

A server's side stands in here, so that a test can say when it answers, and what.
"""

import asyncio
import ssl
from dataclasses import dataclass, field

import pytest
from conftest import HANG_S
from flwr.proto import fleet_pb2, message_pb2, run_pb2
from websockets.asyncio.server import serve

from clients.relay.device import Relay
from clients.relay.outbox import FORBIDDEN, LATER, OK
from fed_ist.deploy.certificates import write_certificates
from fed_ist.deploy.node_keys import read_node_key, write_node_key
from fed_ist.relay.frames import Kind, pack, unpack
from fed_ist.relay.line import PATH, Line
from fed_ist.relay.tls import client_context

FLEET = "/v1/fleet/"
NODE_ID, RUN_ID, DAY_S = 7, 11, 86_400.0


@dataclass
class StandIn:
    """A server: what it heard, in order, over all connections, and how it takes replies."""

    heard: list[tuple[Kind, list[bytes]]] = field(default_factory=list)
    connections: int = 0
    status: bytes | None = b"200"
    now: object = None

    async def serve(self, connection) -> None:
        self.connections += 1
        self.now = connection
        async for frame in connection:
            kind, parts = unpack(frame)
            self.heard.append((kind, parts))
            if kind is Kind.ENTER:
                await connection.send(pack(Kind.WELCOME, [str(NODE_ID).encode()]))
            if kind is Kind.REPLY and self.status is not None:
                announced = fleet_pb2.PushMessagesRequest.FromString(parts[0])
                reply_id = announced.messages_list[0].metadata.message_id
                await connection.send(pack(Kind.STORED, [reply_id.encode(), self.status]))

    def kinds(self) -> list[Kind]:
        return [kind for kind, _ in self.heard]


def message(name: str, every_s: float = 0.0) -> bytes:
    """A message of two objects, with its run."""
    listed = fleet_pb2.PullMessagesResponse()
    listed.messages_list.add().metadata.message_id = name
    listed.messages_list[0].metadata.run_id = RUN_ID
    tree = listed.message_object_trees.add(object_id=name)
    tree.children.add(object_id="child")
    run = run_pb2.GetRunResponse()
    run.run.run_id, run.run.fab_hash = RUN_ID, "fab1"
    if every_s:
        run.run.override_config["round-every-s"].double = every_s
    parts = [listed.SerializeToString(), run.SerializeToString(), b"fab1", b"bundle"]
    return pack(Kind.MESSAGE, [*parts, name.encode(), b"top", b"child", b"below"])


class Device:
    """A relay with its line to the stand-in; `ask` speaks to it as a SuperNode does."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay

    async def ask(self, path: str, request=None, answer=None):
        body = request.SerializeToString() if request is not None else b""
        status, said = await self.relay.answer(FLEET + path, body)
        return status, answer.FromString(said) if answer and status == OK else said

    async def activate(self) -> int:
        status, said = await self.ask("activate-node", None, fleet_pb2.ActivateNodeResponse)
        assert status == OK
        return said.node_id

    async def push(self, name: str) -> list[int]:
        """The statuses with which a reply's two objects are taken."""
        request = fleet_pb2.PushMessagesRequest()
        request.messages_list.add().metadata.message_id = name
        request.messages_list[0].metadata.run_id = RUN_ID
        request.message_object_trees.add(object_id=name).children.add(object_id="part")
        _, told = await self.ask("push-messages", request, fleet_pb2.PushMessagesResponse)
        assert sorted(told.objects_to_push) == sorted([name, "part"])
        statuses = []
        for object_id in told.objects_to_push:
            pushed = message_pb2.PushObjectRequest(
                object_id=object_id, object_content=b"x", session_id=told.session_id
            )
            statuses.append((await self.ask("push-object", pushed))[0])
        return statuses


def with_device(tmp_path, test, now_s: float = 1000.0):
    """Run a test (a coroutine of stand-in and device) with both connected."""
    files = write_certificates(tmp_path, [])
    key = read_node_key(write_node_key(tmp_path, "north"))
    secure = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    secure.load_cert_chain(files.server, files.key)
    server = StandIn()

    async def run() -> None:
        async with asyncio.timeout(HANG_S), serve(server.serve, "127.0.0.1", 0, ssl=secure) as own:
            port = own.sockets[0].getsockname()[1]
            relay = Relay(lambda: 0.0, lambda: now_s)
            url, said = f"wss://127.0.0.1:{port}{PATH}", []
            context = client_context(files.authority)
            relay.line = Line(url, key, context, relay.on_open, relay.on_frame, said.append)
            keeping = asyncio.create_task(relay.line.keep())
            try:
                await test(server, Device(relay))
            finally:
                keeping.cancel()

    asyncio.run(run())


async def until(is_so) -> None:
    while not is_so():
        await asyncio.sleep(0.01)


def test_what_came_with_a_message_is_not_asked_for_again(tmp_path):
    async def test(server, device):
        assert await device.activate() == NODE_ID
        await server.now.send(message("m1"))
        _, pulled = await device.ask("pull-messages", None, fleet_pb2.PullMessagesResponse)
        assert pulled.messages_list[0].metadata.message_id == "m1"
        await until(lambda: server.heard[-1] == (Kind.GOT, [b"m1"]))
        heard = len(server.heard)
        _, run = await device.ask(
            "get-run", run_pb2.GetRunRequest(run_id=RUN_ID), run_pb2.GetRunResponse
        )
        assert run.run.fab_hash == "fab1"
        for name, content in (("m1", b"top"), ("child", b"below")):
            request = message_pb2.PullObjectRequest(run_id=RUN_ID, object_id=name)
            _, found = await device.ask("pull-object", request, message_pb2.PullObjectResponse)
            assert found.object_content == content
        for path in ("send-node-heartbeat", "confirm-message-received"):
            assert (await device.ask(path))[0] == OK
        await server.now.send(message("m2"))  # what was said before its answer has been heard
        await until(lambda: server.heard[-1] == (Kind.GOT, [b"m2"]))
        assert len(server.heard) == heard + 1

    with_device(tmp_path, test)


def test_a_message_that_comes_twice_is_given_to_the_supernode_once(tmp_path):
    async def test(server, device):
        await device.activate()
        for _ in range(2):
            await server.now.send(message("m1"))
        await server.now.send(message("m2"))
        await until(lambda: server.kinds().count(Kind.GOT) == 3)
        names = []
        for _ in range(2):
            _, pulled = await device.ask("pull-messages", None, fleet_pb2.PullMessagesResponse)
            names.append(pulled.messages_list[0].metadata.message_id)
        assert names == ["m1", "m2"]

    with_device(tmp_path, test)


@pytest.mark.parametrize(("status", "expected"), [(b"200", OK), (b"403", FORBIDDEN)])
def test_a_supernode_hears_of_its_reply_what_the_superlink_says(status, expected, tmp_path):
    async def test(server, device):
        server.status = status
        await device.activate()
        assert await device.push("r1") == [OK, expected]
        assert server.kinds().count(Kind.REPLY) == 1

    with_device(tmp_path, test)


def test_a_reply_that_was_cut_off_leaves_again_with_the_next_connection(tmp_path, monkeypatch):
    monkeypatch.setattr("clients.relay.outbox.WAIT_S", 0.2)

    async def test(server, device):
        server.status = None  # it is lost on the way
        await device.activate()
        assert await device.push("r1") == [OK, LATER]
        server.status = b"200"
        await server.now.close()
        await until(lambda: server.kinds().count(Kind.REPLY) == 2)
        assert server.connections == 2
        first, second = (parts for kind, parts in server.heard if kind is Kind.REPLY)
        assert first == second
        assert server.kinds().count(Kind.ENTER) == 2
        # What it holds is said, so that nothing of it is sent again.
        assert server.heard[-2] == (Kind.ENTER, [b""])

    with_device(tmp_path, test)


def test_with_a_beat_once_a_day_a_device_leaves_after_its_reply_and_comes_back_before(tmp_path):
    async def test(server, device):
        rests = []
        keep_rest = device.relay.line.rest

        async def rest(seconds):
            rests.append(seconds)
            await keep_rest(0.01)

        device.relay.line.rest = rest
        await device.activate()
        await server.now.send(message("m1", DAY_S))
        await device.ask("pull-messages")
        await device.push("r1")
        await until(lambda: server.connections == 2)
        assert rests == [DAY_S - 1000.0 - 60.0]
        await until(lambda: Kind.LEAVE in server.kinds())
        await until(lambda: server.kinds().count(Kind.ENTER) == 2)
        assert server.heard[-1] == (Kind.ENTER, [str(RUN_ID).encode(), b"", b"fab1"])

    with_device(tmp_path, test)


@pytest.mark.parametrize("every_s", [0.0, 3600.0])
def test_without_a_beat_or_with_a_near_one_a_device_stays(every_s, tmp_path):
    async def test(server, device):
        await device.activate()
        await server.now.send(message("m1", every_s))
        await device.ask("pull-messages")
        assert await device.push("r1") == [OK, OK]
        await server.now.send(message("m2"))
        await until(lambda: server.heard[-1] == (Kind.GOT, [b"m2"]))
        assert server.connections == 1
        assert Kind.LEAVE not in server.kinds()

    with_device(tmp_path, test)


def test_what_a_supernode_does_not_ask_for_is_not_answered(tmp_path):
    async def test(_, device):
        assert (await device.relay.answer("/v1/control/start-run", b""))[0] == 404
        assert (await device.relay.answer(FLEET + "push-messages", b"\xff"))[0] == 400
        unknown = message_pb2.PushObjectRequest(object_id="a", session_id="b")
        assert (await device.ask("push-object", unknown))[0] == 404

    with_device(tmp_path, test)
