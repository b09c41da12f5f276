"""The server's relay: a lasting connection for each device, behind the gate.

The gate lets an upgrade to a WebSocket through once it has judged who asks; this judges it again,
and each signature that follows. What waits in the SuperLink for a node is looked up once a second
for all nodes together, fetched on this host, and sent whole.
"""

import asyncio
import sqlite3
from base64 import b64decode
from collections.abc import Coroutine
from http import HTTPStatus

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from fed_ist.deploy.node_signatures import (
    PUBLIC_KEY,
    SIGNATURE,
    TIMESTAMP,
    Doorkeeper,
)
from fed_ist.deploy.verifier import decide
from fed_ist.relay.frames import Kind, UnreadableFrameError, text, unpack
from fed_ist.relay.mailbox import Mailbox
from sims.relay.session import Session, log
from sims.relay.superlink import RefusedError, SuperLink

LOOK_S = 1.0
# For so long a node that was cut off counts as there, as it does with Flower alone.
GRACE_S = 60.0
PAUSE_S = 0.02  # between frames of one node: no honest one says as much


class Server:
    """All nodes and their connections."""

    def __init__(self, superlink: SuperLink, mailbox: Mailbox, doorkeeper: Doorkeeper) -> None:
        self._superlink, self._mailbox, self._doorkeeper = superlink, mailbox, doorkeeper
        self._sessions: dict[str, Session] = {}  # by key, as in the header
        self._tasks: set[asyncio.Task[None]] = set()

    def judge(self, connection: ServerConnection, request: Request) -> Response | None:
        """Refuse whoever is no registered node, before anything but headers is taken."""
        headers = {
            name: request.headers.get(name, "") for name in (PUBLIC_KEY, TIMESTAMP, SIGNATURE)
        }
        verdict = decide(self._doorkeeper, headers)
        if verdict.status != 204:
            log.warning("A connection was refused: %s", verdict.reason)
            return connection.respond(HTTPStatus(verdict.status), "")
        return None

    async def serve(self, connection: ServerConnection) -> None:
        """Hear a node until its connection ends."""
        assert connection.request is not None
        headers = {
            name: connection.request.headers[name] for name in (PUBLIC_KEY, TIMESTAMP, SIGNATURE)
        }
        session = self._session(headers[PUBLIC_KEY])
        if session is None:
            return
        before, session.connection = session.connection, connection
        if before is not None:  # cut, and nobody has noticed yet
            self._begin(session, before.close())
        session.renew(headers)
        try:
            async for frame in connection:
                await self._hear(session, *unpack(frame))
                await asyncio.sleep(PAUSE_S)
        except UnreadableFrameError as error:
            log.warning("Node %d is cut off: it sent %s", session.node.node_id, error)
            await connection.close(1007)
        except ConnectionClosed:
            pass
        finally:
            if session.connection is connection:
                session.connection = None
                self._begin(session, self._miss(session))

    def _session(self, public_key: str) -> Session | None:
        """What is known of the node with this key; None where the database does not know it."""
        try:
            node_id = self._mailbox.node_id(b64decode(public_key))
        except (OSError, sqlite3.Error) as error:
            log.warning("The SuperLink's database cannot be read: %s", error)
            return None
        found = self._sessions.get(public_key)
        if node_id is not None and (found is None or found.node.node_id != node_id):
            # A key that was registered anew is another node to the SuperLink.
            found = self._sessions[public_key] = Session(public_key, node_id, self._superlink)
        return found

    async def _hear(self, session: Session, kind: Kind, parts: list[bytes]) -> None:
        """Begin what a frame asks for; a node that asks for more than we do at once waits."""
        if kind is Kind.SIGN and len(parts) == 2:
            try:
                headers = session.signed(parts[0].decode("ascii"), parts[1])
            except UnicodeDecodeError:
                raise UnreadableFrameError("SIGN with a time that is no text") from None
            verdict = decide(self._doorkeeper, headers)
            if verdict.status == 401:
                raise UnreadableFrameError(f"SIGN that is refused: {verdict.reason}")
            if verdict.status == 204:
                session.renew(headers)
                if session.inside:
                    await self._do(session, session.beat(), session.work)
        elif kind is Kind.ENTER:
            await self._do(session, session.enter(parts), session.work)
        elif kind is Kind.LEAVE and not parts:
            await self._do(session, session.leave(), session.work)
        elif kind is Kind.GOT and len(parts) == 1:
            await self._do(session, session.confirm(text(parts[0])), session.work)
        elif kind is Kind.REPLY:
            await self._do(session, session.take(parts), session.replies)
        else:
            raise UnreadableFrameError(f"{kind.name} from a device, with {len(parts)} parts")

    async def _miss(self, session: Session) -> None:
        """After a while without a connection, tell the SuperLink that the node is gone."""
        await asyncio.sleep(GRACE_S)
        if session.connection is None and session.inside:
            await session.leave()

    async def look(self) -> None:
        """Fetch what waits for connected nodes, again and again until cancelled."""
        said = ""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                waiting = self._mailbox.waiting()
                said = ""
            except (OSError, sqlite3.Error) as error:
                if str(error) != said:
                    log.warning("The SuperLink's database cannot be read: %s", error)
                said = str(error)
                continue
            for session in list(self._sessions.values()):
                if session.inside and session.connection and session.node.node_id in waiting:
                    self._begin(session, session.fetch())

    async def _do(
        self, session: Session, work: Coroutine[None, None, None], turns: asyncio.Semaphore
    ) -> None:
        await turns.acquire()
        self._begin(session, work).add_done_callback(lambda _: turns.release())

    def _begin(self, session: Session, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(_told(session, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _told(session: Session, work: Coroutine[None, None, None]) -> None:
    """Do something that may fail, in which case it is said."""
    try:
        await work
    except RefusedError as error:
        log.warning("Node %d: %s", session.node.node_id, error)
    except UnreadableFrameError as error:
        log.warning("Node %d is cut off: it sent %s", session.node.node_id, error)
        if session.connection is not None:
            await session.connection.close(1007)
    except ConnectionClosed:
        pass
