"""The pictures of a report's page, made of its data: curves, bars, a matrix, images."""

import base64
from collections.abc import Sequence

from markupsafe import escape

from fed_ist.reports.cells import UNKNOWN, cell, label
from fed_ist.reports.confusion_matrix import MOST_CLASSES, confusion_matrix
from fed_ist.reports.kept_images import KeptImage
from fed_ist.reports.page import Cell, Data, Section
from fed_ist.reports.svg_axes import Axis
from fed_ist.reports.svg_charts import Series, bar_chart, line_chart
from fed_ist.words import percent

# Bytes of several runs are on a log axis where the most are more than this many times the fewest.
LOG_FROM = 10.0
MOST_NODES = 12  # that have a bar each


def plots(data: Data) -> Section:
    """Accuracy against rounds and against bytes, where bytes went, and seconds a round."""
    rounds = Axis("round", lambda value: f"{value:g}")
    percents = Axis("test accuracy (%)", lambda value: f"{100 * value:g}")
    spent = [learnt(line) for line in _series(data, "bytes_per_node_so_far", "accuracy")]
    by_round = [learnt(line) for line in _series(data, "round", "accuracy")]
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
        line_chart("Accuracy by bytes", spent, sent, percents),
        line_chart("Accuracy by round", by_round, rounds, percents),
        _uses_plot(data),
        line_chart("Time of a round", trained, rounds, seconds),
        _nodes_plot(data),
    )
    return Section("Plots", plots=tuple(plot for plot in found if plot))


def learnt(line: Series) -> Series:
    """A line of accuracies without its beginning, where the classifier guessed.

    Beside it, all that was learnt would look flat.
    """
    best = max((y for _, y, _ in line.points), default=0.0)
    begins = next((i for i, (_, y, _) in enumerate(line.points) if y >= best / 2), 0)
    return Series(line.name, line.points[begins:])


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


def _uses_plot(data: Data) -> str:
    """What bytes were used for, a bar for each run."""
    runs = data["runs"]
    uses = list(dict.fromkeys(row["use"] for run in runs for row in run["bytes_by_use"]))
    rows: list[tuple[str, Sequence[Cell]]] = []
    for i, run in enumerate(runs):
        at = {row["use"]: j for j, row in enumerate(run["bytes_by_use"])}
        pieces = [
            cell(data, "runs", i, "bytes_by_use", at[use], "bytes") if use in at else Cell(UNKNOWN)
            for use in uses
        ]
        rows.append((run["name"], pieces))
    return bar_chart("Where the bytes went", "on the link of a node, mean of all", rows, uses)


def _nodes_plot(data: Data) -> str:
    """What each node of a single run received and sent."""
    if len(data["runs"]) > 1 or not 1 < len(data["runs"][0]["bytes_by_node"]) <= MOST_NODES:
        return ""
    names = {"message_bytes_down": "received", "message_bytes_up": "sent"}
    rows: list[tuple[str, Sequence[Cell]]] = []
    for j, row in enumerate(data["runs"][0]["bytes_by_node"]):
        of_node = ("runs", 0, "bytes_by_node", j)
        pieces = [cell(data, *of_node, name) for name in names]
        told = f"node {row['node']}: " + ", ".join(piece.text for piece in pieces)
        rows.append((told, pieces))
    return bar_chart("Bytes of each node", "messages as serialised", rows, tuple(names.values()))


def _short_bytes(n_bytes: float) -> str:
    """Bytes as the text of a tick: `20 kB`."""
    power = min(3, max(0, len(f"{n_bytes:.0f}") - 1) // 3)
    return f"{n_bytes / 1000**power:g} {('B', 'kB', 'MB', 'GB')[power]}"


def matrix(data: Data) -> Section:
    """What the last classifier of a single run takes images of each class for."""
    title, run = "Confusion", data["runs"][0]
    names = list(dict.fromkeys(r[key] for key in ("class", "taken_for") for r in run["confusion"]))
    if len(data["runs"]) > 1 or not 1 < len(names) <= MOST_CLASSES:
        return Section(title)
    counts = {
        (row["class"], row["taken_for"]): cell(data, "runs", 0, "confusion", j, "images")
        for j, row in enumerate(run["confusion"])
    }
    return Section(
        "", plots=(confusion_matrix("What images are taken for", sorted(names), counts),)
    )


def kept_strips(data: Data, kept: Sequence[Sequence[KeptImage]]) -> Section:
    """Images of each run as its nodes keep them; strips that are the same appear once.

    kept: of each run; empty where there are none.
    """
    strips: dict[tuple[str, tuple[KeptImage, ...]], list[int]] = {}
    for i, images in enumerate(kept):
        if images:
            strips.setdefault((_hidden(data, i), tuple(images)), []).append(i)
    drawn = (_strip(data, images, hidden, of) for (hidden, images), of in strips.items())
    return Section("", plots=tuple(drawn))


def _hidden(data: Data, i: int) -> str:
    """How much of its images a run hides, as words; "" where nothing is known to be hidden."""
    settings = data["runs"][i]["settings"]
    ratio, mask = settings.get("mask-ratio"), settings.get("mask")
    is_told = isinstance(ratio, int | float) and ratio > 0
    return f", {percent(ratio)} of the patches hidden (mask {mask})" if is_told else ""


def _strip(data: Data, images: Sequence[KeptImage], hidden: str, of_runs: Sequence[int]) -> str:
    names = ", ".join(data["runs"][i]["name"] for i in of_runs)
    which = f"{names}: " if len(data["runs"]) > 1 else ""
    tiles = "".join(
        f'<li><img src="data:image/png;base64,{base64.b64encode(image.png).decode()}" '
        f'alt="{escape(image.class_name)}">{escape(image.class_name)}</li>'
        for image in images
    )
    told = "some of the server's test images, with the patches that a node keeps of its own"
    return (
        f'<figure class="wide"><figcaption>{escape(which)}Images as nodes keep them'
        f'{escape(hidden)}<small>{told}</small></figcaption><ul class="strip">{tiles}</ul></figure>'
    )
