"""Draws accuracy against bytes: a panel for each partition and number of clients."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Literal

import numpy as np

from fed_ist.comparisons.budgets import average, best_of, first_bytes
from fed_ist.comparisons.curves import Curve, Setting, by_setting
from fed_ist.reports.accuracy_figure import png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# matplotlib's dashes: a name, or an offset and the lengths of strokes and gaps.
Dashes = Literal["-"] | tuple[float, tuple[float, ...]]

# Okabe and Ito's colours, which colour-blind eyes tell apart, without the yellow, pale on white.
COLOURS = ("#000000", "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
# Methods that have the same colour differ in their dashes.
DASHES: tuple[Dashes, ...] = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))
# Eight markers and seven colours: methods with the same colour have other markers.
MARKERS = "osD^vXP*"
# How far the axis goes below the lowest best accuracy, as a share of the range of these.
BELOW = 0.6


@dataclass(frozen=True)
class Style:
    """What a method looks like in every panel."""

    colour: str
    dashes: Dashes
    marker: str


def method_styles(methods: Sequence[str]) -> dict[str, Style]:
    """A style for each method; 28 differ in colour or dashes, and 56 if markers count too."""
    return {
        method: Style(
            COLOURS[i % len(COLOURS)],
            DASHES[i // len(COLOURS) % len(DASHES)],
            MARKERS[i % len(MARKERS)],
        )
        for i, method in enumerate(methods)
    }


def draw_curves(curves: Sequence[Curve], styles: Mapping[str, Style], chosen: str) -> bytes:
    """The runs on one data set, as the bytes of a PNG file; the line of `chosen` is thicker.

    Lines are means over seeds of the best accuracy so far, and bands are one standard deviation.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import EngFormatter

    found = by_setting(curves)
    (dataset,) = {setting.dataset for setting in found}
    partitions = list(dict.fromkeys(setting.partition for setting in found))
    counts = sorted({setting.clients for setting in found})
    methods = [method for method in styles if any(curve.method == method for curve in curves)]
    inches = max(7.0, 1.4 + 3.3 * len(counts))
    # An entry of the legend takes 0.75 inches for its stroke, and about 0.065 for each letter.
    columns = max(1, int(inches / (0.75 + 0.065 * max(map(len, methods)))))
    legend_inches = 0.2 * -(-len(methods) // columns)
    figure = Figure(
        figsize=(inches, 0.8 + 2.6 * len(partitions) + legend_inches),
        layout="constrained",
    )
    panels = figure.subplots(len(partitions), len(counts), sharex=True, sharey=True, squeeze=False)
    least_bytes = min((n for curve in curves for n in curve.bytes if n > 0), default=1)
    for axes, place in zip(panels.flat, product(partitions, counts), strict=True):
        setting = Setting(dataset, *place)
        axes.set_title(setting.words, fontsize=10)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(EngFormatter(unit="B"))
        axes.grid(alpha=0.3)
        if setting not in found:
            axes.text(0.5, 0.5, "not run", transform=axes.transAxes, ha="center", color="#777777")
        for method, runs in found.get(setting, {}).items():
            _draw_method(axes, runs, least_bytes, styles[method], 3.0 if method == chosen else 1.3)
    panels[0, 0].set_ylim(*_limits([runs for m in found.values() for runs in m.values()]))
    figure.supxlabel("bytes a client has received and sent", fontsize=10)
    figure.supylabel("best test accuracy so far (%)", fontsize=10)
    handles = [
        Line2D([], [], color=s.colour, linestyle=s.dashes, marker=s.marker, markersize=5, label=m)
        for m, s in ((method, styles[method]) for method in methods)
    ]
    figure.legend(
        handles=handles, loc="outside upper center", ncols=columns, fontsize=8, handlelength=4
    )
    return png(figure, 110)


def _draw_method(
    axes: "Axes", runs: Sequence[Curve], least_bytes: int, style: Style, width: float
) -> None:
    """A step line with its band and a marker at its end; only a marker where there is one point."""
    points = np.unique([n for run in runs for n in run.bytes if n >= first_bytes(runs)]).astype(
        float
    )
    found = average(runs, points)
    mean, deviation = 100 * found.mean, 100 * found.deviation
    x = points.clip(min=least_bytes)  # a log axis has no 0
    order = 4 if width > 2 else 3
    if len(points) == 1:
        spread = deviation if found.n_seeds > 1 else None
        axes.errorbar(
            x, mean, yerr=spread, color=style.colour, marker=style.marker, ms=7, capsize=3,
            zorder=order, linestyle="none",
        )  # fmt: skip
        return
    if found.n_seeds > 1:
        axes.fill_between(
            x, mean - deviation, mean + deviation,
            step="post", color=style.colour, alpha=0.15, linewidth=0,
        )  # fmt: skip
    axes.plot(
        x, mean, color=style.colour, linestyle=style.dashes, linewidth=width,
        drawstyle="steps-post", marker=style.marker, markevery=[len(x) - 1], ms=5, zorder=order,
    )  # fmt: skip


def _limits(methods: Sequence[Sequence[Curve]]) -> tuple[float, float]:
    """The ends of the accuracy axis in percent, by where methods end and not where they begin."""
    best = [100 * float(best_of(runs).mean()) for runs in methods]
    spread = max(max(best) - min(best), 2.0)
    return max(0.0, min(best) - BELOW * spread), max(best) + 0.1 * spread
