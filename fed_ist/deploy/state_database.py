"""Asks the SuperLink's own database, while the SuperLink writes to it."""

import sqlite3
from contextlib import suppress
from pathlib import Path

WAIT_S = 0.2  # how long to wait for the database, which keeps all requests waiting


class StateDatabase:
    """A SuperLink's database, which may appear later, and may be another one the next time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None

    def ask(self, question: str, *values: object) -> list[tuple[int]]:
        """The rows, of one whole number each, that answer a question in SQL.

        Raises `OSError` or `sqlite3.Error` where there is no database, or it is not Flower's.
        """
        try:
            return self._connected().execute(question, values).fetchall()
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
        found = self.path.stat()
        file = (found.st_dev, found.st_ino)  # differs once another file has taken its place
        if self._connection is None or file != self._file:
            self.close()
            self._connection = sqlite3.connect(
                f"{self.path.absolute().as_uri()}?mode=rw",
                uri=True,
                timeout=WAIT_S,
                isolation_level=None,
            )
            # Not mode=ro: to read a write-ahead log, SQLite has to make a file where there is none.
            self._connection.execute("PRAGMA query_only = 1")
            self._file = file
        return self._connection
