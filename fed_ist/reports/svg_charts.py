"""Plots of lines and bars as SVG, coloured by the style of the page.

All lengths are in the SVG's own coordinates, see `fed_ist.reports.svg_axes`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import escape

from fed_ist.reports.page import Cell
from fed_ist.reports.svg_axes import (
    BOTTOM,
    HEIGHT,
    LEFT,
    LETTER_PX,
    TOP,
    WIDTH,
    Axis,
    frame,
    scale,
    ticks,
)
from fed_ist.words import shorten

RIGHT = 12.0
# How many colours the page's style has; series with the same colour differ in their dashes.
N_COLOURS = 6
DASHES = ("", "7 3", "2 3", "9 3 2 3")
BAR_PX, ROW_PX = 14.0, 40.0
MOST_LABELS = 10  # lines that have their names beside them; more have a legend
MOST_LETTERS = 16  # of such a name
MOST_IN_LINE = int(WIDTH / LETTER_PX)
LABEL_PX = 13.0  # from one name to the next


@dataclass(frozen=True)
class Series:
    """A line of a plot. points: (x, y, the cell whose value is y)."""

    name: str
    points: tuple[tuple[float, float, Cell], ...]


def line_chart(title: str, series: Sequence[Series], x_axis: Axis, y_axis: Axis) -> str:
    """Lines with a mark at each point; "" without points.

    Several lines have their names at their ends, or a legend where there are too many. On a log
    axis, points at 0 are left out.
    """
    series = [_drawable(line, x_axis) for line in series]
    xs = [x for line in series for x, _, _ in line.points]
    ys = [y for line in series for _, y, _ in line.points]
    if not xs:
        return ""
    names = [shorten(line.name, MOST_LETTERS) for line in series]
    are_beside = 1 < len(series) <= MOST_LABELS
    right = WIDTH - (LETTER_PX * max(map(len, names)) + 18 if are_beside else RIGHT)
    x_ticks, y_ticks = ticks(xs, x_axis), ticks(ys, y_axis)
    x_place = scale(x_ticks, x_axis, LEFT, right)
    y_place = scale(y_ticks, y_axis, HEIGHT - BOTTOM, TOP)
    drawn = [frame(x_ticks, y_ticks, x_place, y_place, x_axis, y_axis, right)]
    ends = {}
    for i, line in enumerate(series):
        places = [(x_place(x), y_place(y), cell) for x, y, cell in line.points]
        if places:
            ends[i] = places[-1][:2]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in places)
        drawn.append(f'<g class="s{i % N_COLOURS}"><polyline class="curve" points="{path}"')
        drawn.append(f' stroke-dasharray="{_dashes(i)}"/>')
        for x, y, cell in places:
            drawn.append(
                f'<circle class="point" cx="{x:.1f}" cy="{y:.1f}" r="3.5" '
                f'data-key="{escape(cell.key)}" data-value="{escape(cell.json_value)}">'
                f"<title>{escape(cell.text)}</title></circle>"
            )
        drawn.append("</g>")
    if are_beside:
        drawn += _names_beside(ends, names, right)
    is_told = are_beside or len(series) < 2
    legend = "" if is_told else _legend([line.name for line in series])
    return _figure(title, y_axis.name, legend, "".join(drawn), HEIGHT)


def _names_beside(
    ends: dict[int, tuple[float, float]], names: Sequence[str], right: float
) -> list[str]:
    """The names of lines to the right of the plot, each with a thin line from where its line ends.

    ends: number of the line -> place of its last point.
    """
    order = sorted(ends, key=lambda i: ends[i][1])
    heights = spread([ends[i][1] for i in order], LABEL_PX, TOP + 4, HEIGHT - BOTTOM)
    drawn = []
    for i, y in zip(order, heights, strict=True):
        x, end = ends[i]
        drawn.append(f'<g class="s{i % N_COLOURS}"><path class="leader" ')
        drawn.append(f'd="M{x:.1f},{end:.1f}H{right:.1f}L{right + 10:.1f},{y:.1f}"/></g>')
        drawn.append(f'<text x="{right + 12:.1f}" y="{y + 4:.1f}">{escape(names[i])}</text>')
    return drawn


def spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places in ascending order, moved as little as need be to be `gap` apart.

    They stay from `low` to `high`, where there is room for all.
    """
    found: list[float] = []
    for place in places:
        found.append(max(place, found[-1] + gap if found else low))
    limit = high
    for i in range(len(found) - 1, -1, -1):
        found[i] = min(found[i], limit)
        limit = found[i] - gap
    return found


def bar_chart(
    title: str, subtitle: str, rows: Sequence[tuple[str, Sequence[Cell]]], names: Sequence[str]
) -> str:
    """Horizontal bars that begin at 0; "" without bars.

    rows: a label and the cells of the bar's pieces, whose values are not negative. names: of the
    pieces, each with its own colour; a bar of one piece has its value in the label, and a single
    bar those of its pieces in the legend.
    """
    totals = [sum(_number(cell) for cell in cells) for _, cells in rows]
    if not any(totals):
        return ""
    per_unit = (WIDTH - RIGHT) / max(totals)
    drawn = []
    for i, (label, cells) in enumerate(rows):
        y, x = i * ROW_PX, 0.0
        value = f": {cells[0].text}" if len(names) < 2 else ""
        drawn.append(
            f'<text x="0" y="{y + 14:.0f}">{escape(shorten(label + value, MOST_IN_LINE))}</text>'
        )
        for j, cell in enumerate(cells):
            width = _number(cell) * per_unit
            drawn.append(
                f'<g class="s{j % N_COLOURS}"><rect class="bar" x="{x:.1f}" y="{y + 19:.0f}" '
                f'width="{width:.2f}" height="{BAR_PX:.0f}" data-key="{escape(cell.key)}" '
                f'data-value="{escape(cell.json_value)}"><title>{escape(cell.text)}</title>'
                "</rect></g>"
            )
            x += width
    values = rows[0][1] if len(rows) == 1 else ()
    legend = _legend(names, values, are_lines=False) if len(names) > 1 else ""
    return _figure(title, subtitle, legend, "".join(drawn), len(rows) * ROW_PX)


def _drawable(line: Series, x_axis: Axis) -> Series:
    if not x_axis.is_log:
        return line
    return Series(line.name, tuple(point for point in line.points if point[0] > 0))


def _number(cell: Cell) -> float:
    return float(cell.value) if isinstance(cell.value, int | float) else 0.0


def _dashes(i: int) -> str:
    return DASHES[(i // N_COLOURS + i) % len(DASHES)]


def _legend(names: Sequence[str], values: Sequence[Cell] = (), *, are_lines: bool = True) -> str:
    """The names of the series, each with a piece of its line or bar, and with its value if any."""
    items = []
    for i, name in enumerate(names):
        if are_lines:
            sample = f'<path class="curve" d="M0,5.5H32" stroke-dasharray="{_dashes(i)}"/>'
        else:
            sample = '<rect class="bar" width="32" height="11"/>'
        items.append(
            f'<li><svg viewBox="0 0 32 11" class="s{i % N_COLOURS}" aria-hidden="true">{sample}'
            f"</svg>{escape(name)}{_value(values[i]) if values else ''}</li>"
        )
    return f'<ul class="legend">{"".join(items)}</ul>'


def _value(cell: Cell) -> str:
    return (
        f' <b data-key="{escape(cell.key)}" data-value="{escape(cell.json_value)}">'
        f"{escape(cell.text)}</b>"
    )


def _figure(title: str, subtitle: str, legend: str, drawn: str, height: float) -> str:
    return (
        f"<figure><figcaption>{escape(title)}<small>{escape(subtitle)}</small></figcaption>"
        f'{legend}<svg viewBox="0 0 {WIDTH:.0f} {height:.0f}" role="img" '
        f'aria-label="{escape(title)}">{drawn}</svg></figure>'
    )
