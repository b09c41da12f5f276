"""Which keys are registered, by the SuperLink's own database.

It is asked each time, so that a key counts from when it is registered until it is taken out. The
table is Flower's (flwr 1.42, server/superlink/linkstate/sql_linkstate.py).
"""

import sqlite3
from contextlib import suppress
from pathlib import Path

QUERY = "SELECT 1 FROM node WHERE public_key = ? AND status != 'unregistered'"
WAIT_S = 0.2  # for the database, while all who ask are kept waiting


class RegisteredKeys:
    """The registered keys of a SuperLink's database, which it goes on writing to meanwhile."""

    def __init__(self, database: Path) -> None:
        self.database = database
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None

    def knows(self, public_key: bytes) -> bool:
        """Whether a key in PEM is registered.

        Raises `OSError` or `sqlite3.Error` where the database is not there, or none of Flower's.
        """
        try:
            return self._connected().execute(QUERY, (public_key,)).fetchone() is not None
        except sqlite3.Error:
            self.close()  # the next time it is opened anew
            raise

    def close(self) -> None:
        """Let go of the database."""
        if self._connection:
            with suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None

    def _connected(self) -> sqlite3.Connection:
        found = self.database.stat()
        file = (found.st_dev, found.st_ino)  # of another file, once it was moved away
        if self._connection is None or file != self._file:
            self.close()
            self._connection = sqlite3.connect(
                f"{self.database.absolute().as_uri()}?mode=rw",
                uri=True,
                timeout=WAIT_S,
                isolation_level=None,
            )
            # Not mode=ro: what reads a write-ahead log has to make a file where there is none.
            self._connection.execute("PRAGMA query_only = 1")
            self._file = file
        return self._connection
