"""How a page shows the values of report.json: each as a cell that knows where its value stands."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fed_ist.reports.page import Cell, Data, Section, pointer
from fed_ist.runs.tables import CellValue
from fed_ist.words import readable_bytes, readable_seconds

# What columns are called on the page; other columns are called by their own names.
LABELS = {
    "accuracy": "test accuracy",
    "best_accuracy": "best test accuracy",
    "loss": "test loss",
    "bytes_per_node": "a node, both ways",
    "bytes_per_node_so_far": "a node so far",
    "bytes_down": "to all nodes",
    "bytes_up": "from all nodes",
    "payload_bytes_down": "arrays to all nodes",
    "payload_bytes_up": "arrays from all nodes",
    "link_bytes_down": "on links to all nodes",
    "link_bytes_up": "on links from all nodes",
    "message_to_payload": "message / arrays",
    "payload_bytes": "arrays",
    "message_bytes": "messages",
    "seconds": "time",
    "air_s": "air time",
    "joules": "joules of the radio",
    "quota_share": "of a month's quota",
    "train_images": "to train on",
    "test_images": "to test on",
    "taken_for": "others are taken for",
}
# What the columns of a table of nodes are called.
OF_A_NODE = {
    "payload_bytes_down": "arrays to it",
    "payload_bytes_up": "arrays from it",
    "message_bytes_down": "messages to it",
    "message_bytes_up": "messages from it",
    "link_bytes_down": "on its link to it",
    "link_bytes_up": "on its link from it",
}
UNKNOWN = "-"
MOST_SIDE = 2  # runs that have a column each on a narrow screen
NO_BREAK = "\u00a0"  # between a number and what it counts


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
    if "bytes" in name:
        return readable_bytes(value).replace(" ", NO_BREAK)
    if name == "seconds" or name.endswith("_s"):
        return readable_seconds(value).replace(" ", NO_BREAK)
    if name == "joules" or name.endswith("_j"):  # estimates, of which more digits say nothing
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    if isinstance(value, int):
        return f"{value:,}"
    if value.is_integer() or abs(value) >= 1000:
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


def setting(data: Data, i: int, key: str) -> Cell:
    """A setting of a run as it is in config.toml, without separators in its numbers."""
    found = cell(data, "runs", i, "settings", key)
    text = found.text if isinstance(found.value, bool | None) else str(found.value)
    return replace(found, text=text, is_marked=key in data["differing"])


def run_name(data: Data, i: int) -> Cell:
    """The name of a run."""
    return cell(data, "runs", i, "name")


def label(name: str) -> str:
    """What a column is called on the page."""
    return LABELS.get(name, name.replace("_", " "))


def run_names(data: Data) -> tuple[str, ...]:
    """What the columns of runs are called in a table that has one for each."""
    names = tuple(run["name"] for run in data["runs"])
    return names if len(names) > 1 else ("value",)


def long_table(
    data: Data,
    title: str,
    lead: str,
    name: str,
    shown: Sequence[str] = (),
    labels: Mapping[str, str] = LABELS,
) -> Section:
    """The rows that each run has under `name`; a cell is empty where its run lacks the column.

    shown: the columns, or all for none. labels: what columns are called that have names of their
    own here.
    """
    runs = data["runs"]
    found = dict.fromkeys(column for run in runs for row in run[name] for column in row)
    columns = [column for column in found if column in shown or not shown]
    several = len(runs) > 1
    rows = []
    for i, run in enumerate(runs):
        first = (run_name(data, i),) if several else ()
        for j in range(len(run[name])):
            cells = (cell(data, "runs", i, name, j, column) for column in columns)
            rows.append((*first, *cells))
    heads = (labels.get(column, label(column)) for column in columns)
    header = (*(("run",) if several else ()), *heads)
    return Section(title, lead=lead if rows else "", header=header, rows=tuple(rows))
