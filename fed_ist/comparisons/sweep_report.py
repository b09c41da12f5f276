"""The report of a sweep: a table, sentences on the paper's findings, and a figure.

The paper is Kariotakis et al. (CPAL 2024); what it calls workers are called clients here.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fed_ist.comparisons import findings
from fed_ist.comparisons.budgets import show_accuracy
from fed_ist.comparisons.curve_words import round_length
from fed_ist.comparisons.findings import N_ERRORS, Measured, difference_noise
from fed_ist.comparisons.probe_table import N_PASSES, NO_MASK
from fed_ist.comparisons.sweep_figure import draw_sweep
from fed_ist.comparisons.sweep_runs import (
    N_LATE,
    GridCell,
    GridCells,
    SweepRun,
    by_cell,
    clients_of,
    mean_final_accuracy,
    render_runs,
)
from fed_ist.errors import InputError
from fed_ist.files.atomic import write_atomic
from fed_ist.files.paths import require_writable
from fed_ist.images.masks import MASKS
from fed_ist.reports.page import Cell, Page, Picture, Section, render_html, render_markdown
from fed_ist.words import many, percent, readable_bytes

FIGURE = "sweep.png"


@dataclass(frozen=True)
class Difference:
    """An accuracy minus another, in points. noise: the size up to which a difference is noise."""

    points: float
    noise: float
    words: str

    @property
    def is_clear(self) -> bool:
        """Whether the difference is larger than the noise."""
        return abs(self.points) > self.noise


# --- what the numbers say ------------------------------------------------------------------------


def fixed_in_sweep(cells: GridCells) -> list[str]:
    """Sentences on whether `fixed` is no worse than `random`: in all, by clients, exceptions."""
    pairs = {
        cell: (mean_final_accuracy(cells, cell), mean_final_accuracy(cells, other))
        for cell in cells
        if cell.mask == "fixed"
        and (other := GridCell("random", cell.mask_ratio, cell.clients)) in cells
    }
    if not pairs:
        return ["Not measured: sweep fixed and random at a ratio above 0."]
    found = {
        cell: _difference(*pair, f"{percent(cell.mask_ratio)} dropped")
        for cell, pair in pairs.items()
    }
    n_worse = sum(one.is_clear and one.points < 0 for one in found.values())
    sentences = [
        f"Fixed is no worse than random, as far as this tells, in {len(found) - n_worse} of "
        f"{many(len(found), 'comparison')}, of each ratio with each number of clients."
    ]
    for clients in clients_of(found):
        of_these = [one for cell, one in found.items() if cell.clients == clients]
        sentences.append(f"{many(clients, 'client')}: fixed minus random is {_span(of_these)}.")
    sentences += [
        f"{many(cell.clients, 'client')}, {one.words}: "
        + findings.fixed_against_random(*pairs[cell])
        for cell, one in found.items()
        if one.is_clear
    ]
    return sentences


def half_in_sweep(cells: GridCells) -> list[str]:
    """Sentences on how much accuracy half of the image keeps: in all, then by mask and clients."""
    pairs = {
        half: (mean_final_accuracy(cells, half), mean_final_accuracy(cells, whole))
        for half in cells
        if half.mask_ratio == 0.5 and (whole := GridCell(NO_MASK, 0.0, half.clients)) in cells
    }
    pairs = {cell: pair for cell, pair in pairs.items() if pair[1].accuracy > 0}
    if not pairs:
        return ["Not measured: sweep the ratios 0 and 0.5."]
    kept = [100 * half.accuracy / whole.accuracy for half, whole in pairs.values()]
    return [
        f"Half of the image keeps {min(kept):.1f}% to {max(kept):.1f}% of the accuracy, "
        f"{np.mean(kept):.1f}% on average.",
        *(
            f"{cell.mask}, {many(cell.clients, 'client')}: {findings.half_against_whole(*pair)}"
            for cell, pair in pairs.items()
        ),
    ]


def cost_of_clients(cells: GridCells) -> list[str]:
    """Sentences on what each number of clients loses and saves against the smallest number."""
    fewest, *more = clients_of(cells)
    return [
        sentence for clients in more for sentence in _cost_of_clients(cells, fewest, clients)
    ] or ["Not measured: sweep two numbers of clients."]


def _cost_of_clients(cells: GridCells, fewest: int, clients: int) -> Iterator[str]:
    pairs = {
        cell: other
        for cell in cells
        if cell.clients == clients
        and (other := GridCell(cell.mask, cell.mask_ratio, fewest)) in cells
    }
    if not pairs:
        return
    found = [
        _difference(mean_final_accuracy(cells, cell), mean_final_accuracy(cells, other), cell.words)
        for cell, other in pairs.items()
    ]
    label = f"{many(clients, 'client')} instead of {fewest}"
    yield f"{label}: the accuracy differs by {_span(found)}."
    now, then = (
        [run for cell in which for run in cells[cell]] for which in (pairs, pairs.values())
    )
    flops = _mean(now, "device_flops") / _mean(then, "device_flops")
    messages = _mean(now, "round_bytes") / _mean(then, "round_bytes")
    yield (
        f"{label}: a slice has {readable_bytes(_mean(now, 'slice_bytes'))} by formula instead of "
        f"{readable_bytes(_mean(then, 'slice_bytes'))}; the messages of a round with a client, "
        f"measured one way, have {readable_bytes(_mean(now, 'round_bytes'))} instead of "
        f"{readable_bytes(_mean(then, 'round_bytes'))}, {100 * messages:.1f}%. In the whole run a "
        f"client makes {100 * flops:.1f}% of the multiply-adds."
    )


def _mean(runs: Sequence[SweepRun], name: str) -> float:
    return float(np.mean([getattr(run, name) for run in runs]))


def _difference(a: Measured, b: Measured, words: str) -> Difference:
    return Difference(100 * (a.accuracy - b.accuracy), 100 * difference_noise(a, b), words)


def _span(found: Sequence[Difference]) -> str:
    """Several differences in one clause: mean, smallest, largest, and how many are no noise."""
    low, high = (pick(found, key=lambda one: one.points) for pick in (min, max))
    if len(found) == 1:
        return (
            f"{low.points:+.1f} points ({low.words}), {'beyond' if low.is_clear else 'within'} "
            f"the noise of {low.noise:.1f}"
        )
    n_below, n_above = (
        sum(one.is_clear and (one.points > 0) == up for one in found) for up in (False, True)
    )
    return (
        f"{np.mean([one.points for one in found]):+.1f} points on average of {len(found)}, from "
        f"{low.points:+.1f} ({low.words}) to {high.points:+.1f} ({high.words}); beyond the noise "
        f"it is below 0 in {n_below} of them and above in {n_above}"
    )


# --- the report ----------------------------------------------------------------------------------


def make_page(settings: Mapping[str, object], runs: Sequence[SweepRun], figure: bytes) -> Page:
    """The page of the report, with its figure. settings: run-config keys, and `epochs`."""
    cells = by_cell(runs)
    dataset = Path(str(settings["dataset"])).name
    questions = {
        "Is a fixed mask no worse than random ones?": fixed_in_sweep(cells),
        "Is half the image enough?": half_in_sweep(cells),
        "What do more clients cost?": cost_of_clients(cells),
    }
    alt = "Test accuracy against the share of patches dropped, and bytes against clients"
    header = ("dropped", "mask", *(many(clients, "client") for clients in clients_of(cells)))
    return Page(
        f"Mask ratio, mask and number of clients: {settings['encoder']} on {dataset}",
        (
            Section(dataset, picture=Picture(figure, FIGURE, alt)),
            Section("Accuracy", level=3, header=header, rows=_rows(cells)),
            *(Section(title, level=3, points=tuple(said)) for title, said in questions.items()),
        ),
        _notes(settings, runs),
    )


def _rows(cells: GridCells) -> tuple[tuple[Cell, ...], ...]:
    settings = dict.fromkeys((cell.mask_ratio, cell.mask) for cell in cells)
    rows = []
    for ratio, mask in settings:
        found = [cells.get(GridCell(mask, ratio, clients), []) for clients in clients_of(cells)]
        texts = (percent(ratio), "any" if mask == NO_MASK else mask, *map(_accuracies, found))
        rows.append(tuple(map(Cell, texts)))
    return tuple(rows)


def _accuracies(runs: Sequence[SweepRun]) -> str:
    if not runs:
        return ""
    best = show_accuracy(np.array([run.best_accuracy for run in runs]))
    return f"{show_accuracy(np.array([run.final_accuracy for run in runs]))} ({best})"


def _notes(settings: Mapping[str, object], runs: Sequence[SweepRun]) -> tuple[str, ...]:
    n_train, n_test = runs[0].n_train, runs[0].n_test
    n_seeds = len({run.seed for run in runs})
    late = float(np.median([run.late_deviation for run in runs]))
    notes = [
        "The experiments of Kariotakis et al. (CPAL 2024), whose workers are the clients here. "
        f"Independent Subnetwork Training of a classifier with {settings['hidden-layers']} hidden "
        f"layers of {settings['hidden-dim']} neurons, dealt anew among the clients after every "
        f"{round_length(settings)}, on the frozen embeddings of {n_train} images, less those that "
        f"cannot be read, split over the clients ({settings['partitioner']}); batches of "
        f"{settings['batch-size']}, {settings['optimizer']} with a rate of "
        f"{settings['learning-rate']}, {many(settings['epochs'], 'epoch')} times the "
        "number of clients.",
        f"Accuracy is that of the merged classifier on {n_test} test images after the last round "
        "and, in brackets, after the best round, which is chosen on these test images. Sentences "
        "and figure are of the last round. "
        + (
            f"Means of {n_seeds} seeds, ± their sample standard deviation; the seeds share the "
            "masks."
            if n_seeds > 1
            else "One seed."
        ),
        f"Noise is {N_ERRORS} standard errors of a difference: the binomial ones of both "
        f"accuracies on {n_test} test images and, with several seeds, those of the means. Both "
        "accuracies are of the same test images, so this is rather too much than too little, which "
        'favours "no worse". It leaves out that the accuracy moves from round to round: over the '
        f"last {N_LATE} rounds by a standard deviation of {100 * late:.1f} points, the median of "
        "the runs.",
    ]
    anew = [mask for mask in dict.fromkeys(run.mask for run in runs) if _per_pass(mask)]
    if anew:
        notes.insert(
            2,
            f"{' and '.join(anew).capitalize()}: drawn anew at each pass over the images, from "
            f"{N_PASSES} draws that were encoded once, so that pass i sees draw i modulo "
            f"{N_PASSES}; each round begins a pass of its own. All other masks, and those of the "
            "test images, were drawn once.",
        )
    return tuple(notes)


def _per_pass(mask: str) -> bool:
    return mask in MASKS and MASKS[mask].per_pass


def write_sweep(settings: Mapping[str, object], runs: Sequence[SweepRun], folder: Path) -> None:
    """Write sweep.csv, sweep.md, sweep.png and sweep.html; raises `InputError` without runs."""
    if not runs:
        raise InputError("There is no run to report on.")
    require_writable(folder, "--out")
    figure = draw_sweep(by_cell(runs))
    page = make_page(settings, runs, figure)
    write_atomic(folder / FIGURE, figure)
    write_atomic(folder / "sweep.csv", render_runs(runs).encode())
    write_atomic(folder / "sweep.md", render_markdown(page).encode())
    write_atomic(folder / "sweep.html", render_html(page).encode())
