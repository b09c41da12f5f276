"""Plans as tables, for a terminal and in Markdown, and as files."""

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fed_ist.files.atomic import write_atomic
from fed_ist.planning.plan import Cost, Plan
from fed_ist.planning.ways import UPLOAD_ROUND_TRIPS, Way
from fed_ist.printable import printable
from fed_ist.runs.tables import CellValue
from fed_ist.training.boards import POWER_W
from fed_ist.words import (
    TERMINAL,
    bullets,
    csv_text,
    plain_table,
    readable_bytes,
    readable_seconds,
    table,
)

HEADER = (
    *("way", "from", "to the node", "from the node"),
    *("encoding (h)", "training (h)", "link (h)", "in all (h)"),
    *("encoding (J)", "training (J)", "radio (J)", "in all (J)"),
)
SHORT = ("way", "from", "to the node", "from it", "link", "in all", "joules")
BYTES = ("bytes_down", "bytes_up")
SECONDS = ("encode_s", "train_s", "link_s", "total_s")
JOULES = ("encode_j", "train_j", "radio_j", "total_j")


def render_plans(plans: Sequence[Plan]) -> str:
    """Plans of the same runs as Markdown: a table for each link, then notes on all of them."""
    blocks = []
    for plan in plans:
        blocks += [
            f"## {100 * plan.accuracy:.1f}% on {plan.link.name}, {plan.question.device}",
            table(HEADER, (plan_row(way, cost) for way, cost in plan.ways)),
            bullets(map(printable, _link_notes(plan))),
        ]
    return "\n\n".join([*blocks, "## How to read this", bullets(map(printable, _notes(plans[0])))])


def show_plans(plans: Sequence[Plan]) -> str:
    """Plans of the same runs for a terminal: a table for each link, then notes on all of them."""
    blocks = []
    for plan in plans:
        blocks += [
            f"{100 * plan.accuracy:.1f}% on {plan.link.name}, {plan.question.device}\n"
            + plain_table(SHORT, (_short_row(way, cost) for way, cost in plan.ways)),
            _wrapped(_link_notes(plan)),
        ]
    return "\n\n".join([*blocks, "How to read this", _wrapped(_notes(plans[0]))])


def _short_row(way: Way, cost: Cost | None) -> tuple[str, ...]:
    """The cells of a way under `SHORT`; "-" where a figure is not known or not reached."""
    origin = printable(way.run) if way.run else "computed"
    if way.round is not None:
        origin += f", round {way.round}"
    if way.demand is None or cost is None:
        return (printable(way.name), f"{origin}, not reached", *["-"] * (len(SHORT) - 2))
    return (
        printable(way.name),
        origin,
        *(readable_bytes(getattr(way.demand, key)) for key in BYTES),
        *map(readable_seconds, (cost.link_s, cost.total_s)),
        "-" if cost.total_j is None else _digits(cost.total_j),
    )


def _wrapped(sentences: Sequence[str]) -> str:
    """A list whose lines fit a terminal."""
    return "\n".join(
        textwrap.fill(printable(text), TERMINAL, initial_indent="- ", subsequent_indent="  ")
        for text in sentences
    )


def write_plans(plans: Sequence[Plan], folder: Path) -> None:
    """Write plan.csv, a line for each link and way, and plan.json, which also has the notes."""
    rows = [
        {"link": plan.link.name, **_record(way, cost)} for plan in plans for way, cost in plan.ways
    ]
    write_atomic(folder / "plan.csv", csv_text(rows[0], rows).encode())
    data = json.dumps(plan_data(plans), indent=1)
    write_atomic(folder / "plan.json", f"{data}\n".encode())


def plan_data(plans: Sequence[Plan]) -> dict[str, Any]:
    """The content of plan.json: the ways on each link, and notes on all of them."""
    first = plans[0]
    return {
        "accuracy": first.accuracy,
        "device": first.question.device,
        "images_per_s": first.images_per_s,
        "nodes": first.n_nodes,
        "notes": _notes(first),
        "links": {
            plan.link.name: {
                "notes": _link_notes(plan),
                "ways": [_record(way, cost) for way, cost in plan.ways],
            }
            for plan in plans
        },
    }


def _record(way: Way, cost: Cost | None) -> dict[str, CellValue]:
    """One way as files hold it. reached: None where that is assumed, as for computed ways."""
    return {
        "way": way.name,
        "run": way.run,
        "reached": way.demand is not None if way.run else None,
        "round": way.round,
        **{key: getattr(way.demand, key, None) for key in BYTES},
        **{key: getattr(cost, key, None) for key in (*SECONDS, *JOULES)},
        "note": way.note,
    }


def plan_row(way: Way, cost: Cost | None) -> tuple[str, ...]:
    """The cells of a way under `HEADER`; figures are empty where the accuracy is not reached."""
    origin = f"run {printable(way.run)}" if way.run else "computed"
    if way.round is not None:
        origin += f", round {way.round}"
    if way.demand is None or cost is None:
        return (printable(way.name), f"{origin}, not reached", *[""] * (len(HEADER) - 2))
    joules = (getattr(cost, key) for key in JOULES)
    return (
        printable(way.name),
        origin,
        *(readable_bytes(getattr(way.demand, key)) for key in BYTES),
        *(_digits(getattr(cost, key) / 3600) for key in SECONDS),
        *("not published" if value is None else _digits(value) for value in joules),
    )


def _link_notes(plan: Plan) -> list[str]:
    link = plan.link
    lost = f", {100 * link.loss:g}% of the packets lost and sent again" if link.loss else ""
    notes = [
        f"{link.name}: {link.down_bps:,.0f} bit/s to the node, {link.up_bps:,.0f} from it, "
        f"{link.latency_s:g} s one way{lost}."
    ]
    if link.duty_cycle is not None:
        notes.append(
            f"A node may send for {100 * link.duty_cycle:g}% of the time; the pauses count as link."
        )
    if link.quota_bytes is not None:
        notes.append(f"A month's quota, both ways: {readable_bytes(link.quota_bytes)}.")
    if link.note:
        notes.append(f"{link.name}: {link.note}.")
    if link.down_j_per_byte is None or link.up_j_per_byte is None:
        notes.append(f"What a radio of {link.name} uses for a byte is not published.")
    return notes


def _notes(plan: Plan) -> list[str]:
    """Sentences that hold on every link."""
    asked, power_w = plan.question, POWER_W[plan.question.device]
    sizes = "on the link, as their ledgers estimate them" if plan.link_bytes else "of messages"
    speed = "as given" if asked.images_per_s else "by its multiply-adds in float32"
    names = [way.name for way, _ in plan.ways]
    told_apart = [
        (f"{way.name} ({way.run})" if names.count(way.name) > 1 else way.name, way.note)
        for way, _ in plan.ways
    ]
    return [
        f"All figures are of one of {plan.n_nodes} nodes, the mean. Runs count until their first "
        f"evaluation at {100 * plan.accuracy:.1f}%, what was sent before the first round included; "
        f"their bytes are {sizes}. Computed ones are without headers of any protocol.",
        f"Link: the bytes at its rates, and {asked.n_round_trips:g} round trips for a request with "
        f"its reply, {UPLOAD_ROUND_TRIPS} for an upload.",
        f"Device {asked.device}, rough: it encodes {plan.images_per_s:.3g} images a second, "
        f"{speed}, and takes {power_w:g} W while it encodes or trains.",
        "Left out: waiting and idling, reading and masking images, computing statistics.",
        *(f"{name}: {note}" for name, note in told_apart if note),
        *plan.left_out,
    ]


def _digits(value: float) -> str:
    """The number with three digits, or with all digits before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
