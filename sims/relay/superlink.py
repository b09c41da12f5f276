"""Asks the SuperLink on the same host in a node's name, with the headers that the node signed."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import httpx
from google.protobuf.message import Message

from clients.relay import flower

MEDIA = {"content-type": "application/protobuf", "accept": "application/protobuf"}
AT_ONCE = 16  # requests; a SuperLink answers one after the other, and keeps all bodies in memory
AGAIN = {502, 503, 504}
PAUSE_S, TRIES = 1.0, 60
AVAILABLE_S, AVAILABLE_TRIES = 0.2, 300  # a ServerApp is still giving the object to the SuperLink

Headers = Callable[[], Awaitable[Mapping[str, str]]]


class RefusedError(Exception):
    """The SuperLink does not do what a node asks for. status: of HTTP."""

    def __init__(self, what: str, status: int, said: str = "") -> None:
        super().__init__(f"{what}: the SuperLink answers {status} {said[:200]!r}")
        self.status = status


class SuperLink:
    """The SuperLink's Fleet API. client: knows its address, and trusts its certificate."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def ask(self, what: str, request: Message, headers: Headers) -> bytes:
        """The answer to a request; it is made again while the SuperLink cannot be reached.

        headers: gives those that the node signed. Raises `RefusedError`.
        """
        status, said = 503, ""
        body = request.SerializeToString()
        for _ in range(TRIES):
            signed = await headers()
            try:
                async with self._turns:
                    answer = await self._client.post(
                        f"/v1/fleet/{what}",
                        content=body,
                        headers=MEDIA | dict(signed),
                        # The certificate has this name, and the address is a number.
                        extensions={"sni_hostname": "localhost"},
                    )
            except httpx.TransportError as error:
                said = str(error)
            else:
                if answer.status_code == 200:
                    return answer.content
                status, said = answer.status_code, answer.text
                if status not in AGAIN:
                    break
            await asyncio.sleep(PAUSE_S)
        raise RefusedError(what, status, said)

    async def pull_object(
        self, node: flower.Node, run_id: int, object_id: str, headers: Headers
    ) -> bytes:
        """An object of a message; it is waited for while the ServerApp gives it."""
        request = flower.PullObjectRequest(node=node, run_id=run_id, object_id=object_id)
        for _ in range(AVAILABLE_TRIES):
            found = flower.PullObjectResponse()
            found.ParseFromString(await self.ask("pull-object", request, headers))
            if found.object_available:
                return found.object_content
            if not found.object_found:
                break
            await asyncio.sleep(AVAILABLE_S)
        raise RefusedError("pull-object", 404)
