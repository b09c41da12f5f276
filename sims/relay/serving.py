"""The process of the server's relay, which the gate starts and ends."""

import asyncio
import json
import logging
import signal
import ssl
import sys
import time
from contextlib import suppress
from pathlib import Path

import httpx
from websockets.asyncio.server import unix_serve

from clients.relay.flower import require_tried
from fed_ist.deploy.node_signatures import Doorkeeper
from fed_ist.deploy.registered_keys import RegisteredKeys
from fed_ist.errors import InputError
from fed_ist.relay.frames import MAX_FRAME
from fed_ist.relay.mailbox import Mailbox
from sims.relay.server import Server
from sims.relay.superlink import SuperLink

OPEN_S = 10.0
SUPERLINK_S = 60.0  # a SuperLink under load answers late


async def keep(place: Path, database: Path, superlink: str, authority: Path) -> None:
    """Serve at a Unix socket until cancelled.

    superlink: its URL on this host. authority: that of its certificate.
    """
    doorkeeper = Doorkeeper(RegisteredKeys(database).knows, time.time, time.monotonic)
    trusted = ssl.create_default_context(cafile=authority)
    place.unlink(missing_ok=True)
    async with httpx.AsyncClient(
        base_url=superlink, verify=trusted, timeout=SUPERLINK_S, trust_env=False
    ) as client:
        server = Server(SuperLink(client), Mailbox(database), doorkeeper)
        async with unix_serve(
            server.serve,
            str(place),
            process_request=server.judge,
            max_size=MAX_FRAME,
            open_timeout=OPEN_S,
            backlog=1024,
            ping_interval=None,  # devices sign every four minutes, and nginx ends what is silent
            server_header=None,
        ):
            place.chmod(0o600)
            looking = asyncio.create_task(server.look())
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, looking.cancel)
            with suppress(asyncio.CancelledError):
                await looking


def main() -> int:
    """Serve what the gate says in one JSON object, until told to stop; returns the exit code."""
    asked = json.loads(sys.argv[1])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for chatty in ("httpx", "websockets.server"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    try:
        require_tried()
    except InputError as error:
        print(f"fed-ist: {error}", file=sys.stderr)
        return 2
    asyncio.run(
        keep(
            Path(asked["place"]),
            Path(asked["database"]),
            asked["superlink"],
            Path(asked["authority"]),
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
