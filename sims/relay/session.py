"""One node at the server's relay: what it has, what it has not confirmed, and its signature."""

import asyncio
import logging
import time
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from clients.relay import flower
from clients.relay.flower import parsed
from fed_ist.deploy.node_signatures import PUBLIC_KEY, SIGNATURE, TIMESTAMP
from fed_ist.relay.frames import Kind, UnreadableFrameError, number, pack, text
from sims.relay.replies import Replies
from sims.relay.superlink import RefusedError, SuperLink

log = logging.getLogger("fed-ist-relay")

FRESH_S = 270.0  # the SuperLink takes a signature for 300 s
SIGN_WITHIN_S = 60.0
# What a node may have us do at once, and how many of its replies we hold; a SuperNode has one.
WORK, REPLIES = 8, 2
# The most that waits for one node to confirm it; a node is sent no more until it does.
MOST_UNCONFIRMED = 4


@dataclass(frozen=True)
class Unconfirmed:
    """A message that was sent, and that its node has not confirmed. expires_s: since 1970."""

    run_id: int
    expires_s: float
    frame: bytes


class Session:
    """What the server's relay knows of a node, over all of its connections."""

    def __init__(self, public_key: str, node_id: int, superlink: SuperLink) -> None:
        self.node = flower.Node(node_id=node_id)
        self.inside = False
        self.connection: ServerConnection | None = None
        self.work, self.replies = asyncio.Semaphore(WORK), asyncio.Semaphore(REPLIES)
        self._public_key, self._superlink = public_key, superlink
        self._signed: dict[str, str] = {}
        self._signed_at = float("-inf")
        self._resigned = asyncio.Event()
        self._runs: set[int] = set()
        self._bundles: set[str] = set()
        self._run_bundles: dict[int, str] = {}
        self._unconfirmed: dict[str, Unconfirmed] = {}
        self._replies = Replies(self.node, superlink, self.headers)
        self._fetching = asyncio.Lock()

    # The signature

    def signed(self, timestamp: str, signature: bytes) -> dict[str, str]:
        """The headers that a node means with a signature; they are still to be judged."""
        return {
            PUBLIC_KEY: self._public_key,
            TIMESTAMP: timestamp,
            SIGNATURE: b64encode(signature).decode("ascii"),
        }

    def renew(self, headers: Mapping[str, str]) -> None:
        """Use headers, which have been judged, from now on."""
        self._signed = dict(headers)
        self._signed_at = asyncio.get_running_loop().time()
        self._resigned.set()

    async def headers(self) -> Mapping[str, str]:
        """Headers that are still good; the node is asked for new ones if need be.

        Raises `RefusedError` where it gives none.
        """
        if asyncio.get_running_loop().time() - self._signed_at > FRESH_S:
            self._resigned.clear()
            await self.send(pack(Kind.ASK))
            try:
                async with asyncio.timeout(SIGN_WITHIN_S):
                    await self._resigned.wait()
            except TimeoutError:
                raise RefusedError("a signature of the node", 401) from None
        return self._signed

    @property
    def can_speak(self) -> bool:
        """Whether the SuperLink would take the signature that the node gave last."""
        return asyncio.get_running_loop().time() - self._signed_at <= FRESH_S

    # Its presence

    async def beat(self) -> None:
        """Tell the SuperLink that the node is there."""
        request = flower.SendNodeHeartbeatRequest(
            node=self.node, heartbeat_interval=flower.HEARTBEAT_S
        )
        await self._superlink.ask("send-node-heartbeat", request, self.headers)

    async def enter(self, parts: list[bytes]) -> None:
        """The node is there, with these runs and bundles; send what it has not confirmed."""
        if b"" not in parts:
            raise UnreadableFrameError("ENTER without the end of its runs")
        middle = parts.index(b"")
        runs = {number(part) for part in parts[:middle]}
        self._bundles = {text(part) for part in parts[middle + 1 :]}
        if not self._runs <= runs:  # it was started anew, and the ServerApp should see that
            await self.leave()
        self._runs, self.inside = runs, True
        await self.beat()
        await self.send(pack(Kind.WELCOME, [str(self.node.node_id).encode()]))
        self._drop_expired()
        for message in list(self._unconfirmed.values()):
            await self.send(message.frame)

    async def leave(self) -> None:
        """The node is not there any more; the SuperLink is told if it would believe it."""
        self.inside = False
        if self.can_speak:
            request = flower.DeactivateNodeRequest(node_id=self.node.node_id)
            with suppress(RefusedError):  # the SuperLink may have noticed already
                await self._superlink.ask("deactivate-node", request, self.headers)

    # Messages to it

    async def send(self, frame: bytes) -> None:
        """Send a frame, if the node is connected."""
        if self.connection is not None:
            try:
                await self.connection.send(frame)
            except ConnectionClosed:
                return

    async def fetch(self) -> None:
        """Fetch what waits for the node, whole, and send it; several at a time fetch once."""
        self._drop_expired()
        if self._fetching.locked() or len(self._unconfirmed) >= MOST_UNCONFIRMED:
            return
        async with self._fetching:
            request = flower.PullMessagesRequest(node=self.node)
            pulled = await self._superlink.ask("pull-messages", request, self.headers)
            listed = parsed(flower.PullMessagesResponse, pulled)
            for message in listed.messages_list:
                metadata = message.metadata
                belongings = await self._belongings(metadata.run_id)
                objects = await self._objects(metadata.run_id, listed)
                try:
                    frame = pack(Kind.MESSAGE, [pulled, *belongings, *objects])
                except UnreadableFrameError as error:
                    raise RefusedError(f"a message for it: {error}", 413) from None
                expires_s = metadata.created_at + metadata.ttl
                self._unconfirmed[metadata.message_id] = Unconfirmed(
                    metadata.run_id, expires_s, frame
                )
                await self.send(frame)

    def _drop_expired(self) -> None:
        """Drop messages to which no reply would be taken any more."""
        now_s = time.time()
        self._unconfirmed = {
            name: one for name, one in self._unconfirmed.items() if one.expires_s > now_s
        }

    async def _belongings(self, run_id: int) -> list[bytes]:
        """The run, the bundle's hash and the bundle, each empty where the node has it."""
        run, name, bundle = b"", b"", b""
        if run_id not in self._runs:
            request = flower.GetRunRequest(node=self.node, run_id=run_id)
            run = await self._superlink.ask("get-run", request, self.headers)
            found = parsed(flower.GetRunResponse, run)
            if found.run.fab_hash not in self._bundles:
                name = found.run.fab_hash.encode("ascii")
                wanted = flower.GetFabRequest(
                    node=self.node, hash_str=found.run.fab_hash, run_id=run_id
                )
                bundle = await self._superlink.ask("get-fab", wanted, self.headers)
                self._bundles.add(found.run.fab_hash)
            self._runs.add(run_id)
        return [run, name, bundle]

    async def _objects(self, run_id: int, listed: flower.PullMessagesResponse) -> list[bytes]:
        parts = []
        for name in flower.object_ids(listed.message_object_trees):
            content = await self._superlink.pull_object(self.node, run_id, name, self.headers)
            parts += [name.encode("ascii"), content]
        return parts

    async def confirm(self, message_id: str) -> None:
        """The node has a message; the SuperLink need not keep it."""
        found = self._unconfirmed.pop(message_id, None)
        if found:
            request = flower.ConfirmMessageReceivedRequest(
                node=self.node, run_id=found.run_id, message_object_id=message_id
            )
            await self._superlink.ask("confirm-message-received", request, self.headers)

    # Its replies

    async def take(self, parts: list[bytes]) -> None:
        """Give a reply to the SuperLink, once however often it comes, and tell the node."""
        reply_id, status = await self._replies.take(parts)
        await self.send(pack(Kind.STORED, [reply_id.encode(), str(status).encode()]))
