"""One node at the server's relay: what it has, what it has not confirmed, and its signature."""

import asyncio
import logging
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Mapping

from google.protobuf.message import DecodeError
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from fed_ist.deploy.node_signatures import PUBLIC_KEY, SIGNATURE, TIMESTAMP
from fed_ist.relay.frames import Kind, UnreadableFrameError, number, pack, pairs, text
from relays import flower
from relays.superlink import RefusedError, SuperLink

log = logging.getLogger("fed-ist-relay")

FRESH_S = 270.0  # the SuperLink takes a signature for 300 s
SIGN_WITHIN_S = 60.0
KEPT_REPLIES = 8
# The most that waits for one node to confirm it; a node is sent no more until it does.
MOST_UNCONFIRMED = 4


class Session:
    """What the server's relay knows of a node, over all of its connections."""

    def __init__(self, public_key: str, node_id: int, superlink: SuperLink) -> None:
        self.node = flower.Node(node_id=node_id)
        self.inside = False
        self.connection: ServerConnection | None = None
        self._public_key, self._superlink = public_key, superlink
        self._signed: dict[str, str] = {}
        self._signed_at = float("-inf")
        self._resigned = asyncio.Event()
        self._runs: set[int] = set()
        self._bundles: set[str] = set()
        self._run_bundles: dict[int, str] = {}
        self._unconfirmed: dict[str, tuple[int, bytes]] = {}
        self._replies: OrderedDict[str, asyncio.Task[int]] = OrderedDict()
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
        self._runs = {number(part) for part in parts[:middle]}
        self._bundles = {text(part) for part in parts[middle + 1 :]}
        self.inside = True
        await self.beat()
        await self.send(pack(Kind.WELCOME, [str(self.node.node_id).encode()]))
        for _, frame in list(self._unconfirmed.values()):
            await self.send(frame)

    async def leave(self) -> None:
        """The node is not there any more; the SuperLink is told if it would believe it."""
        self.inside = False
        if self.can_speak:
            request = flower.DeactivateNodeRequest(node_id=self.node.node_id)
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
        if self._fetching.locked() or len(self._unconfirmed) >= MOST_UNCONFIRMED:
            return
        async with self._fetching:
            request = flower.PullMessagesRequest(node=self.node)
            pulled = await self._superlink.ask("pull-messages", request, self.headers)
            listed = flower.PullMessagesResponse()
            listed.ParseFromString(pulled)
            for message in listed.messages_list:
                metadata = message.metadata
                frame = pack(
                    Kind.MESSAGE,
                    [
                        pulled,
                        *await self._belongings(metadata.run_id),
                        *await self._objects(metadata.run_id, listed),
                    ],
                )
                self._unconfirmed[metadata.message_id] = (metadata.run_id, frame)
                await self.send(frame)

    async def _belongings(self, run_id: int) -> list[bytes]:
        """The run, the bundle's hash and the bundle, each empty where the node has it."""
        run, name, bundle = b"", b"", b""
        if run_id not in self._runs:
            request = flower.GetRunRequest(node=self.node, run_id=run_id)
            run = await self._superlink.ask("get-run", request, self.headers)
            found = flower.GetRunResponse()
            found.ParseFromString(run)
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
                node=self.node, run_id=found[0], message_object_id=message_id
            )
            await self._superlink.ask("confirm-message-received", request, self.headers)

    # Its replies

    async def take(self, parts: list[bytes]) -> None:
        """Give a reply to the SuperLink, once however often it comes, and tell the node."""
        announced = flower.PushMessagesRequest()
        try:
            announced.ParseFromString(parts[0])
        except (DecodeError, IndexError):
            raise UnreadableFrameError("REPLY without its list") from None
        if len(announced.messages_list) != 1:
            raise UnreadableFrameError(f"REPLY with {len(announced.messages_list)} messages")
        contents = dict(pairs(parts[1:], Kind.REPLY))
        reply_id = announced.messages_list[0].metadata.message_id
        if reply_id not in self._replies:
            self._replies[reply_id] = asyncio.create_task(self._store(announced, contents))
            while len(self._replies) > KEPT_REPLIES:
                self._replies.popitem(last=False)
        status = await asyncio.shield(self._replies[reply_id])
        await self.send(pack(Kind.STORED, [reply_id.encode(), str(status).encode()]))

    async def _store(
        self, announced: flower.PushMessagesRequest, contents: dict[str, bytes]
    ) -> int:
        """The HTTP status with which a reply is stored: 200, or that of a refusal."""
        announced.node.CopyFrom(self.node)
        try:
            told = flower.PushMessagesResponse()
            told.ParseFromString(
                await self._superlink.ask("push-messages", announced, self.headers)
            )
            for name in told.objects_to_push:
                pushed = flower.PushObjectRequest(
                    node=self.node,
                    run_id=announced.messages_list[0].metadata.run_id,
                    object_id=name,
                    object_content=contents[name],
                    session_id=told.session_id,
                )
                await self._superlink.ask("push-object", pushed, self.headers)
        except KeyError:
            return 400
        except RefusedError as error:
            log.warning("A reply of node %d: %s", self.node.node_id, error)
            return error.status
        return 200
