"""The bytes of a run's messages, summed by what they are: kind, use and node."""

from collections.abc import Iterable, Mapping, Sequence

from fed_ist.runs.tables import REQUIRED_LEDGER_COLUMNS, Row
from fed_ist.traffic.ledger import DIRECTIONS

MESSAGE_BYTES = ("payload_bytes", "message_bytes")
# What bytes are used for: kind and direction of messages -> the use of their arrays.
USES = {
    ("train", "down"): "classifier to the node",
    ("train", "up"): "classifier from the node",
    ("statistics", "down"): "statistics",
    ("statistics", "up"): "statistics",
}
OTHER_ARRAYS = "other arrays"
AROUND, PACKETS = "names and shapes around them", "requests, packets and encryption"


def bytes_by_kind(ledger: Sequence[Row]) -> list[Row]:
    """A row of bytes for each kind of message and direction, in the order of the first message."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in ledger:
        groups.setdefault((str(row["kind"]), str(row["direction"])), []).append(row)
    return [
        {"kind": kind, "direction": direction, "messages": len(rows), **_sum_bytes(rows)}
        for (kind, direction), rows in groups.items()
    ]


def bytes_by_use(ledger: Sequence[Row], n_nodes: int) -> list[Row]:
    """A row for each use of bytes on a node's link, both ways, the mean of all nodes.

    The arrays of messages by `USES`, what messages hold around them, and what links carry around
    messages, where the ledger tells it.
    """
    uses = dict.fromkeys((*USES.values(), OTHER_ARRAYS, AROUND, PACKETS), 0.0)
    for row in ledger:
        payload, message = numbers([row], "payload_bytes"), numbers([row], "message_bytes")
        uses[USES.get((str(row["kind"]), str(row["direction"])), OTHER_ARRAYS)] += sum(payload)
        uses[AROUND] += sum(message) - sum(payload)
        on_link = numbers([row], "link_bytes_down") + numbers([row], "link_bytes_up")
        uses[PACKETS] += sum(on_link) - sum(message) if on_link else 0
    return [{"use": use, "bytes": round(sum_ / n_nodes)} for use, sum_ in uses.items() if sum_]


def bytes_by_node(ledger: Sequence[Row]) -> list[Row]:
    """The bytes of each node, a row for each in the order of names.

    A row has the bytes down and up, and the ratio of messages to payload, both ways together.
    """
    groups: dict[str, list[Row]] = {}
    for row in ledger:
        groups.setdefault(str(row["node"]), []).append(row)
    found = []
    for node, rows in sorted(groups.items(), key=lambda item: (len(item[0]), item[0])):
        sums = _sum_bytes(rows)
        ratio = sums.pop("message_to_payload")
        cells: Row = {"node": node, "messages": len(rows)}
        for direction in DIRECTIONS:
            one_way = _sum_bytes([row for row in rows if row["direction"] == direction])
            cells |= {
                f"{name}_{direction}": one_way[name] for name in sums if name in MESSAGE_BYTES
            }
        # A message takes link bytes both ways, so the names of these columns have the direction.
        cells |= {name: value for name, value in sums.items() if name not in MESSAGE_BYTES}
        found.append({**cells, "message_to_payload": ratio})
    return found


def _sum_bytes(rows: Sequence[Row]) -> Row:
    """The sums of all columns of bytes, and the ratio of messages to payload."""
    known = set(MESSAGE_BYTES)
    names = dict.fromkeys(
        name for row in rows for name in row if name not in REQUIRED_LEDGER_COLUMNS
    )
    more = [name for name in names if "bytes" in name]
    sums: Row = {name: sum(numbers(rows, name)) for name in (*sorted(known)[::-1], *more)}
    payload, message = sums["payload_bytes"], sums["message_bytes"]
    assert isinstance(payload, int | float) and isinstance(message, int | float)
    sums["message_to_payload"] = round(message / payload, 4) if payload else None
    return sums


def numbers(rows: Iterable[Mapping[str, object]], name: str) -> list[int | float]:
    """The numbers in a column; cells that are no numbers are left out."""
    found = (row.get(name) for row in rows)
    return [value for value in found if isinstance(value, int | float)]
