"""Tables of many runs: which runs a row is of, and what its columns show of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fed_ist.comparisons.budgets import Floats, show_accuracy
from fed_ist.comparisons.curves import Curve
from fed_ist.reports.page import Cell, Section
from fed_ist.words import readable_bytes
from sims.experiments.shared_embeddings import Shared


class Key(NamedTuple):
    """What the runs of one cell share: all but their seeds."""

    dataset: str
    partition: str
    clients: int
    method: str


@dataclass(frozen=True)
class Row:
    """A row of a table before it is text.

    runs: of each of the row's keys. first: those of the table's first row. images: on which the
    runs were trained and tested; None where they are not at hand.
    """

    labels: tuple[str, ...]
    runs: tuple[Sequence[Curve], ...]
    first: tuple[Sequence[Curve], ...]
    images: Shared | None


Show = Callable[[Row], str]


@dataclass(frozen=True)
class Table:
    """What a table is to show, whatever runs there are.

    labels: headers of the columns that name a row. columns: by header, what each shows of a row.
    rows: by their names, the keys of their runs; rows without runs are left out, and so are those
    that are not `is_shown`. note: a sentence below the table, made of its first row.
    """

    labels: tuple[str, ...]
    columns: Mapping[str, Show]
    rows: Mapping[tuple[str, ...], tuple[Key, ...]]
    title: str = ""
    note: Show | None = None
    is_shown: Callable[[Row], bool] = lambda _: True


def final(i: int = 0) -> Show:
    """A column of the accuracy after the last round, of a row's i-th key; "" without runs."""
    return lambda row: show_accuracy(finals(row.runs[i])) if row.runs[i] else ""


def best(row: Row) -> str:
    """The accuracy after the best round."""
    return show_accuracy(np.array([max(curve.accuracy) for curve in row.runs[0]]))


def sent(row: Row) -> str:
    """The bytes of a client in the whole run."""
    return readable_bytes(mean_bytes(row.runs[0]))


def has_first(row: Row) -> bool:
    """Whether the row with which all others are compared has runs."""
    return any(row.first)


def finals(runs: Sequence[Curve]) -> Floats:
    """The accuracy of each run after its last round: float64 (s,)."""
    return np.array([curve.accuracy[-1] for curve in runs])


def mean_bytes(runs: Sequence[Curve]) -> float:
    """The mean number of bytes of a client in these runs."""
    return float(np.mean([curve.bytes[-1] for curve in runs]))


def rows_of(table: Table, curves: Sequence[Curve], images: Mapping[str, Shared]) -> list[Row]:
    """The rows of a table that are shown. images: by data set."""
    by_key: dict[Key, list[Curve]] = {}
    for curve in curves:
        key = Key(curve.dataset, curve.partition, curve.clients, curve.method)
        by_key.setdefault(key, []).append(curve)
    runs = {
        labels: tuple(by_key.get(key, []) for key in keys) for labels, keys in table.rows.items()
    }
    first = next(iter(runs.values()))
    rows = [
        Row(labels, each, first, images.get(table.rows[labels][0].dataset))
        for labels, each in runs.items()
        if any(each)
    ]
    return [row for row in rows if table.is_shown(row)]


def section_of(table: Table, rows: Sequence[Row]) -> Section:
    """A table with these rows, as a section of a page."""
    lines = [(*row.labels, *(show(row) for show in table.columns.values())) for row in rows]
    return Section(
        table.title,
        header=(*table.labels, *table.columns),
        rows=tuple(tuple(map(Cell, line)) for line in lines),
        notes=(table.note(rows[0]),) if table.note and rows else (),
    )
