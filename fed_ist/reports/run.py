"""The data of a report on runs: report.json, with each number that the page shows.

Bytes are those of messages as serialised, unless a name says payload, which is the arrays alone.
Bytes of a node are the mean of all nodes, both ways.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fed_ist.config.toml import kebab
from fed_ist.errors import InputError
from fed_ist.files.atomic import write_atomic
from fed_ist.files.paths import require_writable
from fed_ist.reports.link_costs import cost_rows, sum_node_rounds, total_rows
from fed_ist.reports.page import Data, Page, render_html
from fed_ist.reports.run_sections import build_sections
from fed_ist.runs.reading import RunFiles, read_run
from fed_ist.runs.tables import REQUIRED_LEDGER_COLUMNS, Row
from fed_ist.traffic.ledger import DIRECTIONS
from fed_ist.traffic.links import Link, read_links
from fed_ist.traffic.packets import bytes_of_waiting
from fed_ist.words import csv_text

if TYPE_CHECKING:
    from fed_ist.planning.plan import Question

# Settings that do not count as a difference between runs: they say where a run is kept.
PLACES = ("name", "results-dir", "cache-dir")
MESSAGE_BYTES = ("payload_bytes", "message_bytes")
ON_LINKS = ("link_bytes_down", "link_bytes_up", "air_s", "joules", "quota_share")


def write_run_report(
    paths: Sequence[Path],
    out: Path | None,
    question: "Question | None" = None,
    links: Sequence[Link] = (),
) -> Path:
    """Write report.html and report.json of runs and, for several runs, rounds.csv of all of them.

    out: a folder; None for the folder of the only run, whose own rounds.csv stays. question: what
    to plan for on these links; None for no plan (see `fed_ist.planning.plan`). Returns the path of
    the page. Raises `InputError` for a folder that is no run, is damaged, or cannot be written to.
    """
    runs = [read_run(path) for path in dict.fromkeys(path.resolve() for path in paths)]
    if out is None and len(runs) > 1:
        raise InputError("Several runs side by side need a folder of their own: add --out FOLDER.")
    folder = out.resolve() if out else runs[0].path
    data = collect(runs)
    if question:
        data["plan"] = plan_runs(runs, question, links)
    if folder != runs[0].path or len(runs) > 1:
        table = folder / "rounds.csv"
        if table.exists() and not table.read_bytes().startswith(b"run,"):
            raise InputError(
                f"--out '{folder}' holds a rounds.csv that is no report's, and no run is ever "
                "overwritten. Choose another folder."
            )
        require_writable(folder, "--out")
        write_atomic(table, render_rounds(data).encode())
    else:
        require_writable(folder, "RUN")
    text = json.dumps(data, indent=2, allow_nan=False)
    write_atomic(folder / "report.json", f"{text}\n".encode())
    title = data["runs"][0]["name"] if len(runs) == 1 else f"{len(runs)} runs"
    page = Page(f"fed-ist: {title}", tuple(build_sections(data)), data=data)
    write_atomic(folder / "report.html", render_html(page).encode())
    return folder / "report.html"


def collect(runs: Sequence[RunFiles]) -> Data:
    """The content of report.json.

    runs: each as `collect_run` gives it. waiting: the bytes of a node on its link in an hour
    without messages. differing: the settings in which the runs differ, except those in `PLACES`.
    """
    hour = bytes_of_waiting(3600)
    names = [run.path.name for run in runs]
    labels = [
        name if names.count(name) == 1 else str(run.path)
        for name, run in zip(names, runs, strict=True)
    ]
    return {
        "runs": [collect_run(run, label) for run, label in zip(runs, labels, strict=True)],
        "waiting": {"link_bytes_down": hour.down, "link_bytes_up": hour.up},
        "differing": [
            key
            for key in dict.fromkeys(key for run in runs for key in run.settings)
            if key not in PLACES and len({repr(run.settings.get(key)) for run in runs}) > 1
        ],
    }


def collect_run(run: RunFiles, name: str) -> Data:
    """One run of report.json.

    It has the name, path, is_finished, notes, command, figures, settings, images, rounds, and bytes
    by kind, by node and on links.
    """
    nodes = bytes_by_node(run.ledger)
    return {
        "name": name,
        "path": str(run.path),
        "is_finished": run.is_finished,
        "notes": [*_state(run), *run.notes],
        "command": run.command,
        "figures": _figures(run, len(nodes)),
        "settings": run.settings,
        "images": run.images,
        "rounds": _with_bytes_so_far(run.rounds, len(nodes) or _clients(run)),
        "bytes_by_kind": bytes_by_kind(run.ledger),
        "bytes_by_node": nodes,
        "links": on_links(run),
    }


def on_links(run: RunFiles) -> list[Row]:
    """What a node took in the whole run, the mean of all nodes: a row for each known link.

    It is empty for runs of earlier versions, whose ledgers do not tell.
    """
    try:
        node_rounds = sum_node_rounds(run)
    except InputError:
        return []
    rows = []
    for link in read_links().values():
        totals = total_rows(cost_rows(link, node_rounds, compute_s=0.0))
        means: Row = {"link": link.name}
        for name in ON_LINKS:
            values = [total[name] for total in totals]
            unknown = any(value is None for value in values)
            means[name] = None if unknown else float(f"{sum(values) / len(values):.6g}")
        rows.append(means)
    return rows


def plan_runs(runs: Sequence[RunFiles], question: "Question", links: Sequence[Link]) -> Data:
    """The content of plan.json for these runs, or a note on why there is no plan."""
    from fed_ist.planning.plan import make_plans
    from fed_ist.planning.runs import planned_run
    from fed_ist.planning.table import plan_data

    try:
        return plan_data(make_plans([planned_run(run) for run in runs], links, question))
    except InputError as reason:
        return {"links": {}, "notes": [f"There is no plan: {reason}"]}


def _state(run: RunFiles) -> list[str]:
    """A sentence on how far a run has come, unless it came to its last round."""
    if run.is_finished:
        reason = run.summary.get("ended_early")
        last = run.rounds[-1]["round"] if run.rounds else 0
        return [f"The run ended after round {last}: {reason}."] if reason else []
    if run.error:
        return [f"The run stopped with an error: {run.error}"]
    if not run.rounds:
        return ["The run is not finished, and nothing was evaluated yet."]
    planned = f" of {run.num_rounds}" if run.num_rounds else ""
    return [
        "The run is not finished: it is going on or was interrupted. What follows goes up to "
        f"round {run.rounds[-1]['round']}{planned}."
    ]


def _figures(run: RunFiles, n_nodes: int) -> Row:
    """The main figures of a run: from its tables, and from summary.json what these do not have.

    What is a setting is left out, as the settings have it.
    """
    rounds = run.rounds
    found: Row = {
        "accuracy": rounds[-1]["accuracy"] if rounds else None,
        "best_accuracy": max(_numbers(rounds, "accuracy"), default=None),
        "loss": rounds[-1]["loss"] if rounds else None,
        "rounds": rounds[-1]["round"] if rounds else None,
        "seconds": round(sum(_numbers(rounds, "seconds")), 3),
    }
    # The ledger is taken first, as it also has the messages of a round that was cut.
    table, name = (run.ledger, "message_bytes") if run.ledger else (rounds, "bytes")
    for direction in DIRECTIONS:
        if run.ledger:
            rows = [row for row in table if row["direction"] == direction]
            found[f"bytes_{direction}"] = sum(_numbers(rows, name))
            found[f"payload_bytes_{direction}"] = sum(_numbers(rows, "payload_bytes"))
        else:
            found[f"bytes_{direction}"] = sum(_numbers(rounds, f"{name}_{direction}"))
    total = sum(_numbers([found], "bytes_down")) + sum(_numbers([found], "bytes_up"))
    n_nodes = n_nodes or _clients(run)
    found["bytes_per_node"] = round(total / n_nodes) if n_nodes else None
    known = {"state", *(key for key in run.summary if kebab(key) in run.settings)}
    more = {key: value for key, value in run.summary.items() if key not in known}
    return found | {key: value for key, value in more.items() if key not in found}


def _clients(run: RunFiles) -> int:
    """How many nodes a run without a ledger had; 0 if that is not known."""
    value = run.summary.get("clients")
    return value if isinstance(value, int) else 0


def _with_bytes_so_far(rounds: Iterable[Row], n_nodes: int) -> list[Row]:
    """The rows, each with the bytes that a node has received and sent up to then."""
    rows, total = [], 0.0
    for row in rounds:
        total += sum(_numbers([row], "bytes_down")) + sum(_numbers([row], "bytes_up"))
        rows.append({**row, "bytes_per_node_so_far": round(total / n_nodes) if n_nodes else None})
    return rows


def bytes_by_kind(ledger: Sequence[Row]) -> list[Row]:
    """A row of bytes for each kind of message and direction, in the order of the first message."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in ledger:
        groups.setdefault((str(row["kind"]), str(row["direction"])), []).append(row)
    return [
        {"kind": kind, "direction": direction, "messages": len(rows), **_sum_bytes(rows)}
        for (kind, direction), rows in groups.items()
    ]


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
    sums: Row = {name: sum(_numbers(rows, name)) for name in (*sorted(known)[::-1], *more)}
    payload, message = sums["payload_bytes"], sums["message_bytes"]
    assert isinstance(payload, int | float) and isinstance(message, int | float)
    sums["message_to_payload"] = round(message / payload, 4) if payload else None
    return sums


def _numbers(rows: Iterable[Mapping[str, object]], name: str) -> list[int | float]:
    """The numbers in a column; cells that are no numbers are left out."""
    found = (row.get(name) for row in rows)
    return [value for value in found if isinstance(value, int | float)]


def render_rounds(data: Data) -> str:
    """The text of rounds.csv for several runs: their rows, with the run's name as first column."""
    rows = [{"run": run["name"], **row} for run in data["runs"] for row in run["rounds"]]
    names = dict.fromkeys(name for row in rows for name in row)
    return csv_text(list(names) or ["run"], rows)
