"""A node's replies on their way into the SuperLink: each once, however often it comes."""

import asyncio
import logging
from collections import OrderedDict

from clients.relay import flower
from clients.relay.flower import parsed
from fed_ist.relay.frames import Kind, UnreadableFrameError, pairs
from sims.relay.superlink import Headers, RefusedError, SuperLink

KEPT = 8
STORED, INCOMPLETE = 200, 400
log = logging.getLogger("fed-ist-relay")


class Replies:
    """The replies of one node, of which the last few are known when they come again."""

    def __init__(self, node: flower.Node, superlink: SuperLink, headers: Headers) -> None:
        self._node, self._superlink, self._headers = node, superlink, headers
        self._known: OrderedDict[str, asyncio.Task[int]] = OrderedDict()

    async def take(self, parts: list[bytes]) -> tuple[str, int]:
        """(a reply's id, the HTTP status with which the SuperLink took it).

        parts: of a frame REPLY. It goes on though the caller is cancelled. Raises
        `UnreadableFrameError`.
        """
        if not parts:
            raise UnreadableFrameError("REPLY without its list")
        announced = parsed(flower.PushMessagesRequest, parts[0])
        if len(announced.messages_list) != 1:
            raise UnreadableFrameError(f"REPLY with {len(announced.messages_list)} messages")
        contents = dict(pairs(parts[1:], Kind.REPLY))
        reply_id = str(announced.messages_list[0].metadata.message_id)
        if reply_id not in self._known:
            self._known[reply_id] = asyncio.create_task(self._store(announced, contents))
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
        return reply_id, await asyncio.shield(self._known[reply_id])

    async def _store(
        self, announced: flower.PushMessagesRequest, contents: dict[str, bytes]
    ) -> int:
        announced.node.CopyFrom(self._node)
        try:
            told = parsed(
                flower.PushMessagesResponse,
                await self._superlink.ask("push-messages", announced, self._headers),
            )
            for name in told.objects_to_push:
                if name not in contents:
                    return INCOMPLETE
                pushed = flower.PushObjectRequest(
                    node=self._node,
                    run_id=announced.messages_list[0].metadata.run_id,
                    object_id=name,
                    object_content=contents[name],
                    session_id=told.session_id,
                )
                await self._superlink.ask("push-object", pushed, self._headers)
        except RefusedError as error:
            log.warning("A reply of node %d: %s", self._node.node_id, error)
            return error.status
        return STORED
