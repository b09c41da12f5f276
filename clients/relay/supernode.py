"""`fed-ist supernode`: a SuperNode behind the device's relay, both in one unit."""

import asyncio
import json
import signal
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from clients.relay.device import Relay
from clients.relay.flower import require_tried
from fed_ist.deploy.node_keys import read_node_key, require_private
from fed_ist.errors import InputError
from fed_ist.launch.addresses import split_address
from fed_ist.launch.environment import own_environment
from fed_ist.launch.processes import free_port
from fed_ist.relay.line import PATH, Line
from fed_ist.relay.tls import client_context

HOST = "127.0.0.1"
MAX_BODY = 65 * 2**20
KEEP_ALIVE_S = 75
LEAVE_S = 5.0


@dataclass(frozen=True)
class Device:
    """Where a device finds its server, and who it is.

    superlink: HOST:PORT of the gate. authority: the file of certificates that are trusted; None for
    those of the system. key: the file with the private key. words: further words for SuperNode.
    """

    superlink: str
    authority: Path | None
    key: Path
    words: Sequence[str]


class Quiet(uvicorn.Server):
    """uvicorn that leaves signals to us: the SuperNode is to end before it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def keep_supernode(device: Device) -> int:
    """Run a SuperNode until it ends or this is told to end; returns the SuperNode's exit code.

    Raises `InputError` for a Flower that this was not tried with, and for files that cannot be
    used.
    """
    require_tried()
    host, port = split_address(device.superlink)
    require_private(device.key)
    key = read_node_key(device.key)
    try:
        context = client_context(device.authority)
    except OSError as error:
        raise InputError(
            f"--root-certificates '{device.authority}' cannot be read: {error}. Copy ca.crt from "
            "the server's keys."
        ) from None
    url = f"wss://{f'[{host}]' if ':' in host else host}:{port}{PATH}"
    relay = Relay(time.monotonic, time.time)
    relay.line = Line(url, key, context, relay.on_open, relay.on_frame, _say)
    return asyncio.run(_keep(relay, device.words))


async def _keep(relay: Relay, words: Sequence[str]) -> int:
    port = free_port()
    config = uvicorn.Config(
        _application(relay),
        host=HOST,
        port=port,
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="none",
        timeout_keep_alive=KEEP_ALIVE_S,
    )
    server = Quiet(config)
    tasks = [
        asyncio.create_task(work) for work in (server.serve(), relay.line.keep(), relay.watch())
    ]
    program = Path(sysconfig.get_path("scripts"), "flower-supernode")
    process = await asyncio.create_subprocess_exec(
        str(program), "--superlink", f"{HOST}:{port}", "--insecure", *words, env=own_environment()
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _end, process)
    ended = asyncio.create_task(process.wait())
    done, _ = await asyncio.wait([ended, *tasks], return_when=asyncio.FIRST_COMPLETED)
    if ended not in done:  # one of ours has failed, which the traceback below tells
        _end(process)
        await ended
    with suppress(TimeoutError):  # a SuperNode that was killed has not said that it ends
        async with asyncio.timeout(LEAVE_S):
            await relay.leave()
    for task in tasks:
        task.cancel()
    for found in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(found, Exception):
            raise found
    return await ended


def _end(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)


def _application(relay: Relay) -> Any:
    """The ASGI application that a SuperNode speaks to."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        body = bytearray()
        while True:
            event = await receive()
            if event["type"] == "http.disconnect":
                return
            body += event.get("body", b"")
            if len(body) > MAX_BODY or not event.get("more_body"):
                break
        status, answer = 413, b""
        if len(body) <= MAX_BODY:
            status, answer = await relay.answer(scope["path"], bytes(body))
        headers = [(b"content-type", b"application/protobuf")]
        headers.append((b"content-length", str(len(answer)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return application


def _say(sentence: str) -> None:
    print(f"fed-ist: {sentence}", file=sys.stderr, flush=True)


def main() -> int:
    """Keep the SuperNode that one JSON object describes; returns the exit code."""
    asked = json.loads(sys.argv[1])
    authority = Path(asked["authority"]) if asked["authority"] else None
    device = Device(asked["superlink"], authority, Path(asked["key"]), asked["words"])
    try:
        return keep_supernode(device)
    except InputError as error:
        _say(str(error))
        return 2


if __name__ == "__main__":
    sys.exit(main())
