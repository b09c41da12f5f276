"""The tables of a run, rounds.csv, times.csv and ledger.csv, as rows of numbers and texts.

A table is appended to line by line, so a run that was cut leaves at most one line that is cut too.
Columns that this version does not know are kept. What the run has sealed (see `fed_ist.runs.seals`)
is what it wrote, or refused; of runs of earlier versions, which sealed nothing, what cannot be is.
"""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from fed_ist.runs.seals import LEDGER, RunSeals, damaged, read_sealed
from fed_ist.traffic.ledger import DIRECTIONS, may_follow

Value = str | int | float | bool | None
Row = dict[str, Value]

# What the numbers below are made of; a table without them is none of ours.
ROUND_COLUMNS = ("round", "accuracy", "loss", "bytes_down", "bytes_up")
TIME_COLUMNS = ("round", "seconds")
LEDGER_COLUMNS = ("round", "node", "direction", "kind", "payload_bytes", "message_bytes")
TEXT_COLUMNS = ("node", "direction", "kind")
WHOLE_COLUMNS = (
    *("round", "bytes_down", "bytes_up", "payload_bytes", "message_bytes", "n_objects"),
    *("link_bytes_down", "link_bytes_up", "asked", "answered", "rejected"),
)
MEASURES = ("accuracy", "loss", "seconds")
WHOLE = re.compile(r"[0-9]{1,18}")  # what NumPy's integers hold
NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?")
NO_NUMBERS = ("nan", "inf", "-inf")
BAD = object()  # stands for a cell that cannot be


def read_table(
    run: Path, name: str, needed: Sequence[str], seals: RunSeals
) -> tuple[tuple[Row, ...], str] | None:
    """(the rows of a table of a run, a note); None where there is no such table.

    needed: columns that it must have. A last line that is cut is left out, which the note says; it
    is empty otherwise. Raises `InputError` for any other damage, and for what is no such table.
    """
    data = read_sealed(run, name, seals)
    if data is None:
        return None
    try:
        text = data.decode()
        whole = text[: text.rfind("\n") + 1]
        lines = list(csv.reader(io.StringIO(whole, newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise damaged(run, name, seals, f"it cannot be read ({error})") from None
    note = f"The last line of {name} is cut and left out." if len(whole) < len(text) else ""
    if not lines:
        return (), note
    header = lines[0]
    missing = [column for column in needed if column not in header]
    if missing or len(set(header)) < len(header):
        lacks = f"lacks {', '.join(missing)}" if missing else "has a column twice"
        raise damaged(run, name, seals, f"its first line {lacks}, if it is a table of a run")
    rows = []
    for number, cells in enumerate(lines[1:], start=2):
        row = {column: _parse_cell(column, text) for column, text in zip(header, cells)}  # noqa: B905
        bad = [column for column in needed if row.get(column, BAD) is BAD]
        if len(cells) != len(header) or bad or BAD in row.values():
            raise damaged(
                run,
                name,
                seals,
                f"line {number} is {','.join(cells)!r}, where its columns are {','.join(header)}",
            )
        rows.append(cast(Row, row))
    if name == LEDGER and name in seals.files:
        n_sealed = data[: seals.files[name].n_bytes].count(b"\n") - 1
        sealed_round = max((cast(int, each["round"]) for each in rows[:n_sealed]), default=0)
        for each in rows[n_sealed:]:
            if not may_follow(cast(int, each["round"]), str(each["kind"]), sealed_round):
                raise damaged(run, name, seals, f"after round {sealed_round} comes an earlier one")
    return tuple(rows), note


def _parse_cell(column: str, text: str) -> Value | object:
    """A cell as its column has it; BAD where that cannot be."""
    if column in TEXT_COLUMNS:
        return text if column != "direction" or text in DIRECTIONS else BAD
    if column in WHOLE_COLUMNS:
        return int(text) if WHOLE.fullmatch(text) else BAD
    value = parse_value(text)
    if column in MEASURES:  # nan is one that could not be computed
        is_odd = value is None and text not in NO_NUMBERS
        return BAD if isinstance(value, str) or is_odd or _is_beyond(column, value) else value
    return value


def _is_beyond(column: str, value: Value) -> bool:
    if value is None:
        return column == "seconds"
    assert not isinstance(value, str)
    return value < 0 or (column == "accuracy" and value > 1)


def parse_value(text: str) -> Value:
    """A number where it is one, None for nothing and for numbers that JSON lacks, else the text."""
    if not NUMBER.fullmatch(text):
        return None if text in ("", *NO_NUMBERS) else text
    if WHOLE.fullmatch(text):
        return int(text)
    return finite(float(text))


def finite(value: Value) -> Value:
    """None for nan and the infinities, which JSON lacks."""
    is_odd = isinstance(value, float) and not abs(value) < float("inf")
    return None if is_odd else value
