"""The byte ledger: one line for every message, written as it happens."""

import csv
import io
from collections import Counter
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from fed_ist.files.growing_csv import GrowingTable, Row
from fed_ist.files.seals import Seal

DIRECTIONS = ("down", "up")


@dataclass(frozen=True)
class Transfer:
    """One message between the server and a node.

    direction: "down" to the node, "up" to the server.
    kind: "prepare", "statistics", "train" or "error"; "unknown" for a reply nobody asked for.
    payload_bytes: of the arrays alone. message_bytes: of the serialised Flower message.
    n_objects: the number of objects in which Flower sends it, each with a request of its own.
    link_bytes_down, link_bytes_up: the bytes of IP packets towards the node and from it, as
        `fed_ist.traffic.packets` estimates them for a deployed node with TLS; also in a simulation.
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


COLUMNS = [field.name for field in fields(Transfer)]
TEXTS = ("node", "direction", "kind")


class Ledger:
    """The table of all transfers of a run, and their sums.

    payload_bytes, message_bytes, link_bytes: "down" and "up" -> bytes so far.
    bytes_of_node: node -> bytes of messages so far, both ways.
    """

    def __init__(self, path: Path) -> None:
        self._table = GrowingTable(path, COLUMNS)
        self._start_sums()

    @classmethod
    def reopen(cls, path: Path, data: bytes, seal: Seal) -> "Ledger":
        """Go on with the ledger of a run that was cut.

        data: what the file holds. seal: of the lines up to the last checkpoint. Lines after it are
        kept up to the first that is not whole, since their messages have been sent.
        """
        known = data[: seal.n_bytes].decode()
        sealed_round = max((int(row["round"]) for row in _lines(known)), default=0)

        def is_kept(row: Row) -> bool:
            found = _parse(row)
            return found is not None and may_follow(found.round, found.kind, sealed_round)

        ledger = cls.__new__(cls)
        ledger._table, rows = GrowingTable.reopen(path, data, COLUMNS, seal, is_kept)
        ledger._start_sums()
        for transfer in map(_parse, rows):
            assert transfer is not None
            ledger._sum(transfer)
        return ledger

    @property
    def seal(self) -> Seal:
        """The length and checksum of all that was written."""
        return self._table.seal

    def _start_sums(self) -> None:
        self.payload_bytes = dict.fromkeys(DIRECTIONS, 0)
        self.message_bytes = dict.fromkeys(DIRECTIONS, 0)
        self.link_bytes = dict.fromkeys(DIRECTIONS, 0)
        self.bytes_of_node: Counter[str] = Counter()

    def add(self, transfer: Transfer) -> None:
        """Write a transfer, and add it to the sums."""
        self._table.add(asdict(transfer))
        self._sum(transfer)

    def _sum(self, transfer: Transfer) -> None:
        self.payload_bytes[transfer.direction] += transfer.payload_bytes
        self.message_bytes[transfer.direction] += transfer.message_bytes
        self.link_bytes["down"] += transfer.link_bytes_down
        self.link_bytes["up"] += transfer.link_bytes_up
        self.bytes_of_node[transfer.node] += transfer.message_bytes

    def settle(self) -> None:
        """Wait until all lines are on the disk."""
        self._table.settle()

    def close(self) -> None:
        """Close the file."""
        self._table.close()


def may_follow(number: int, kind: str, sealed_round: int) -> bool:
    """Whether a message of round `number` can come after round `sealed_round` is complete.

    That can be any message of a later round, and one of the same round that is not for training:
    where a run is resumed, nodes are prepared again.
    """
    return number > sealed_round or (number == sealed_round and kind != "train")


def _lines(text: str) -> "csv.DictReader[str]":
    return csv.DictReader(io.StringIO(text, newline=""))


def _parse(row: Row) -> Transfer | None:
    """The transfer of a row; None where the row is not one of a transfer."""
    texts = {name: row[name] for name in TEXTS}
    try:
        numbers = {name: int(row[name]) for name in COLUMNS if name not in TEXTS}
        return Transfer(**numbers, **texts)  # type: ignore[arg-type]
    except (ValueError, AssertionError):
        return None
