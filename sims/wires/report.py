"""The report of `fed-ist bench wire`: estimates, and what was counted and timed."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from fed_ist.files.atomic import write_atomic
from fed_ist.runs.reading import open_run
from fed_ist.traffic.links import Link, round_s
from fed_ist.traffic.packets import NOTHING, LinkBytes, bytes_of_waiting
from fed_ist.words import csv_text
from sims.wires.exchanges import Exchange
from sims.wires.namespaces import Counters

HEADER = (
    f"{'round':>5} {'node':>4}  {'payload down':>13} {'up':>11}  {'message down':>13} {'up':>11}  "
    f"{'link down':>11} {'up':>11}  {'counted down':>13} {'up':>11}  overhead"
)


def render_idle(found: Sequence[Counters], seconds: float, *, tls: bool) -> str:
    """The bytes of a node that only waits, in an hour: measured and estimated.

    found: what crossed each node's wire in `seconds`.
    """
    estimate = bytes_of_waiting(3600, tls=tls)
    return "\n".join(
        f"waiting, node {node}: {counters.bytes_down * 3600 / seconds:,.0f} B an hour down and "
        f"{counters.bytes_up * 3600 / seconds:,.0f} up, counted over {seconds:.0f} s; estimated "
        f"{estimate.down:,} and {estimate.up:,}"
        for node, counters in enumerate(found)
    )


def render_run(n_bytes: int, found: Sequence[Exchange], start: LinkBytes) -> str:
    """The table of a run, and how far the ledger's estimate is from the counters.

    n_bytes: of a slice, about. start: what a node is estimated to fetch once.
    """
    trained = [exchange for exchange in found if exchange.round > 0]
    link, counted = total(trained, "link"), total(trained, "counted")
    return "\n".join(
        [
            f"\nslices of about {n_bytes:,} B; link: the ledger's estimate; counted: without polls",
            HEADER,
            *(render_line(exchange) for exchange in trained),
            f"the estimate against the counters, all rounds: {link.down / counted.down - 1:+.1%} "
            f"down, {link.up / counted.up - 1:+.1%} up, {difference(found):+.1%} both",
            *(render_start(exchange, start) for exchange in found if exchange.round == 0),
        ]
    )


def render_start(first: Exchange, start: LinkBytes) -> str:
    """What a node fetched once, by what was counted until its first reply, and its estimate."""
    down, up = first.counted.down - first.link.down, first.counted.up - first.link.up
    return (
        f"start of the run, node {first.node}: {down:,} B down and {up:,} up counted, without its "
        f"first message; estimated {start.down:,} and {start.up:,}"
    )


def total(exchanges: Sequence[Exchange], what: str) -> LinkBytes:
    """The sum of a field over all exchanges."""
    return sum((getattr(exchange, what) for exchange in exchanges), NOTHING)


def difference(found: Sequence[Exchange]) -> float:
    """How far the ledger's estimate is above the counters, as a share, over all rounds."""
    trained = [exchange for exchange in found if exchange.round > 0]
    link, counted = total(trained, "link"), total(trained, "counted")
    return (link.down + link.up) / (counted.down + counted.up) - 1


def render_line(exchange: Exchange) -> str:
    """A line of the table, under `HEADER`."""
    payload, counted = exchange.payload, exchange.counted
    overhead = (counted.down + counted.up) / (payload.down + payload.up)
    return (
        f"{exchange.round:5} {exchange.node:4}  {payload.down:13,} {payload.up:11,}  "
        f"{exchange.message.down:13,} {exchange.message.up:11,}  "
        f"{exchange.link.down:11,} {exchange.link.up:11,}  "
        f"{counted.down:13,} {counted.up:11,}  {overhead:7.3f}x"
    )


def render_times(link: Link, run: Path, found: Sequence[Exchange]) -> str:
    """Seconds of each round, measured and predicted, and how much the two differ on average."""
    measured = {row["round"]: float(str(row["seconds"])) for row in open_run(run).rounds}
    predicted = predict_rounds(link, found)
    lines = [
        f"round {number}: {measured[number]:.1f} s, predicted {seconds:.1f} s"
        for number, seconds in predicted.items()
    ]
    mean_s = sum(measured[number] for number in predicted) / len(predicted)
    mean_predicted_s = sum(predicted.values()) / len(predicted)
    return "\n".join(
        [
            *lines,
            f"rounds on average: {mean_s:.1f} s, predicted {mean_predicted_s:.1f} s "
            f"({mean_predicted_s / mean_s - 1:+.1%})",
        ]
    )


def predict_rounds(link: Link, found: Sequence[Exchange]) -> dict[int, float]:
    """The predicted seconds of each round of training, those of its slowest node."""
    predicted: dict[int, float] = {}
    for exchange in found:
        if exchange.round > 0:
            seconds = round_s(link, exchange.link, exchange.n_round_trips, exchange.compute_s)
            predicted[exchange.round] = max(seconds, predicted.get(exchange.round, 0.0))
    return predicted


def write_table(path: Path, measured: Sequence[tuple[int, Exchange]]) -> None:
    """Write a CSV file with a line for each exchange. measured: (bytes of a slice, exchange)."""
    rows = []
    for n_bytes, exchange in measured:
        row: dict[str, object] = {"slice_bytes": n_bytes}
        for key, value in asdict(exchange).items():
            if isinstance(value, dict):
                row |= {f"{key}_{way}": number for way, number in value.items()}
            else:
                row[key] = round(value, 3)
        rows.append(row)
    write_atomic(path, csv_text(rows[0], rows).encode())
