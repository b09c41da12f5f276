"""The device's relay: it answers a SuperNode on the same host, and asks the server for nothing.

Whatever a SuperNode may ask for has come with the message. So its questions for messages, its
heartbeats, and requests for objects, runs and bundles stay on the device. A reply leaves once all
of it is there, and the SuperNode hears that it is stored when the SuperLink has it.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from clients.relay import flower
from clients.relay.flower import parsed
from clients.relay.outbox import LATER, NOT_FOUND, OK, UNREADABLE, WAIT_S, Answer, Outbox, happens
from fed_ist.relay.frames import Kind, UnreadableFrameError, number, pack, pairs, text
from fed_ist.relay.line import Line
from fed_ist.traffic.beat import until_beat_s

LOST_S = 60.0  # a SuperNode that has asked nothing for so long is gone
# A device that knows the beat comes back so long before it.
LEAD_S = 60.0
# To leave and come back costs some 4 kB (a connection, and being prepared again), to stay as much
# an hour (results/reference/relay.md): who has less time than this stays.
WORTH_S = 7200.0
KEPT_RUNS = 8
KEPT_STORED = 16


class Relay:
    """What a device has of the server, and what it owes to it.

    line: to be set before use. clock: seconds of a clock that nobody sets. now: seconds since 1970.
    """

    line: Line

    def __init__(self, clock: Callable[[], float], now: Callable[[], float]) -> None:
        self._clock, self._now = clock, now
        self._node_id = 0
        self._inside = False
        self._heard_at = clock()
        self._welcomed, self._arrived = asyncio.Event(), asyncio.Event()
        self._inbox: deque[flower.PullMessagesResponse] = deque()
        self._got: deque[str] = deque(maxlen=KEPT_STORED)
        self._objects: dict[str, dict[str, bytes]] = {}  # by message, then by object
        self._runs: dict[int, bytes] = {}
        self._bundles: dict[str, bytes] = {}
        self._outbox = Outbox(self._send)

    async def on_open(self) -> None:
        """Say who is there, and send again what the server may not have."""
        if not self._inside:
            return
        held = [str(run).encode() for run in self._runs]
        await self.line.send(pack(Kind.ENTER, [*held, b"", *map(str.encode, self._bundles)]))
        await self._outbox.send_again()

    async def _send(self, frame: bytes) -> None:
        await self.line.send(frame)

    async def on_frame(self, kind: Kind, parts: list[bytes]) -> None:
        """Take what the server sends; raises `UnreadableFrameError` for what it may not send."""
        if kind is Kind.WELCOME and len(parts) == 1:
            self._node_id = number(parts[0])
            self._welcomed.set()
        elif kind is Kind.MESSAGE and len(parts) >= 4:
            await self._take(parts)
        elif kind is Kind.STORED and len(parts) == 2:
            run_id = self._outbox.note(text(parts[0]), number(parts[1]))
            if run_id is not None:
                await self._rest(run_id)
        else:
            raise UnreadableFrameError(f"{kind.name} from a server, with {len(parts)} parts")

    async def _take(self, parts: list[bytes]) -> None:
        """Keep a message, whole with what belongs to it, and say so; a second time only say so."""
        listed = parsed(flower.PullMessagesResponse, parts[0])
        if len(listed.messages_list) != 1:
            raise UnreadableFrameError(f"{len(listed.messages_list)} messages at a time")
        metadata = listed.messages_list[0].metadata
        if metadata.message_id not in self._got:
            if parts[1]:
                self._runs[metadata.run_id] = parts[1]
                _keep_last(self._runs, KEPT_RUNS)
            if parts[2]:
                self._bundles[text(parts[2])] = parts[3]
                _keep_last(self._bundles, KEPT_RUNS)
            self._objects[metadata.message_id] = dict(pairs(parts[4:], Kind.MESSAGE))
            self._got.append(metadata.message_id)
            self._inbox.append(listed)
            self._arrived.set()
        await self.line.send(pack(Kind.GOT, [metadata.message_id.encode()]))

    async def _rest(self, run_id: int) -> None:
        """Leave until shortly before the run's next beat, if it has one and that is worth it."""
        run = parsed(flower.GetRunResponse, self._runs.get(run_id, b"")).run
        told = run.override_config["round-every-s"]
        every_s = told.double or float(told.sint64 or told.uint64)
        left_s = until_beat_s(self._now(), every_s) - LEAD_S if every_s else 0.0
        if left_s > WORTH_S and not self._inbox:
            await self.line.send(pack(Kind.LEAVE))
            await self.line.rest(left_s)

    async def answer(self, path: str, body: bytes) -> Answer:
        """(HTTP status, body) for a SuperNode's request; bodies are Flower's Protobuf messages."""
        self._heard_at = self._clock()
        handler = HANDLERS.get(path)
        if handler is None:
            return NOT_FOUND, b""
        try:
            return await handler(self, body)
        except UnreadableFrameError:
            return UNREADABLE, b""

    async def watch(self) -> None:
        """Tell the server when the SuperNode is gone without a word."""
        while True:
            await asyncio.sleep(LOST_S / 4)
            if self._clock() - self._heard_at > LOST_S:
                await self.leave()

    async def leave(self) -> None:
        """Tell the server that the SuperNode is gone, if it does not know."""
        if self._inside:
            await self._deactivate(b"")

    async def _nothing(self, _: bytes) -> Answer:
        return OK, b""

    async def _activate(self, _: bytes) -> Answer:
        """Let a SuperNode in; one that was started anew has lost whatever was on its way."""
        self._inbox.clear()
        self._outbox.clear()
        self._objects.clear()
        self._inside = True
        self._welcomed.clear()
        await self.on_open()
        if not await happens(self._welcomed, WAIT_S):
            return LATER, b""
        return OK, flower.ActivateNodeResponse(node_id=self._node_id).SerializeToString()

    async def _deactivate(self, _: bytes) -> Answer:
        self._inside = False
        await self.line.send(pack(Kind.LEAVE))
        return OK, b""

    async def _heartbeat(self, _: bytes) -> Answer:
        return OK, flower.SendNodeHeartbeatResponse(success=True).SerializeToString()

    async def _pull(self, _: bytes) -> Answer:
        """The next message, or nothing after a while, so that a SuperNode asks less often."""
        if not self._inside:  # it had fallen silent, as on a board that was suspended
            self._inside = True
            await self.on_open()
        if not self._inbox:
            self._arrived.clear()
            await happens(self._arrived, WAIT_S)
        return OK, self._inbox.popleft().SerializeToString() if self._inbox else b""

    async def _run(self, body: bytes) -> Answer:
        found = self._runs.get(parsed(flower.GetRunRequest, body).run_id)
        return (OK, found) if found is not None else (LATER, b"")

    async def _bundle(self, body: bytes) -> Answer:
        found = self._bundles.get(parsed(flower.GetFabRequest, body).hash_str)
        return (OK, found) if found is not None else (LATER, b"")

    async def _pull_object(self, body: bytes) -> Answer:
        wanted = parsed(flower.PullObjectRequest, body).object_id
        for objects in self._objects.values():
            if wanted in objects:
                found = flower.PullObjectResponse(
                    object_found=True, object_available=True, object_content=objects[wanted]
                )
                return OK, found.SerializeToString()
        return OK, flower.PullObjectResponse().SerializeToString()

    async def _confirm(self, body: bytes) -> Answer:
        confirmed = parsed(flower.ConfirmMessageReceivedRequest, body)
        self._objects.pop(confirmed.message_object_id, None)
        return OK, b""

    async def _push(self, body: bytes) -> Answer:
        return await self._outbox.announce(body)

    async def _push_object(self, body: bytes) -> Answer:
        return await self._outbox.take(body)


Handler = Callable[[Relay, bytes], Awaitable[Answer]]
FLEET = "/v1/fleet/"
HANDLERS: dict[str, Handler] = {
    FLEET + "register-node": Relay._nothing,
    FLEET + "unregister-node": Relay._nothing,
    FLEET + "activate-node": Relay._activate,
    FLEET + "deactivate-node": Relay._deactivate,
    FLEET + "send-node-heartbeat": Relay._heartbeat,
    FLEET + "pull-messages": Relay._pull,
    FLEET + "get-run": Relay._run,
    FLEET + "get-fab": Relay._bundle,
    FLEET + "pull-object": Relay._pull_object,
    FLEET + "confirm-message-received": Relay._confirm,
    FLEET + "push-messages": Relay._push,
    FLEET + "push-object": Relay._push_object,
}


def _keep_last(kept: dict[Any, bytes], most: int) -> None:
    while len(kept) > most:
        del kept[next(iter(kept))]
