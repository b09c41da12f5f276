"""Many devices that wait: each with a key and a connection of its own, as `fed-ist supernode` has.

They say what the device's relay says while it waits, and no SuperNode is behind them. The
`sims.benchmarks.waiting` command starts this as a process of its own, so that what it takes is not
the server's; it prints a line once all are connected, and what it saw when its input ends.
"""

import asyncio
import json
import random
import resource
import ssl
import sys
from base64 import b64decode
from collections.abc import Mapping, Sequence
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from websockets.asyncio.client import connect

from fed_ist.deploy.node_signatures import SIGNATURE, TIMESTAMP, sign
from fed_ist.relay.frames import Kind, pack, unpack
from fed_ist.relay.line import PATH, SIGN_EACH_S

AT_ONCE = 16  # handshakes
EACH_ADDRESS = 100  # devices: the gate allows 128 connections of each


class Crowd:
    """Devices that are connected; counts are of devices and of what has happened to them."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self._port, self._context = port, context
        self._turns = asyncio.Semaphore(AT_ONCE)
        self.counts = {"welcomed": 0, "ended": 0, "messages": 0, "signed": 0}

    async def wait(self, number: int, key: ec.EllipticCurvePrivateKey) -> None:
        """Be one device until cancelled."""
        source = f"127.1.{number // EACH_ADDRESS}.1"
        async with self._turns:
            connection = await connect(
                f"wss://127.0.0.1:{self._port}{PATH}",
                ssl=self._context,
                server_hostname="localhost",
                local_addr=(source, 0),
                additional_headers=sign(key),
                user_agent_header=None,
                ping_interval=None,
                proxy=None,
                open_timeout=120,
            )
            await connection.send(pack(Kind.ENTER, [b""]))
            kind, _ = unpack(await connection.recv())
            assert kind is Kind.WELCOME
        self.counts["welcomed"] += 1
        signing = asyncio.create_task(self._sign(connection.send, key))
        try:
            async for frame in connection:
                kind, _ = unpack(frame)
                self.counts["messages"] += kind is Kind.MESSAGE
        finally:
            signing.cancel()
            self.counts["ended"] += 1

    async def _sign(self, send: object, key: ec.EllipticCurvePrivateKey) -> None:
        assert callable(send)
        await asyncio.sleep(random.uniform(0, SIGN_EACH_S))  # devices do not come all at once
        while True:
            signed = sign(key)
            parts = [signed[TIMESTAMP].encode("ascii"), b64decode(signed[SIGNATURE])]
            await send(pack(Kind.SIGN, parts))
            self.counts["signed"] += 1
            await asyncio.sleep(SIGN_EACH_S)


async def wait_all(
    asked: Mapping[str, str | int], keys: Sequence[ec.EllipticCurvePrivateKey]
) -> None:
    """Connect a device for each key, and wait until the input ends."""
    crowd = Crowd(int(asked["port"]), ssl.create_default_context(cafile=str(asked["authority"])))
    tasks = [asyncio.create_task(crowd.wait(i, key)) for i, key in enumerate(keys)]
    while crowd.counts["welcomed"] < len(keys):
        await asyncio.sleep(0.1)
        for task in tasks:
            if task.done():
                task.result()
    print("connected", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    print(json.dumps(crowd.counts), flush=True)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def main() -> None:
    """Wait with the keys in a file: PEM, one after the other."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asked = json.loads(sys.argv[1])
    blocks = Path(asked["keys"]).read_bytes().split(b"\n\n")
    keys = [serialization.load_pem_private_key(block, None) for block in blocks if block]
    asyncio.run(
        wait_all(asked, [key for key in keys if isinstance(key, ec.EllipticCurvePrivateKey)])
    )


if __name__ == "__main__":
    main()
