"""Plots as SVG markup for a page: lines and bars, coloured by the page's style.

They are 360 units wide, about the width of a phone in px, so that letters are as large as text.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import escape

from fed_ist.reports.page import Cell

WIDTH, HEIGHT = 360.0, 230.0
LEFT, RIGHT, TOP, BOTTOM = 56.0, 12.0, 10.0, 42.0
# Colours of the page's style; series that share one differ in their dashes.
N_COLOURS = 6
DASHES = ("", "7 3", "2 3", "9 3 2 3")
N_TICKS = 5
BAR_PX, ROW_PX = 14.0, 40.0

Format = Callable[[float], str]


@dataclass(frozen=True)
class Series:
    """A line: its name and points. A point is x, y, and the cell whose value y is."""

    name: str
    points: tuple[tuple[float, float, Cell], ...]


@dataclass(frozen=True)
class Axis:
    """name: with the unit. show: a tick's number as text. is_log: 10 times is one length."""

    name: str
    show: Format
    is_log: bool = False
    from_zero: bool = False


def linear_ticks(low: float, high: float) -> list[float]:
    """Round numbers, about `N_TICKS` of them, the first at most `low` and the last at least `high`.

    Steps are 1, 2 or 5 times a power of ten.
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
    """Lines with a mark at each point, and a legend where there are several; '' without points.

    On a log axis points at 0 are left out.
    """
    series = [_drawable(line, x_axis) for line in series]
    xs = [x for line in series for x, _, _ in line.points]
    ys = [y for line in series for _, y, _ in line.points]
    if not xs:
        return ""
    x_ticks, y_ticks = _ticks(xs, x_axis), _ticks(ys, y_axis)
    x_place = _scale(x_ticks, x_axis, LEFT, WIDTH - RIGHT)
    y_place = _scale(y_ticks, y_axis, HEIGHT - BOTTOM, TOP)
    parts = [_frame(x_ticks, y_ticks, x_place, y_place, x_axis, y_axis)]
    for i, line in enumerate(series):
        places = [(x_place(x), y_place(y), cell) for x, y, cell in line.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in places)
        parts.append(f'<g class="s{i % N_COLOURS}"><polyline class="curve" points="{path}"')
        parts.append(f' stroke-dasharray="{_dashes(i)}"/>')
        for x, y, cell in places:
            parts.append(
                f'<circle class="point" cx="{x:.1f}" cy="{y:.1f}" r="3.5" '
                f'data-key="{escape(cell.key)}" data-value="{escape(cell.json_value)}">'
                f"<title>{escape(cell.text)}</title></circle>"
            )
        parts.append("</g>")
    legend = _legend([line.name for line in series]) if len(series) > 1 else ""
    return _figure(title, y_axis.name, legend, "".join(parts), HEIGHT)


def bar_chart(
    title: str, subtitle: str, rows: Sequence[tuple[str, Sequence[Cell]]], names: Sequence[str]
) -> str:
    """Horizontal bars from 0 on; a bar has a piece for each of `names`, or one; '' without bars.

    A row is its label and the cells of its pieces, whose values are not negative; the label tells
    the value of a bar of one piece.
    """
    totals = [sum(_number(cell) for cell in cells) for _, cells in rows]
    if not any(totals):
        return ""
    scale = (WIDTH - RIGHT) / max(totals)
    parts = []
    for i, (label, cells) in enumerate(rows):
        y, x = i * ROW_PX, 0.0
        value = f": {cells[0].text}" if len(names) < 2 else ""
        parts.append(f'<text x="0" y="{y + 14:.0f}">{escape(_shorten(label + value))}</text>')
        for j, cell in enumerate(cells):
            width = _number(cell) * scale
            parts.append(
                f'<g class="s{j % N_COLOURS}"><rect class="bar" x="{x:.1f}" y="{y + 19:.0f}" '
                f'width="{width:.2f}" height="{BAR_PX:.0f}" data-key="{escape(cell.key)}" '
                f'data-value="{escape(cell.json_value)}"><title>{escape(cell.text)}</title>'
                "</rect></g>"
            )
            x += width
    legend = _legend(names, are_lines=False) if len(names) > 1 else ""
    return _figure(title, subtitle, legend, "".join(parts), len(rows) * ROW_PX)


def _shorten(text: str) -> str:
    """Text that fits the width of a plot, at about 7 units a letter."""
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
    """Where a value lies, between the places of the first tick and of the last."""

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
    """Grid, ticks and the name of the x axis; that of the y axis is above the plot."""
    bottom = HEIGHT - BOTTOM
    parts = []
    for tick in y_ticks:
        y = y_place(tick)
        parts.append(f'<path class="grid" d="M{LEFT},{y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">')
        parts.append(f"{escape(y_axis.show(tick))}</text>")
    labels = [x_axis.show(tick) for tick in x_ticks]
    # Labels that would touch are left out, at about 7 units a letter.
    room = (WIDTH - LEFT - RIGHT) / (7.0 * max(map(len, labels)) + 8.0)
    every = math.ceil(len(x_ticks) / max(1.0, room))
    for i, (tick, label) in enumerate(zip(x_ticks, labels, strict=True)):
        x = x_place(tick)
        parts.append(f'<path class="grid" d="M{x:.1f},{TOP}V{bottom}"/>')
        if i % every == 0:
            is_cut = x + 3.5 * len(label) > WIDTH
            anchor = "end" if is_cut else "middle"
            shift = WIDTH - x if is_cut else 0.0
            parts.append(f'<text x="{x + shift:.1f}" y="{bottom + 16}" text-anchor="{anchor}">')
            parts.append(f"{escape(label)}</text>")
    parts.append(f'<path class="axis" d="M{LEFT},{TOP}V{bottom}H{WIDTH - RIGHT}"/>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">')
    parts.append(f"{escape(x_axis.name)}</text>")
    return "".join(parts)


def _dashes(i: int) -> str:
    return DASHES[(i // N_COLOURS + i) % len(DASHES)]


def _legend(names: Sequence[str], are_lines: bool = True) -> str:
    """Names beside a piece of their line, or of their bar."""
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
