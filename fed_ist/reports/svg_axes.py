"""The axes of a plot as SVG: their ticks, the places of values on them, and the grid.

All lengths are in the SVG's own coordinates. A plot is 360 wide, about as many as a phone has px,
so that its letters are as large as the text around it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import escape

WIDTH, HEIGHT = 360.0, 230.0
LEFT, TOP, BOTTOM = 56.0, 10.0, 42.0
N_TICKS = 5
LETTER_PX = 7.0  # about what a letter takes

Format = Callable[[float], str]


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


def ticks(values: Sequence[float], axis: Axis) -> list[float]:
    """The ticks of an axis on which these values lie."""
    low, high = min(values), max(values)
    if axis.is_log:
        return log_ticks(low, high)
    return linear_ticks(min(0.0, low) if axis.from_zero else low, high)


def scale(marks: Sequence[float], axis: Axis, start: float, end: float) -> Callable[[float], float]:
    """The function from a value to its place, between those of the first and of the last tick."""

    def length(value: float) -> float:
        return math.log10(value) if axis.is_log else value

    low, high = length(marks[0]), length(marks[-1])
    return lambda value: start + (end - start) * (length(value) - low) / (high - low)


def frame(
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    x_place: Callable[[float], float],
    y_place: Callable[[float], float],
    x_axis: Axis,
    y_axis: Axis,
    right: float,
) -> str:
    """Grid, ticks and the name of the x axis; the name of the y axis is above the plot.

    right: where the plot ends.
    """
    bottom = HEIGHT - BOTTOM
    drawn = []
    for tick in y_ticks:
        y = y_place(tick)
        drawn.append(f'<path class="grid" d="M{LEFT},{y:.1f}H{right:.1f}"/>')
        drawn.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">')
        drawn.append(f"{escape(y_axis.show(tick))}</text>")
    labels = [x_axis.show(tick) for tick in x_ticks]
    # Labels that would touch are left out.
    room = (right - LEFT) / (LETTER_PX * max(map(len, labels)) + 8.0)
    every = math.ceil(len(x_ticks) / max(1.0, room))
    for i, (tick, label) in enumerate(zip(x_ticks, labels, strict=True)):
        x = x_place(tick)
        drawn.append(f'<path class="grid" d="M{x:.1f},{TOP}V{bottom}"/>')
        if i % every == 0:
            is_cut = x + LETTER_PX / 2 * len(label) > WIDTH
            anchor = "end" if is_cut else "middle"
            shift = WIDTH - x if is_cut else 0.0
            drawn.append(f'<text x="{x + shift:.1f}" y="{bottom + 16}" text-anchor="{anchor}">')
            drawn.append(f"{escape(label)}</text>")
    drawn.append(f'<path class="axis" d="M{LEFT},{TOP}V{bottom}H{right:.1f}"/>')
    middle = (LEFT + right) / 2
    drawn.append(f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">')
    drawn.append(f"{escape(x_axis.name)}</text>")
    return "".join(drawn)
