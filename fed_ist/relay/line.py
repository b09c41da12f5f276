"""The device's end of the lasting connection: it connects again after each cut, and signs."""

import asyncio
import random
import socket
import time
from base64 import b64decode
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import ec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, WebSocketException

from fed_ist.deploy.node_signatures import SIGNATURE, TIMESTAMP, sign
from fed_ist.relay.frames import MAX_FRAME, Kind, UnreadableFrameError, pack, unpack
from fed_ist.relay.tls import ResumingContext

PATH = "/relay"
# A signature is good for 300 s. Each tells the server that the device is there, and keeps the
# connection open in the tables of routers, which forget it after five minutes or more.
SIGN_EACH_S = 240.0
# What is sent and not acknowledged for so long is on a connection that is dead.
UNACKNOWLEDGED_S = 120
OPEN_S = 60.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 120.0
ALIVE_S = 30.0  # a connection that held for so long was a good one

Say = Callable[[str], None]


@dataclass
class Line:
    """The connection to a server, which is there or will be again.

    url: of the server's relay. on_open: called whenever the connection is there anew. on_frame:
    with what comes. say: told in one sentence why there is no connection.
    """

    url: str
    key: ec.EllipticCurvePrivateKey
    context: ResumingContext
    on_open: Callable[[], Awaitable[None]]
    on_frame: Callable[[Kind, list[bytes]], Awaitable[None]]
    say: Say
    _connection: ClientConnection | None = None
    _said: str = field(default="", init=False)
    _rest_s: float = field(default=0.0, init=False)

    async def send(self, frame: bytes) -> None:
        """Send a frame if there is a connection; `on_open` has to send again what was lost."""
        if self._connection is not None:
            with suppress(WebSocketException, OSError):
                await self._connection.send(frame)

    async def rest(self, seconds: float) -> None:
        """End the connection, and come back after these seconds."""
        if self._connection is not None:
            self._rest_s = seconds
            await self._connection.close()

    async def keep(self) -> None:
        """Be connected until cancelled, with a pause after each failure that grows."""
        pause_s = FIRST_PAUSE_S
        while True:
            began = time.monotonic()
            try:
                await self._once()
                reason = "the server closed the connection"
            except InvalidStatus as error:
                reason = _explain(error.response.status_code)
            except (OSError, WebSocketException, UnreadableFrameError) as error:
                reason = f"{error}" or type(error).__name__
            self._connection = None
            if self._rest_s:
                rest_s, self._rest_s, pause_s = self._rest_s, 0.0, FIRST_PAUSE_S
                await asyncio.sleep(rest_s)
                continue
            if time.monotonic() - began > ALIVE_S:
                pause_s = FIRST_PAUSE_S
            if reason != self._said:
                self.say(f"No connection to {self.url}: {reason}. It is tried again and again.")
                self._said = reason
            # Devices that were cut off together do not come back together.
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _once(self) -> None:
        async with connect(
            self.url,
            ssl=self.context,
            additional_headers=sign(self.key),
            user_agent_header=None,
            ping_interval=None,  # signatures tell as much
            max_size=MAX_FRAME,
            open_timeout=OPEN_S,
        ) as connection:
            _give_up_when_unacknowledged(connection)
            self._connection = connection
            signing = asyncio.create_task(self._sign())
            try:
                await self.on_open()
                async for frame in connection:
                    self.context.note(connection.transport)
                    self._said = ""
                    kind, parts = unpack(frame)
                    if kind is Kind.ASK:
                        await self.send(self._signature())
                    else:
                        await self.on_frame(kind, parts)
            finally:
                signing.cancel()

    async def _sign(self) -> None:
        while True:
            await asyncio.sleep(SIGN_EACH_S)
            await self.send(self._signature())

    def _signature(self) -> bytes:
        signed = sign(self.key)
        return pack(Kind.SIGN, [signed[TIMESTAMP].encode("ascii"), b64decode(signed[SIGNATURE])])


def _explain(status: int) -> str:
    if status == 401:
        return (
            "the server does not know this device's key, or the clock is wrong (fed-ist doctor "
            "tells which)"
        )
    if status in (403, 404):
        return f"no gate of this fed-ist is there ({status})"
    return f"the server answers {status}"


def _give_up_when_unacknowledged(connection: ClientConnection) -> None:
    """Have Linux end a connection whose other end is gone; elsewhere TCP does so later."""
    found = connection.transport.get_extra_info("socket")
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if found is not None and option is not None:
        found.setsockopt(socket.IPPROTO_TCP, option, 1000 * UNACKNOWLEDGED_S)
