"""A device's replies on their way to the server: whole, once each, and again after a cut."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from clients.relay import flower
from clients.relay.flower import parsed
from fed_ist.relay.frames import Kind, UnreadableFrameError, pack

WAIT_S = 20.0  # a SuperNode waits 30 s for any answer
OK, UNREADABLE, FORBIDDEN, NOT_FOUND, TOO_LARGE, LATER = 200, 400, 403, 404, 413, 503

Answer = tuple[int, bytes]


@dataclass
class Reply:
    """A reply on its way. wanted: ids of objects that the SuperNode has yet to give."""

    announced: bytes
    run_id: int
    ids: list[str]
    wanted: set[str]
    contents: dict[str, bytes] = field(default_factory=dict)
    status: int = 0
    stored: asyncio.Event = field(default_factory=asyncio.Event)

    def frame(self) -> bytes:
        """The frame that takes it to the server."""
        parts = [part for name in self.ids for part in (name.encode(), self.contents[name])]
        return pack(Kind.REPLY, [self.announced, *parts])


class Outbox:
    """Takes replies from the SuperNode, and gives them to `send`, which may lose them."""

    def __init__(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        self._send = send
        self._replies: dict[str, Reply] = {}
        self._sending: set[asyncio.Task[None]] = set()

    def clear(self) -> None:
        """Forget all replies: the SuperNode that had them is gone."""
        self._replies.clear()

    async def send_again(self) -> None:
        """Send what is whole, and of which the server has not said that it is stored."""
        for reply in list(self._replies.values()):
            if not reply.wanted and not reply.stored.is_set():
                await self._send(reply.frame())

    def note(self, reply_id: str, status: int) -> int | None:
        """Note what the SuperLink says to a reply, in HTTP's terms; returns the reply's run."""
        reply = self._replies.get(reply_id)
        if reply is None:
            return None
        reply.status = status
        reply.contents.clear()
        reply.stored.set()
        return reply.run_id

    async def announce(self, body: bytes) -> Answer:
        """Take the list of a reply's objects, and ask for all of them."""
        announced = parsed(flower.PushMessagesRequest, body)
        if len(announced.messages_list) != 1:
            return UNREADABLE, b""
        metadata = announced.messages_list[0].metadata
        ids = flower.object_ids(announced.message_object_trees)
        for done in [name for name, reply in self._replies.items() if reply.stored.is_set()]:
            del self._replies[done]
        if metadata.message_id not in self._replies:
            self._replies[metadata.message_id] = Reply(body, metadata.run_id, ids, set(ids))
        wanted = flower.PushMessagesResponse(
            results={metadata.message_id: 0},
            objects_to_push=ids,
            session_id=metadata.message_id,
        )
        return OK, wanted.SerializeToString()

    async def take(self, body: bytes) -> Answer:
        """Take one object of a reply; with the last one the reply leaves, and is waited for."""
        pushed = parsed(flower.PushObjectRequest, body)
        reply = self._replies.get(pushed.session_id)
        if reply is None or pushed.object_id not in reply.ids:
            return NOT_FOUND, b""
        if pushed.object_id in reply.wanted:
            reply.contents[pushed.object_id] = pushed.object_content
            reply.wanted.discard(pushed.object_id)
            if not reply.wanted:
                try:
                    self._begin(reply.frame())
                except UnreadableFrameError:
                    del self._replies[pushed.session_id]
                    return TOO_LARGE, b""
        if not reply.wanted:
            if not await happens(reply.stored, WAIT_S):
                return LATER, b""
            if reply.status != OK:
                return reply.status, b""
        return OK, flower.PushObjectResponse(stored=True).SerializeToString()

    def _begin(self, frame: bytes) -> None:
        """Send without waiting: a slow link takes longer than a SuperNode waits for an answer."""

        async def send() -> None:
            await self._send(frame)

        task = asyncio.create_task(send())
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)


async def happens(event: asyncio.Event, within_s: float) -> bool:
    """Whether an event is set in this time."""
    try:
        async with asyncio.timeout(within_s):
            await event.wait()
    except TimeoutError:
        return False
    return True
