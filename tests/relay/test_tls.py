"""A connection after a cut is resumed: no certificate crosses the link again."""

import asyncio
import ssl

import pytest

from fed_ist.deploy.certificates import write_certificates
from fed_ist.relay.tls import client_context


async def connect_twice(files, context) -> list[bool]:
    """Whether each of two connections, one after the other, was resumed."""

    async def greet(_, writer):
        writer.write(b"hello")
        await writer.drain()

    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(files.server, files.key)
    resumed = []
    async with await asyncio.start_server(greet, "127.0.0.1", 0, ssl=own) as server:
        port = server.sockets[0].getsockname()[1]
        for _ in range(2):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=context, server_hostname="localhost"
            )
            assert await reader.readexactly(5) == b"hello"
            context.note(writer.transport)
            resumed.append(writer.get_extra_info("ssl_object").session_reused)
            writer.close()
    return resumed


def test_the_second_connection_is_resumed(tmp_path):
    files = write_certificates(tmp_path, [])
    context = client_context(files.authority)
    assert asyncio.run(connect_twice(files, context)) == [False, True]


def test_a_server_of_another_authority_is_not_spoken_to(tmp_path):
    files = write_certificates(tmp_path / "one", [])
    others = write_certificates(tmp_path / "other", [])
    with pytest.raises(ssl.SSLCertVerificationError):
        asyncio.run(connect_twice(files, client_context(others.authority)))
