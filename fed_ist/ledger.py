"""The byte ledger: one line for every message, written as it happens."""

import csv
from dataclasses import asdict, dataclass, fields
from pathlib import Path

DIRECTIONS = ("down", "up")


@dataclass(frozen=True)
class Transfer:
    """One message between the server and a node.

    direction: "down" to the node, "up" to the server.
    kind: "prepare", "statistics", "train" or "error".
    payload_bytes: the arrays alone. message_bytes: the Flower message as serialised.
    n_objects: which Flower sends it as, each with a request of its own.
    link_bytes_down, link_bytes_up: IP packets that it takes towards the node and from it, as
        `fed_ist.link_bytes` estimates them for a deployed node with TLS; also in a simulation.
    """

    round: int
    node: str
    direction: str
    kind: str
    payload_bytes: int
    message_bytes: int
    n_objects: int
    link_bytes_down: int
    link_bytes_up: int

    def __post_init__(self) -> None:
        assert self.direction in DIRECTIONS
        assert 0 <= self.payload_bytes <= self.message_bytes


class Ledger:
    """Appends to a CSV file and keeps the sums; a line is flushed when it is added."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("x", newline="")
        self._writer = csv.DictWriter(self._file, [field.name for field in fields(Transfer)])
        self._writer.writeheader()
        self.payload_bytes = dict.fromkeys(DIRECTIONS, 0)
        self.message_bytes = dict.fromkeys(DIRECTIONS, 0)
        self.link_bytes = dict.fromkeys(DIRECTIONS, 0)

    def add(self, transfer: Transfer) -> None:
        self._writer.writerow(asdict(transfer))
        self._file.flush()
        self.payload_bytes[transfer.direction] += transfer.payload_bytes
        self.message_bytes[transfer.direction] += transfer.message_bytes
        self.link_bytes["down"] += transfer.link_bytes_down
        self.link_bytes["up"] += transfer.link_bytes_up

    def close(self) -> None:
        self._file.close()
