"""Answers nginx, which asks of each request whether it may pass before it takes the body.

This is as much HTTP as nginx's `auth_request` needs, on a Unix socket.
"""

import asyncio
import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from fed_ist.deploy.node_signatures import LATER, Doorkeeper, Verdict

MAX_HEADER_BYTES = 16384  # the most in one request of nginx: three headers, and what nginx adds
REASON = "fed-ist-reason"


async def serve(doorkeeper: Doorkeeper, socket: Path) -> asyncio.Server:
    """Start to answer at a Unix socket that only this user may open."""
    socket.unlink(missing_ok=True)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            while True:
                request = await reader.readuntil(b"\r\n\r\n")
                writer.write(_response(decide(doorkeeper, _headers(request))))
                await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(answer, socket, limit=MAX_HEADER_BYTES, backlog=1024)
    socket.chmod(0o600)
    return server


def decide(doorkeeper: Doorkeeper, headers: Mapping[str, str]) -> Verdict:
    """The doorkeeper's verdict; a request that cannot be judged now is to come again later."""
    try:
        return doorkeeper.judge(headers)
    except (OSError, sqlite3.Error) as error:
        return Verdict(LATER, f"the SuperLink's database cannot be read: {_plain(str(error))}")


def _headers(request: bytes) -> dict[str, str]:
    """The headers of a request; of several with one name the first, as a SuperLink takes it."""
    found: dict[str, str] = {}
    for line in request.decode("latin-1").split("\r\n")[1:]:
        name, _, value = line.partition(":")
        found.setdefault(name.strip().lower(), value.strip())
    return found


def _response(verdict: Verdict) -> bytes:
    phrase = {204: "No Content", 401: "Unauthorized", 503: "Service Unavailable"}[verdict.status]
    length = "" if verdict.status == 204 else "Content-Length: 0\r\n"
    reason = f"{REASON}: {verdict.reason}\r\n" if verdict.reason else ""
    return f"HTTP/1.1 {verdict.status} {phrase}\r\n{length}{reason}\r\n".encode("latin-1")


def _plain(text: str) -> str:
    return "".join(mark if mark.isascii() and mark.isprintable() else "?" for mark in text)
