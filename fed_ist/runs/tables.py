"""Reads the tables of a run, rounds.csv, times.csv and ledger.csv, as rows of numbers and texts.

A table grows line by line, so a run that was cut leaves one cut line at most. Columns that this
version does not know are kept. Lines that the run has sealed (see `fed_ist.runs.seals`) must be
what it wrote. Runs of earlier versions have sealed nothing: there, values that are not possible are
refused.
"""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from fed_ist.runs.seals import LEDGER, RunSeals, damaged, read_sealed
from fed_ist.traffic.ledger import DIRECTIONS, may_follow

CellValue = str | int | float | bool | None
Row = dict[str, CellValue]

# The columns that every version writes: a file without them is no table of a run.
REQUIRED_ROUND_COLUMNS = ("round", "accuracy", "loss", "bytes_down", "bytes_up")
REQUIRED_TIME_COLUMNS = ("round", "seconds")
REQUIRED_LEDGER_COLUMNS = ("round", "node", "direction", "kind", "payload_bytes", "message_bytes")
TEXT_COLUMNS = ("node", "direction", "kind")
WHOLE_COLUMNS = (
    *("round", "bytes_down", "bytes_up", "payload_bytes", "message_bytes", "n_objects"),
    *("link_bytes_down", "link_bytes_up", "asked", "answered", "rejected"),
)
MEASURES = ("accuracy", "loss", "seconds")
WHOLE = re.compile(r"[0-9]{1,18}")  # digits that fit int64
NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?")
NO_NUMBERS = ("nan", "inf", "-inf")
BAD = object()  # stands for a value that is not possible in its column


def read_table(
    run: Path, name: str, needed: Sequence[str], seals: RunSeals
) -> tuple[tuple[Row, ...], str] | None:
    """(the rows of a run's table, a note); None where there is no such table.

    needed: columns that it must have. A cut last line is left out, and the note says so; otherwise
    the note is "". Raises `InputError` for any other damage, and for a file that is no such table.
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


def _parse_cell(column: str, text: str) -> CellValue | object:
    """The value of a cell; BAD where it is not possible in its column."""
    if column in TEXT_COLUMNS:
        return text if column != "direction" or text in DIRECTIONS else BAD
    if column in WHOLE_COLUMNS:
        return int(text) if WHOLE.fullmatch(text) else BAD
    value = parse_value(text)
    if column in MEASURES:  # a run writes nan for what could not be computed
        is_odd = value is None and text not in NO_NUMBERS
        return BAD if isinstance(value, str) or is_odd or _is_beyond(column, value) else value
    return value


def _is_beyond(column: str, value: CellValue) -> bool:
    if value is None:
        return column == "seconds"
    assert not isinstance(value, str)
    return value < 0 or (column == "accuracy" and value > 1)


def parse_value(text: str) -> CellValue:
    """A number if the text is one; None for "" and for numbers that JSON lacks; else the text."""
    if not NUMBER.fullmatch(text):
        return None if text in ("", *NO_NUMBERS) else text
    if WHOLE.fullmatch(text):
        return int(text)
    return finite(float(text))


def finite(value: CellValue) -> CellValue:
    """The value itself; None for nan and the infinities, which JSON lacks."""
    is_odd = isinstance(value, float) and not abs(value) < float("inf")
    return None if is_odd else value
