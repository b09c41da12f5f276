"""The runs of a sweep by mask, ratio and number of clients, and the text of their CSV file."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np

from fed_ist.comparisons.findings import Measured
from fed_ist.comparisons.probe_table import NO_MASK
from fed_ist.words import csv_text, percent

N_LATE = 10


@dataclass(frozen=True)
class SweepRun:
    """One line of sweep.csv. Accuracies are of the global classifier on the test images.

    mask: `NO_MASK` where nothing is dropped, as all masks are the same there.
    final_accuracy: after the last round.
    best_accuracy: after the best round, which is chosen on the test images.
    late_deviation: the sample standard deviation of the accuracies after the last N_LATE rounds.
    round_bytes: of the messages to one client in one round, and of those back: the mean of the two.
    slice_bytes: of the arrays in one of these messages, by formula.
    device_seconds: of a client's training in the whole run, the clients' mean.
    device_flops: the multiply-adds of that training.
    """

    mask: str
    mask_ratio: float
    clients: int
    seed: int
    rounds: int
    final_accuracy: float
    best_accuracy: float
    late_deviation: float
    round_bytes: float
    slice_bytes: float
    device_seconds: float
    device_flops: float
    n_train: int
    n_test: int


@dataclass(frozen=True)
class GridCell:
    """A mask, a ratio and a number of clients."""

    mask: str
    mask_ratio: float
    clients: int

    @property
    def words(self) -> str:
        """What is dropped, and under which mask."""
        if self.mask == NO_MASK:
            return "nothing dropped"
        return f"{self.mask}, {percent(self.mask_ratio)} dropped"


# The runs of a cell differ in their seeds.
GridCells = Mapping[GridCell, Sequence[SweepRun]]


def by_cell(runs: Sequence[SweepRun]) -> dict[GridCell, list[SweepRun]]:
    """The runs of each cell: by ascending ratio, then in the order of masks, then by clients."""
    masks = list(dict.fromkeys(run.mask for run in runs))
    order = sorted(runs, key=lambda run: (run.mask_ratio, masks.index(run.mask), run.clients))
    found: dict[GridCell, list[SweepRun]] = {}
    for run in order:
        found.setdefault(GridCell(run.mask, run.mask_ratio, run.clients), []).append(run)
    return found


def masks_of(cells: GridCells) -> list[str]:
    """The masks that were swept; `NO_MASK` where nothing was ever dropped."""
    return list(dict.fromkeys(c.mask for c in cells if c.mask != NO_MASK)) or [NO_MASK]


def clients_of(cells: Iterable[GridCell]) -> list[int]:
    """The numbers of clients, ascending."""
    return sorted({cell.clients for cell in cells})


def line_of(cells: GridCells, mask: str, clients: int) -> list[GridCell]:
    """The cells of a mask, and the one where nothing is dropped, by ascending ratio."""
    return [c for c in cells if c.mask in (mask, NO_MASK) and c.clients == clients]


def mean_final_accuracy(cells: GridCells, cell: GridCell) -> Measured:
    """The final accuracy of a cell: the mean over its runs."""
    runs = cells[cell]
    values = np.array([run.final_accuracy for run in runs])
    variance = float(values.var(ddof=1)) / len(runs) if len(runs) > 1 else 0.0
    return Measured(float(values.mean()), runs[0].n_test, variance)


def render_runs(runs: Sequence[SweepRun]) -> str:
    """The text of sweep.csv: a line for each run."""
    return csv_text((field.name for field in fields(SweepRun)), map(asdict, runs))
