"""TLS that resumes: a connection after a cut does without the server's certificate."""

import ssl
from pathlib import Path
from typing import Any


class ResumingContext(ssl.SSLContext):
    """A client's context that begins each connection with the session that was noted last.

    asyncio has no parameter for a session, so it is added where asyncio wraps the connection.
    """

    noted: ssl.SSLSession | None = None

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """As that of `ssl.SSLContext`, with the noted session."""
        return super().wrap_bio(*args, **kwargs | {"session": self.noted})

    def note(self, connection: Any) -> None:
        """Note the session of an asyncio transport, once something has been read from it."""
        found = connection.get_extra_info("ssl_object")
        if found is not None and found.session is not None:
            self.noted = found.session


def client_context(authority: Path | None) -> ResumingContext:
    """TLS that trusts an authority; None for those of the system. Raises `OSError`."""
    context = ResumingContext(ssl.PROTOCOL_TLS_CLIENT)
    if authority is None:
        context.load_default_certs()
    else:
        context.load_verify_locations(authority)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
