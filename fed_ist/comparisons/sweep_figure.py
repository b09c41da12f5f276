"""Draws a sweep: accuracy against mask ratio, a panel for each mask, and bytes against clients."""

from typing import TYPE_CHECKING

import numpy as np

from fed_ist.comparisons.curve_figure import method_styles
from fed_ist.comparisons.probe_table import NO_MASK
from fed_ist.comparisons.sweep_runs import GridCells, clients_of, line_of, masks_of
from fed_ist.reports.accuracy_figure import png

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_sweep(cells: GridCells) -> bytes:
    """The paper's plots of final accuracies, as the bytes of a PNG file.

    Bars are one standard deviation.
    """
    from matplotlib.figure import Figure

    masks = masks_of(cells)
    figure = Figure(figsize=(1 + 3.6 * (len(masks) + 1), 4), layout="constrained")
    panels = figure.subplots(1, len(masks) + 1, squeeze=False)[0]
    for axes, mask in zip(panels, masks, strict=False):
        _draw_mask(axes, cells, mask)
        axes.sharey(panels[0])
    panels[0].set_ylabel("test accuracy after the last round (%)")
    panels[0].legend(title="clients")
    _draw_bytes(panels[-1], cells)
    return png(figure, 110)


def _draw_mask(axes: "Axes", cells: GridCells, mask: str) -> None:
    styles = method_styles([str(clients) for clients in clients_of(cells)])
    for clients in clients_of(cells):
        line, style = line_of(cells, mask, clients), styles[str(clients)]
        values = [100 * np.array([run.final_accuracy for run in cells[cell]]) for cell in line]
        spread = [v.std(ddof=1) if len(v) > 1 else 0.0 for v in values]
        axes.errorbar(
            [100 * cell.mask_ratio for cell in line], [v.mean() for v in values],
            yerr=spread if any(spread) else None, capsize=3, color=style.colour,
            linestyle=style.dashes, marker=style.marker, markersize=5, label=str(clients),
        )  # fmt: skip
    axes.set(xlabel="patches dropped (%)", title="no mask" if mask == NO_MASK else f"mask: {mask}")
    axes.set_xlim(-3, 100)
    axes.grid(alpha=0.3)


def _draw_bytes(axes: "Axes", cells: GridCells) -> None:
    from matplotlib.ticker import EngFormatter

    counts = clients_of(cells)
    runs = {n: [run for c in cells if c.clients == n for run in cells[c]] for n in counts}
    formula = [np.mean([run.slice_bytes for run in runs[n]]) for n in counts]
    measured = [np.mean([run.round_bytes for run in runs[n]]) for n in counts]
    axes.plot(counts, formula, ".-", color="#000000", label="arrays, by formula")
    axes.plot(counts, measured, "o", color="#d55e00", label="messages, measured")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(EngFormatter(unit="B"))
    axes.yaxis.set_minor_formatter(EngFormatter(unit="B"))
    axes.set_xticks(counts)
    axes.set(xlabel="clients", ylabel="bytes", title="per client and round, each way")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
