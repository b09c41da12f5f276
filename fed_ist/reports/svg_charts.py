"""Plots of lines and bars as SVG, coloured by the style of the page.

All lengths are in the SVG's own coordinates. A plot is 360 wide, about as many as a phone has px,
so that its letters are as large as the text around it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import escape

from fed_ist.reports.page import Cell

WIDTH, HEIGHT = 360.0, 230.0
LEFT, RIGHT, TOP, BOTTOM = 56.0, 12.0, 10.0, 42.0
# How many colours the page's style has; series with the same colour differ in their dashes.
N_COLOURS = 6
DASHES = ("", "7 3", "2 3", "9 3 2 3")
N_TICKS = 5
BAR_PX, ROW_PX = 14.0, 40.0

Format = Callable[[float], str]


@dataclass(frozen=True)
class Series:
    """A line of a plot. points: (x, y, the cell whose value is y)."""

    name: str
    points: tuple[tuple[float, float, Cell], ...]


@dataclass(frozen=True)
class Axis:
    """An axis of a plot.

    name: with what the numbers are in. show: the text of a tick's number. is_log: whether each
    factor of 10 has the same length. from_zero: whether the axis begins at 0.
    """

    name: str
    show: Format
    is_log: bool = False
    from_zero: bool = False


def linear_ticks(low: float, high: float) -> list[float]:
    """Round numbers, about `N_TICKS` of them, from `low` or less to `high` or more.

    They are 1, 2 or 5 times a power of ten apart.
    """
    if high <= low:
        low, high = low - abs(low) / 2, high + (abs(high) / 2 or 1.0)
    rough = (high - low) / N_TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten around two positive numbers; within two decades also 2 and 5 times these."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    multiples = (1, 2, 5) if last - first <= 2 else (1,)
    ticks = [m * 10.0**i for i in range(first, last + 1) for m in multiples]
    below = [tick for tick in ticks if tick <= low] or ticks[:1]
    above = [tick for tick in ticks if tick >= high] or ticks[-1:]
    return [tick for tick in ticks if below[-1] <= tick <= above[0]]


def line_chart(title: str, series: Sequence[Series], x_axis: Axis, y_axis: Axis) -> str:
    """Lines with a mark at each point, and a legend if there are several; "" without points.

    On a log axis, points at 0 are left out.
    """
    series = [_drawable(line, x_axis) for line in series]
    xs = [x for line in series for x, _, _ in line.points]
    ys = [y for line in series for _, y, _ in line.points]
    if not xs:
        return ""
    x_ticks, y_ticks = _ticks(xs, x_axis), _ticks(ys, y_axis)
    x_place = _scale(x_ticks, x_axis, LEFT, WIDTH - RIGHT)
    y_place = _scale(y_ticks, y_axis, HEIGHT - BOTTOM, TOP)
    drawn = [_frame(x_ticks, y_ticks, x_place, y_place, x_axis, y_axis)]
    for i, line in enumerate(series):
        places = [(x_place(x), y_place(y), cell) for x, y, cell in line.points]
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
    legend = _legend([line.name for line in series]) if len(series) > 1 else ""
    return _figure(title, y_axis.name, legend, "".join(drawn), HEIGHT)


def bar_chart(
    title: str, subtitle: str, rows: Sequence[tuple[str, Sequence[Cell]]], names: Sequence[str]
) -> str:
    """Horizontal bars that begin at 0; "" without bars.

    rows: a label and the cells of the bar's pieces, whose values are not negative. names: of the
    pieces, each with its own colour; a bar of one piece has its value in the label.
    """
    totals = [sum(_number(cell) for cell in cells) for _, cells in rows]
    if not any(totals):
        return ""
    scale = (WIDTH - RIGHT) / max(totals)
    drawn = []
    for i, (label, cells) in enumerate(rows):
        y, x = i * ROW_PX, 0.0
        value = f": {cells[0].text}" if len(names) < 2 else ""
        drawn.append(f'<text x="0" y="{y + 14:.0f}">{escape(_shorten(label + value))}</text>')
        for j, cell in enumerate(cells):
            width = _number(cell) * scale
            drawn.append(
                f'<g class="s{j % N_COLOURS}"><rect class="bar" x="{x:.1f}" y="{y + 19:.0f}" '
                f'width="{width:.2f}" height="{BAR_PX:.0f}" data-key="{escape(cell.key)}" '
                f'data-value="{escape(cell.json_value)}"><title>{escape(cell.text)}</title>'
                "</rect></g>"
            )
            x += width
    legend = _legend(names, are_lines=False) if len(names) > 1 else ""
    return _figure(title, subtitle, legend, "".join(drawn), len(rows) * ROW_PX)


def _shorten(text: str) -> str:
    """Text that fits the width of a plot, where a letter takes about 7."""
    return text if len(text) <= 50 else f"{text[:22]}…{text[-27:]}"


def _drawable(line: Series, x_axis: Axis) -> Series:
    if not x_axis.is_log:
        return line
    return Series(line.name, tuple(point for point in line.points if point[0] > 0))


def _number(cell: Cell) -> float:
    return float(cell.value) if isinstance(cell.value, int | float) else 0.0


def _ticks(values: Sequence[float], axis: Axis) -> list[float]:
    low, high = min(values), max(values)
    if axis.is_log:
        return log_ticks(low, high)
    return linear_ticks(min(0.0, low) if axis.from_zero else low, high)


def _scale(
    ticks: Sequence[float], axis: Axis, start: float, end: float
) -> Callable[[float], float]:
    """The function from a value to its place, between those of the first and of the last tick."""

    def length(value: float) -> float:
        return math.log10(value) if axis.is_log else value

    low, high = length(ticks[0]), length(ticks[-1])
    return lambda value: start + (end - start) * (length(value) - low) / (high - low)


def _frame(
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    x_place: Callable[[float], float],
    y_place: Callable[[float], float],
    x_axis: Axis,
    y_axis: Axis,
) -> str:
    """Grid, ticks and the name of the x axis; the name of the y axis is above the plot."""
    bottom = HEIGHT - BOTTOM
    drawn = []
    for tick in y_ticks:
        y = y_place(tick)
        drawn.append(f'<path class="grid" d="M{LEFT},{y:.1f}H{WIDTH - RIGHT}"/>')
        drawn.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">')
        drawn.append(f"{escape(y_axis.show(tick))}</text>")
    labels = [x_axis.show(tick) for tick in x_ticks]
    # Labels that would touch are left out; a letter takes about 7.
    room = (WIDTH - LEFT - RIGHT) / (7.0 * max(map(len, labels)) + 8.0)
    every = math.ceil(len(x_ticks) / max(1.0, room))
    for i, (tick, label) in enumerate(zip(x_ticks, labels, strict=True)):
        x = x_place(tick)
        drawn.append(f'<path class="grid" d="M{x:.1f},{TOP}V{bottom}"/>')
        if i % every == 0:
            is_cut = x + 3.5 * len(label) > WIDTH
            anchor = "end" if is_cut else "middle"
            shift = WIDTH - x if is_cut else 0.0
            drawn.append(f'<text x="{x + shift:.1f}" y="{bottom + 16}" text-anchor="{anchor}">')
            drawn.append(f"{escape(label)}</text>")
    drawn.append(f'<path class="axis" d="M{LEFT},{TOP}V{bottom}H{WIDTH - RIGHT}"/>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    drawn.append(f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">')
    drawn.append(f"{escape(x_axis.name)}</text>")
    return "".join(drawn)


def _dashes(i: int) -> str:
    return DASHES[(i // N_COLOURS + i) % len(DASHES)]


def _legend(names: Sequence[str], are_lines: bool = True) -> str:
    """The names of the series, each with a piece of its line or bar."""
    items = []
    for i, name in enumerate(names):
        if are_lines:
            sample = f'<path class="curve" d="M0,5.5H32" stroke-dasharray="{_dashes(i)}"/>'
        else:
            sample = '<rect class="bar" width="32" height="11"/>'
        items.append(
            f'<li><svg viewBox="0 0 32 11" class="s{i % N_COLOURS}" aria-hidden="true">{sample}'
            f"</svg>{escape(name)}</li>"
        )
    return f'<ul class="legend">{"".join(items)}</ul>'


def _figure(title: str, subtitle: str, legend: str, drawn: str, height: float) -> str:
    return (
        f"<figure><figcaption>{escape(title)}<small>{escape(subtitle)}</small></figcaption>"
        f'{legend}<svg viewBox="0 0 {WIDTH:.0f} {height:.0f}" role="img" '
        f'aria-label="{escape(title)}">{drawn}</svg></figure>'
    )
