"""The sections of a report's page, made of its data: plots first, then tables.

Each function takes the content of report.json (`fed_ist.reports.run.collect`) and returns a
`Section`. To add a section, write a function and call it in `build_sections`.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fed_ist.reports.page import Cell, Data, Section, pointer
from fed_ist.reports.svg_charts import Axis, Series, bar_chart, line_chart
from fed_ist.runs.tables import CellValue
from fed_ist.words import readable_bytes

# What columns are called on the page; other columns are called by their own names.
LABELS = {
    "accuracy": "test accuracy",
    "best_accuracy": "best test accuracy",
    "loss": "test loss",
    "bytes_per_node": "bytes per node",
    "bytes_per_node_so_far": "bytes per node so far",
    "bytes_down": "bytes to the nodes",
    "bytes_up": "bytes from the nodes",
    "message_to_payload": "message / payload",
    "link_bytes_down": "link bytes to the node",
    "link_bytes_up": "link bytes from the node",
    "air_s": "air time (s)",
    "quota_share": "share of quota",
}
UNKNOWN = "-"
NO_BREAK = "\u00a0"  # between a number and what it counts
# Bytes of several runs are on a log axis where the most are more than this many times the fewest.
LOG_FROM = 10.0


def build_sections(data: Data) -> list[Section]:
    """All sections of the page that have content."""
    sections = [
        headline(data),
        plots(data),
        compared(data),
        plan_table(data),
        links_table(data),
        rounds_table(data),
        kinds_table(data),
        nodes_table(data),
        images_table(data),
        left_out_table(data),
        figures_table(data),
        settings_table(data),
    ]
    return [s for s in sections if s.rows or s.plots or s.figures or s.notes]


def show(name: str, value: CellValue) -> str:
    """A value as a table shows it; `name` is that of its column."""
    if value is None:
        return UNKNOWN
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value
    if "accuracy" in name or "share" in name:
        return f"{100 * value:.1f}%"
    if isinstance(value, int):
        return f"{value:,}"
    if value.is_integer():
        return f"{value:,.0f}"
    if abs(value) >= 1:
        return f"{value:,.3f}"
    return f"{value:.4f}" if abs(value) >= 0.001 else f"{value:.3g}"


def cell(data: Data, *steps: str | int) -> Cell:
    """The cell of the value at these keys and indices, shown as its last key requires."""
    place: Any = data
    for step in steps[:-1]:
        place = place[step]
    name = str(steps[-1])
    found = place.get(name)
    return Cell(show(name, found), found, pointer(*steps) if name in place else "")


def as_bytes(found: Cell) -> Cell:
    """The same cell with its text in B, kB, MB or GB."""
    if not isinstance(found.value, int | float):
        return found
    return Cell(readable_bytes(found.value).replace(" ", NO_BREAK), found.value, found.key)


def label(name: str) -> str:
    """What a column is called on the page."""
    return LABELS.get(name, name.replace("_", " "))


def headline(data: Data) -> Section:
    """The main figures of a single run, and the notes on all runs."""
    runs = data["runs"]
    several = len(runs) > 1
    notes = [f"{run['name']}: {note}" if several else note for run in runs for note in run["notes"]]
    figures: tuple[tuple[str, Cell], ...] = ()
    if not several:
        of_run = ("runs", 0, "figures")
        figures = (
            ("test accuracy", cell(data, *of_run, "accuracy")),
            ("best round", cell(data, *of_run, "best_accuracy")),
            ("rounds", cell(data, *of_run, "rounds")),
            ("bytes per node", as_bytes(cell(data, *of_run, "bytes_per_node"))),
            ("to the nodes", as_bytes(cell(data, *of_run, "bytes_down"))),
            ("from the nodes", as_bytes(cell(data, *of_run, "bytes_up"))),
            ("seconds", cell(data, *of_run, "seconds")),
        )
    return Section("", figures=figures, notes=tuple(notes))


def plots(data: Data) -> Section:
    """Accuracy against rounds and against bytes, bytes by kind of message, and seconds a round."""
    rounds = Axis("round", lambda value: f"{value:g}")
    percents = Axis("test accuracy (%)", lambda value: f"{100 * value:g}")
    spent = _series(data, "bytes_per_node_so_far", "accuracy")
    most = [line.points[-1][0] for line in spent if line.points]
    is_log = len(most) > 1 and min(most) > 0 and max(most) > LOG_FROM * min(most)
    sent = Axis("received and sent by a node, mean of all", _short_bytes, is_log)
    seconds = Axis("seconds, by the server's clock", lambda value: f"{value:g}", from_zero=True)
    # Round 0, in which nodes encode their images, is so long that the others would look flat.
    trained = [
        Series(line.name, tuple(point for point in line.points if point[0] > 0))
        for line in _series(data, "round", "seconds")
    ]
    found = (
        line_chart("Accuracy by round", _series(data, "round", "accuracy"), rounds, percents),
        line_chart("Accuracy by bytes", spent, sent, percents),
        _kinds_plot(data),
        line_chart("Time of a round", trained, rounds, seconds),
    )
    return Section("Plots", plots=tuple(plot for plot in found if plot))


def _series(data: Data, x_name: str, y_name: str) -> list[Series]:
    """A line for each run: two columns of its rounds, where both have values."""
    lines = []
    for i, run in enumerate(data["runs"]):
        points = []
        for j, row in enumerate(run["rounds"]):
            x, y = row[x_name], row[y_name]
            if x is not None and y is not None:
                found = cell(data, "runs", i, "rounds", j, y_name)
                text = f"{run['name']}, round {row['round']}: {label(y_name)} {found.text}"
                points.append((x, y, Cell(text, found.value, found.key)))
        lines.append(Series(run["name"], tuple(points)))
    return lines


def _kinds_plot(data: Data) -> str:
    """Message bytes as bars: by kind and direction; of several runs, by run and direction."""
    title, subtitle = "Bytes by kind of message", "all nodes, messages as serialised"
    runs = data["runs"]
    rows: list[tuple[str, Sequence[Cell]]] = []
    for i, run in enumerate(runs):
        for j, row in enumerate(run["bytes_by_kind"]):
            found = as_bytes(cell(data, "runs", i, "bytes_by_kind", j, "message_bytes"))
            rows.append((f"{row['kind']}, {row['direction']}", [found]))
    if len(runs) == 1:
        return bar_chart(title, subtitle, rows, ())
    names = list(dict.fromkeys(r["kind"] for run in runs for r in run["bytes_by_kind"]))
    rows = []
    for i, run in enumerate(runs):
        for direction in ("down", "up"):
            at = {
                row["kind"]: j
                for j, row in enumerate(run["bytes_by_kind"])
                if row["direction"] == direction
            }
            pieces = [
                as_bytes(cell(data, "runs", i, "bytes_by_kind", at[name], "message_bytes"))
                if name in at
                else Cell(UNKNOWN)
                for name in names
            ]
            rows.append((f"{run['name']}, {direction}", pieces))
    return bar_chart(title, subtitle, rows, names)


def _short_bytes(n_bytes: float) -> str:
    """Bytes as the text of a tick: `20 kB`."""
    power = min(3, max(0, len(f"{n_bytes:.0f}") - 1) // 3)
    return f"{n_bytes / 1000**power:g} {('B', 'kB', 'MB', 'GB')[power]}"


def compared(data: Data) -> Section:
    """A row for each of several runs: the settings in which they differ, and their outcome."""
    runs, differing = data["runs"], data["differing"]
    if len(runs) < 2:
        return Section("Summary")
    outcome = ("accuracy", "best_accuracy", "rounds", "bytes_per_node", "seconds")
    rows = []
    for i in range(len(runs)):
        settings = [_setting(data, i, key) for key in differing]
        figures = [cell(data, "runs", i, "figures", name) for name in outcome]
        rows.append((_name(data, i), *settings, *figures))
    header = ("run", *differing, *(label(name) for name in outcome))
    same = "The settings of these runs are the same."
    lead = "Marked are the settings in which the runs differ." if differing else same
    return Section("Summary", lead=lead, header=header, rows=tuple(rows))


def rounds_table(data: Data) -> Section:
    """The rows of rounds.csv, the runs one below the other."""
    lead = "Bytes are of all nodes' messages in the round, as serialised."
    return _long_table(data, "Rounds", lead, "rounds")


def kinds_table(data: Data) -> Section:
    """The bytes of each kind of message."""
    lead = "Payload is the arrays alone, message what Flower serialises for them."
    return _long_table(data, "Bytes by kind of message", lead, "bytes_by_kind")


def nodes_table(data: Data) -> Section:
    """The bytes of each node."""
    lead = "What each node received (down) and sent (up) in all."
    return _long_table(data, "Bytes per node", lead, "bytes_by_node")


def links_table(data: Data) -> Section:
    """What a node takes on each link."""
    lead = (
        "What a node took in the whole run on its link, the mean of all: IP packets as estimated "
        "for a deployed node with TLS, seconds that they fill the link, joules of the radio, and "
        f"share of a month's quota. {UNKNOWN}: nobody published it, or nothing limits it."
    )
    found = _long_table(data, "On links", lead, "links")
    if not found.rows:
        return found
    waiting = (
        ("to a node that waits an hour", as_bytes(cell(data, "waiting", "link_bytes_down"))),
        ("from it", as_bytes(cell(data, "waiting", "link_bytes_up"))),
    )
    return replace(found, figures=waiting)


PLAN_BYTES = {"bytes_down": "to the node", "bytes_up": "from the node"}
PLAN_HOURS = {"encode_s": "encoding", "train_s": "training", "link_s": "link", "total_s": "in all"}
PLAN_JOULES = {
    **{"encode_j": "encoding (J)", "train_j": "training (J)"},
    **{"radio_j": "radio (J)", "total_j": "in all (J)"},
}


def plan_table(data: Data) -> Section:
    """What each way to an accuracy takes of a node on each link (`planning.table.plan_data`)."""
    title, plan = "The whole budget", data.get("plan")
    if not plan:
        return Section(title)
    if not plan["links"]:
        return Section(title, notes=tuple(plan["notes"]))
    rows, notes = [], []
    for link, found in plan["links"].items():
        notes += found["notes"]
        for j in range(len(found["ways"])):
            of_way = ("plan", "links", link, "ways", j)
            rows.append(
                (
                    Cell(link, link),
                    *(cell(data, *of_way, name) for name in ("way", "run", "round")),
                    *(as_bytes(cell(data, *of_way, name)) for name in PLAN_BYTES),
                    *(_as_hours(cell(data, *of_way, name)) for name in PLAN_HOURS),
                    *(cell(data, *of_way, name) for name in PLAN_JOULES),
                )
            )
    return Section(
        title,
        lead=f"To reach {100 * plan['accuracy']:.1f}% with {plan['nodes']} nodes like "
        f"{plan['device']}: what each way takes of one of them. {UNKNOWN}: not of a run, not "
        "reached, or not published.",
        header=(
            *("link", "way", "run", "round"),
            *PLAN_BYTES.values(),
            *PLAN_HOURS.values(),
            *PLAN_JOULES.values(),
        ),
        rows=tuple(rows),
        notes=(*plan["notes"], *notes),
    )


def _as_hours(found: Cell) -> Cell:
    """The same cell of seconds with its text in hours."""
    if not isinstance(found.value, int | float):
        return found
    hours = found.value / 3600
    text = f"{hours:,.0f}" if hours >= 100 else f"{hours:.3g}"
    return Cell(f"{text}{NO_BREAK}h", found.value, found.key)


def _long_table(data: Data, title: str, lead: str, name: str) -> Section:
    """The rows that each run has under `name`; a cell is empty where its run lacks the column."""
    runs = data["runs"]
    columns = dict.fromkeys(column for run in runs for row in run[name] for column in row)
    several = len(runs) > 1
    rows = []
    for i, run in enumerate(runs):
        first = (_name(data, i),) if several else ()
        for j in range(len(run[name])):
            cells = (cell(data, "runs", i, name, j, column) for column in columns)
            rows.append((*first, *cells))
    header = (*(("run",) if several else ()), *(label(column) for column in columns))
    return Section(title, lead=lead if rows else "", header=header, rows=tuple(rows))


def images_table(data: Data) -> Section:
    """How many images of each class the server of each run found."""
    title, runs = "Images", data["runs"]
    several = len(runs) > 1
    rows: list[tuple[Cell, ...]] = []
    notes: list[str] = []
    for i, run in enumerate(runs):
        found = run["images"]
        if not found:
            continue
        first = (_name(data, i),) if several else ()
        for name in found["counts"]:
            at = ("runs", i, "images", "counts", name)
            rows.append(
                (*first, Cell(name, name), cell(data, *at, "train"), cell(data, *at, "test"))
            )
        formats = ", ".join(f"{words} ({n:,})" for words, n in found["formats"].items())
        said = [f"{found['kind'].capitalize()}. {formats}.", *found["notes"]]
        if n_skipped := run["figures"].get("images_skipped"):
            said.append(f"{n_skipped:,} images could not be read when they were encoded.")
        notes += [f"{run['name']}: {note}" if several else note for note in said]
    header = (*(("run",) if several else ()), "class", "to train on", "to test on")
    lead = "As the server found them at the start; on devices, each node has images of its own."
    return Section(
        title, lead=lead if rows else "", header=header, rows=tuple(rows), notes=tuple(notes)
    )


def left_out_table(data: Data) -> Section:
    """What is not learnt from and why, and identical images, each with a count and an example."""
    runs = data["runs"]
    several = len(runs) > 1
    rows = []
    for i, run in enumerate(runs):
        first = (_name(data, i),) if several else ()
        for kind in ("left_out", "identical"):
            for reason in run["images"].get(kind, {}):
                named = (kind, "examples")
                cells = (cell(data, "runs", i, "images", name, reason) for name in named)
                rows.append((*first, Cell(label(kind)), Cell(reason, reason), *cells))
    header = (*(("run",) if several else ()), "what", "why", "images", "example")
    return Section("Images left out, and identical ones", header=header, rows=tuple(rows))


def figures_table(data: Data) -> Section:
    """All figures, a column for each run."""
    runs = data["runs"]
    names = dict.fromkeys(name for run in runs for name in run["figures"])
    rows = tuple(
        (
            Cell(label(name), label(name)),
            *(cell(data, "runs", i, "figures", name) for i in range(len(runs))),
        )
        for name in names
    )
    return Section("All figures", header=("figure", *_names(data)), rows=rows)


def settings_table(data: Data) -> Section:
    """All settings, a column for each run; those that differ are marked."""
    runs = data["runs"]
    names = dict.fromkeys(name for run in runs for name in run["settings"])
    rows = []
    for name in names:
        cells = [_setting(data, i, name) for i in range(len(runs))]
        rows.append((Cell(name, name, is_marked=name in data["differing"]), *cells))
    commands = [f"Repeat {run['name']}: {run['command']}" for run in runs if run["command"]]
    header = ("setting", *_names(data))
    return Section("Settings", header=header, rows=tuple(rows), notes=tuple(commands))


def _name(data: Data, i: int) -> Cell:
    return cell(data, "runs", i, "name")


def _names(data: Data) -> tuple[str, ...]:
    names = tuple(run["name"] for run in data["runs"])
    return names if len(names) > 1 else ("value",)


def _setting(data: Data, i: int, key: str) -> Cell:
    """A setting as it is in config.toml, without separators in its numbers."""
    found = cell(data, "runs", i, "settings", key)
    text = found.text if isinstance(found.value, bool | None) else str(found.value)
    return replace(found, text=text, is_marked=key in data["differing"])
