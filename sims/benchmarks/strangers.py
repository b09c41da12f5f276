"""Strangers at the gate of a server: they hold connections half open, and send large bodies.

`python -m sims.benchmarks.strangers '{"port": 8000, ...}'` goes on until it is terminated, and then
prints in JSON what it did. It uses addresses of loopback, and has no registered key.
"""

import asyncio
import itertools
import json
import logging
import os
import signal
import ssl
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import ec

from fed_ist.deploy.node_signatures import sign

BODY_BYTES = 64_000_000
PIECE = bytes(65536)
DRIP_S = 2.0  # between two letters of a header
PAUSE_S = 0.2  # before a connection that was closed is opened again
PATH = "/v1/fleet/push-object"


@dataclass(frozen=True)
class Request:
    """What strangers are to do.

    half_open: connections that they hold. flooders: connections that send bodies. sources:
    addresses.
    """

    port: int
    half_open: int
    flooders: int
    sources: list[str]


@dataclass
class Deeds:
    """What strangers have done.

    standing: half-open connections now. most_standing: the most at once. statuses: how many answers
    there were by HTTP status; "closed" where there was none.
    """

    opened: int = 0
    standing: int = 0
    most_standing: int = 0
    body_bytes: int = 0
    statuses: Counter[str] = field(default_factory=Counter)

    def told(self) -> dict[str, object]:
        """The deeds as JSON can hold them."""
        return {
            "opened": self.opened,
            "most-standing": self.most_standing,
            "body-bytes": self.body_bytes,
            "statuses": dict(self.statuses),
        }


Behaviour = Callable[[Request, Deeds, str], Awaitable[None]]


async def tcp_only(request: Request, deeds: Deeds, source: str) -> None:
    """A connection that never says a word."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", request.port, local_addr=(source, 0)
    )
    await _hold(deeds, reader, writer, b"")


async def half_a_header(request: Request, deeds: Deeds, source: str) -> None:
    """TLS, and a header that never ends."""
    reader, writer = await _secure(request, source)
    writer.write(b"POST /v1/fleet/push-object HTTP/1.1\r\nHost: a\r\nX-")
    await _hold(deeds, reader, writer, b"")


async def a_drip(request: Request, deeds: Deeds, source: str) -> None:
    """TLS, and a header that comes letter by letter."""
    reader, writer = await _secure(request, source)
    writer.write(b"POST /v1/fleet/push-object HTTP/1.1\r\nHost: a\r\nX-")
    await _hold(deeds, reader, writer, b"a")


async def unsigned_body(request: Request, deeds: Deeds, source: str) -> None:
    """A large body after a header without a signature."""
    await _send(request, deeds, source, {"Content-Length": str(BODY_BYTES)})


async def forged_body(request: Request, deeds: Deeds, source: str) -> None:
    """A large body with the signature of a key that nobody has registered."""
    headers = sign(ec.generate_private_key(ec.SECP256R1()))
    await _send(request, deeds, source, headers | {"Content-Length": str(BODY_BYTES)})


async def body_without_length(request: Request, deeds: Deeds, source: str) -> None:
    """A body in chunks, whose length nobody has said."""
    await _send(request, deeds, source, {"Transfer-Encoding": "chunked"})


HOLDING: Sequence[Behaviour] = (tcp_only, half_a_header, a_drip)
FLOODING: Sequence[Behaviour] = (unsigned_body, forged_body, body_without_length)


async def _hold(
    deeds: Deeds, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, drip: bytes
) -> None:
    """Keep the connection until the other side closes it."""
    deeds.standing += 1
    deeds.most_standing = max(deeds.most_standing, deeds.standing)
    try:
        while True:
            with suppress(TimeoutError):
                if not await asyncio.wait_for(reader.read(4096), DRIP_S):
                    return
            writer.write(drip)
    finally:
        deeds.standing -= 1
        writer.close()


async def _send(request: Request, deeds: Deeds, source: str, headers: dict[str, str]) -> None:
    reader, writer = await _secure(request, source)
    lines = [f"POST {PATH} HTTP/1.1", "Host: a"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
    chunked = "Transfer-Encoding" in headers
    piece = f"{len(PIECE):x}\r\n".encode() + PIECE + b"\r\n" if chunked else PIECE
    answer = asyncio.create_task(reader.readline())
    try:
        for _ in range(BODY_BYTES // len(PIECE)):
            if answer.done() or writer.is_closing():
                break
            writer.write(piece)
            await writer.drain()
            deeds.body_bytes += len(PIECE)
        words = (await asyncio.wait_for(answer, 60)).split()
        deeds.statuses[words[1].decode() if len(words) > 1 else "closed"] += 1
    except (OSError, TimeoutError):
        deeds.statuses["closed"] += 1
    finally:
        answer.cancel()
        writer.close()


async def _secure(
    request: Request, source: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return await asyncio.open_connection(
        "127.0.0.1", request.port, local_addr=(source, 0), ssl=context
    )


async def attack(request: Request, deeds: Deeds) -> None:
    """Make all connections at once, each again and again, until cancelled."""

    async def again(one: Behaviour, source: str) -> None:
        while True:
            deeds.opened += 1
            with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                await one(request, deeds, source)
            await asyncio.sleep(PAUSE_S)

    sources = itertools.cycle(request.sources)
    async with asyncio.TaskGroup() as group:
        for attacks, n in ((HOLDING, request.half_open), (FLOODING, request.flooders)):
            for one, source, _ in zip(itertools.cycle(attacks), sources, range(n), strict=False):
                group.create_task(again(one, source))


async def _main(request: Request) -> None:
    deeds = Deeds()

    def leave() -> None:
        with suppress(OSError):  # nobody may be there to hear it
            print(json.dumps(deeds.told()), flush=True)
        os._exit(0)  # do not wait until thousands of connections are closed

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, leave)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # it would log each closed connection
    await attack(request, deeds)


if __name__ == "__main__":
    asyncio.run(_main(Request(**json.loads(sys.argv[1]))))
