"""What `fed-ist supernode` refuses before it starts anything, and what it says of its server."""

import asyncio
import ssl

import pytest
from conftest import HANG_S
from websockets.asyncio.server import serve

from clients.relay.supernode import Device, keep_supernode
from fed_ist.deploy.certificates import write_certificates
from fed_ist.deploy.node_keys import read_node_key, write_node_key
from fed_ist.errors import InputError
from fed_ist.relay.line import PATH, Line
from fed_ist.relay.tls import client_context


@pytest.fixture
def device(tmp_path):
    files = write_certificates(tmp_path, [])
    key = write_node_key(tmp_path, "north")
    return {"superlink": "localhost:8000", "authority": files.authority, "key": key, "words": []}


@pytest.mark.parametrize(
    ("what", "value", "sentence"),
    [
        ("superlink", "localhost", "give HOST:PORT"),
        ("key", "none", "The key '.*none' cannot be read"),
        ("authority", "none", "--root-certificates '.*none' cannot be read.*Copy ca.crt"),
        ("authority", "north.pub", "--root-certificates '.*north.pub' cannot be read"),
    ],
)
def test_what_cannot_work_is_refused_in_a_sentence(what, value, sentence, device, tmp_path):
    changed = {what: value if what == "superlink" else tmp_path / value}
    with pytest.raises(InputError, match=sentence):
        keep_supernode(Device(**device | changed))


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (401, "the server does not know this device's key, or the clock is wrong"),
        (404, "no gate of this fed-ist is there"),
        (502, "the server answers 502"),
    ],
)
def test_why_there_is_no_connection_is_said_once(status, sentence, device, monkeypatch):
    monkeypatch.setattr("fed_ist.relay.line.FIRST_PAUSE_S", 0.01)
    secure = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    folder = device["authority"].parent
    secure.load_cert_chain(folder / "server.crt", folder / "server.key")
    said, asked = [], []

    def refuse(connection, _):
        asked.append(status)
        return connection.respond(status, "")

    async def nothing(*_) -> None:
        pass

    async def run() -> None:
        options = {"ssl": secure, "process_request": refuse}
        async with (
            asyncio.timeout(HANG_S),
            serve(nothing, "127.0.0.1", 0, **options) as server,
        ):
            url = f"wss://127.0.0.1:{server.sockets[0].getsockname()[1]}{PATH}"
            context = client_context(device["authority"])
            line = Line(url, read_node_key(device["key"]), context, nothing, nothing, said.append)
            keeping = asyncio.create_task(line.keep())
            while len(asked) < 3:
                await asyncio.sleep(0.01)
            keeping.cancel()

    asyncio.run(run())
    assert len(said) == 1
    assert sentence in said[0]
