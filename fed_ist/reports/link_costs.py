"""What a run's messages would take on other links, computed from the run's ledger."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fed_ist.errors import InputError
from fed_ist.files.atomic import write_atomic
from fed_ist.runs.reading import RunFiles
from fed_ist.runs.tables import Row
from fed_ist.traffic.links import Link, air_s, joules, quota_share, round_s
from fed_ist.traffic.packets import NOTHING, LinkBytes, round_trips
from fed_ist.words import csv_text

COLUMNS = (
    *("link", "round", "node", "link_bytes_down", "link_bytes_up"),
    *("air_s", "round_s", "joules", "quota_share"),
)
SUMMED = COLUMNS[3:]


@dataclass(frozen=True)
class NodeRound:
    """What one node was sent and has sent in one round.

    n_round_trips: how often one side waited for the other.
    """

    round: int
    node: str
    sent: LinkBytes
    n_round_trips: int


def sum_node_rounds(run: RunFiles) -> list[NodeRound]:
    """The ledger of a run summed by round and node.

    Raises `InputError` where there is no ledger, or it is too old to tell.
    """
    if not run.has_ledger:
        raise InputError(f"'{run.path}' is no run: it has no ledger.csv. Give results/<run>.")
    sent: dict[tuple[int, str], LinkBytes] = {}
    trips: dict[tuple[int, str], int] = {}
    for line in run.ledger:
        key = (_number(line, "round", run.path), str(line["node"]))
        both = LinkBytes(
            _number(line, "link_bytes_down", run.path), _number(line, "link_bytes_up", run.path)
        )
        sent[key] = sent.get(key, NOTHING) + both
        n_objects = _number(line, "n_objects", run.path)
        trips[key] = trips.get(key, 0) + round_trips(str(line["direction"]), n_objects)
    if not sent:
        raise InputError(
            f"The ledger of '{run.path}' has no messages yet. Wait for its first round."
        )
    return [NodeRound(*key, sent[key], trips[key]) for key in sorted(sent)]


def _number(line: Row, column: str, run: Path) -> int:
    value = line.get(column)
    if not isinstance(value, int):
        raise InputError(
            f"The ledger of '{run}' lacks '{column}': the run is of an earlier version. Run it "
            "again."
        )
    return value


def cost_rows(
    link: Link, node_rounds: Sequence[NodeRound], compute_s: float
) -> list[dict[str, Any]]:
    """The costs of a link: a row with `COLUMNS` for each round and node.

    A cost is None where nobody has published the figure, or nothing limits it. compute_s: the
    seconds that a node computes in a round.
    """
    return [
        {
            "link": link.name,
            "round": item.round,
            "node": item.node,
            "link_bytes_down": item.sent.down,
            "link_bytes_up": item.sent.up,
            "air_s": air_s(link, item.sent),
            "round_s": round_s(link, item.sent, item.n_round_trips, compute_s),
            "joules": joules(link, item.sent),
            "quota_share": quota_share(link, item.sent),
        }
        for item in node_rounds
    ]


def total_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The sums of each node over its rounds, a row for each node; None where a summand is None."""
    totals: dict[str, dict[str, Any]] = {}
    for row in rows:
        total = totals.setdefault(row["node"], {**row, "round": "all"} | dict.fromkeys(SUMMED, 0))
        for column in SUMMED:
            unknown = row[column] is None or total[column] is None
            total[column] = None if unknown else total[column] + row[column]
    return list(totals.values())


def mean_node_round(node_rounds: Sequence[NodeRound]) -> NodeRound:
    """The mean over what each node does in each round.

    What was sent before the first round is left out, unless there is nothing else.
    """
    counted = [item for item in node_rounds if item.round > 0] or list(node_rounds)
    total = sum((item.sent for item in counted), NOTHING)
    n = len(counted)
    trips = sum(item.n_round_trips for item in counted)
    sent = LinkBytes(round(total.down / n), round(total.up / n))
    return NodeRound(0, "mean", sent, round(trips / n))


def render_costs(rows: Sequence[Mapping[str, Any]], first: str) -> list[str]:
    """Costs as lines of a table. first: the column that tells rows apart, `link` or `node`."""
    width = max(len(first), *(len(str(row[first])) for row in rows))
    lines = [
        f"{'round':>5}  {first:{width}}  {'link B down':>12} {'up':>12}  {'air s':>9}  "
        f"{'round s':>9}  {'joules':>8}  {'of quota':>9}"
    ]
    for row in rows:
        lines.append(
            f"{row['round']!s:>5}  {row[first]!s:{width}}  {row['link_bytes_down']:12,} "
            f"{row['link_bytes_up']:12,}  {row['air_s']:9,.2f}  {row['round_s']:9,.2f}  "
            f"{_shown(row['joules'], '8.3g')}  {_shown(row['quota_share'], '9.3%')}"
        )
    return lines


def _shown(value: object, how: str) -> str:
    return f"{'-':>{how.partition('.')[0]}}" if value is None else f"{value:{how}}"


def write_costs(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write costs to a CSV file."""
    write_atomic(path, csv_text(COLUMNS, rows).encode())
