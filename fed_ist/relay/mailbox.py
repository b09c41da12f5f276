"""For which nodes messages wait, according to the SuperLink's own database.

One question a second for all nodes, where SuperNodes ask the SuperLink each three seconds for each
node. The tables are Flower's (flwr 1.42, supercore/state/schema/linkstate_models.py).
"""

import time
from pathlib import Path

from fed_ist.deploy.state_database import StateDatabase

WAITING = (
    "SELECT DISTINCT dst_node_id FROM message_ins WHERE delivered_at = '' AND created_at + ttl > ?"
)
NODE = "SELECT node_id FROM node WHERE public_key = ? AND status != 'unregistered'"


class Mailbox:
    """What waits in a SuperLink's database, which the SuperLink writes to meanwhile.

    Its methods raise `OSError` or `sqlite3.Error` where there is no database, or it is not
    Flower's.
    """

    def __init__(self, database: Path) -> None:
        self._database = StateDatabase(database)

    def waiting(self) -> set[int]:
        """The numbers of the nodes that have a message to fetch."""
        return {_unsigned(node_id) for (node_id,) in self._database.ask(WAITING, time.time())}

    def node_id(self, public_key: bytes) -> int | None:
        """The number of the node with this key, in PEM; None where it is not registered."""
        rows = self._database.ask(NODE, public_key)
        return _unsigned(rows[0][0]) if rows else None


def _unsigned(number: int) -> int:
    """SQLite has no unsigned numbers, and Flower stores them as signed ones."""
    return number % 2**64
