"""Which keys are registered, according to the SuperLink's own database.

The database is asked each time, so a key counts from when it is registered until it is taken out.
The table is Flower's (flwr 1.42, server/superlink/linkstate/sql_linkstate.py).
"""

from pathlib import Path

from fed_ist.deploy.state_database import StateDatabase

QUERY = "SELECT 1 FROM node WHERE public_key = ? AND status != 'unregistered'"


class RegisteredKeys:
    """The registered keys in a SuperLink's database, which the SuperLink writes to meanwhile."""

    def __init__(self, database: Path) -> None:
        self._database = StateDatabase(database)

    def knows(self, public_key: bytes) -> bool:
        """Whether a key, in PEM, is registered.

        Raises `OSError` or `sqlite3.Error` where there is no database, or it is not Flower's.
        """
        return bool(self._database.ask(QUERY, public_key))

    def close(self) -> None:
        """Close the database."""
        self._database.close()
