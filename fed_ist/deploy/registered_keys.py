"""Which keys are registered, according to the SuperLink's own database.

The database is asked each time, so a key counts from when it is registered until it is taken out.
The table is Flower's (flwr 1.42, server/superlink/linkstate/sql_linkstate.py).
"""

import sqlite3
from contextlib import suppress
from pathlib import Path

QUERY = "SELECT 1 FROM node WHERE public_key = ? AND status != 'unregistered'"
WAIT_S = 0.2  # how long to wait for the database, which keeps all requests waiting


class RegisteredKeys:
    """The registered keys in a SuperLink's database, which the SuperLink writes to meanwhile."""

    def __init__(self, database: Path) -> None:
        self.database = database
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None

    def knows(self, public_key: bytes) -> bool:
        """Whether a key, in PEM, is registered.

        Raises `OSError` or `sqlite3.Error` where there is no database, or it is not Flower's.
        """
        try:
            return self._connected().execute(QUERY, (public_key,)).fetchone() is not None
        except sqlite3.Error:
            self.close()  # the next time it is opened anew
            raise

    def close(self) -> None:
        """Close the database."""
        if self._connection:
            with suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None

    def _connected(self) -> sqlite3.Connection:
        found = self.database.stat()
        file = (found.st_dev, found.st_ino)  # differs once another file has taken its place
        if self._connection is None or file != self._file:
            self.close()
            self._connection = sqlite3.connect(
                f"{self.database.absolute().as_uri()}?mode=rw",
                uri=True,
                timeout=WAIT_S,
                isolation_level=None,
            )
            # Not mode=ro: to read a write-ahead log, SQLite has to make a file where there is none.
            self._connection.execute("PRAGMA query_only = 1")
            self._file = file
        return self._connection
