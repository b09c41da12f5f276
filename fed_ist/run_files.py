"""Reads the folder of a run, finished or not, as far as it goes.

Tables are appended to line by line, so a run that was cut leaves at most one line that is cut too.
Columns that this version does not know are kept. What the run has sealed (see `fed_ist.run_seals`)
is what it wrote, or refused; of runs of earlier versions, which sealed nothing, what cannot be is.
"""

import csv
import io
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

from fed_ist.errors import InputError
from fed_ist.ledger import DIRECTIONS, may_follow
from fed_ist.run_seals import (
    CONFIG,
    IMAGES,
    LEDGER,
    ROUNDS,
    SUMMARY,
    TIMES,
    RunSeals,
    damaged,
    read_object,
    read_sealed,
    read_seals,
)

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
MOST_ROUNDS = 2**31


@dataclass(frozen=True)
class RunFiles:
    """What a run's folder holds.

    images: images.json, what was found of the data set (see `fed_ist.inspection`). rounds, ledger:
    the rows of the two tables, each round with its seconds. summary: summary.json. settings:
    config.toml. command: what repeats the run. error: error.txt. All of these may be empty. notes:
    sentences on what is missing or cut.
    """

    path: Path
    rounds: tuple[Row, ...]
    ledger: tuple[Row, ...]
    summary: Row
    settings: Row
    command: str
    error: str
    notes: tuple[str, ...]
    images: Mapping[str, Any] = field(default_factory=dict)

    @property
    def num_rounds(self) -> int | None:
        """How many rounds the run was to have, if its settings say so."""
        value = self.settings.get("num-rounds")
        return value if isinstance(value, int) and 0 <= value < MOST_ROUNDS else None

    @property
    def is_finished(self) -> bool:
        """Whether the run came to its end: it draws its figure there, after its last round.

        report.html does not tell, since `fed-ist report` writes one at any time.
        """
        if self.error:
            return False
        last = self.rounds[-1]["round"] if self.rounds else None
        is_last = last is not None and last == self.num_rounds
        return is_last or (self.path / "accuracy.png").exists()


def read_run(path: Path) -> RunFiles:
    """Read a run's folder; raises `InputError` where it is none, or damaged."""
    if not path.is_dir():
        raise InputError(f"'{path}' is no run: there is no such folder. Give results/<run>.")
    seals = read_seals(path)
    if not seals.files and not (path / ROUNDS).is_file():
        raise InputError(f"'{path}' is no run: it has no rounds.csv. Give results/<run>.")
    try:
        return _read_run(path, seals)
    except InputError:
        # A run that is resumed at this moment has been cut back to its last whole round.
        if (again := read_seals(path)) == seals:
            raise
        return _read_run(path, again)


def _read_run(path: Path, seals: RunSeals) -> RunFiles:
    notes: list[str] = []
    rounds = read_rounds(path, seals, notes)
    ledger = read_table(path, LEDGER, LEDGER_COLUMNS, seals, notes)
    if ledger is None:
        notes.append("There is no ledger.csv: bytes of single messages are unknown.")
    settings, command = _read_settings(path, seals, notes)
    error = read_sealed(path, "error.txt", seals)
    return RunFiles(
        path=path,
        rounds=rounds,
        ledger=ledger or (),
        summary=_read_summary(path, seals),
        settings=settings,
        command=command,
        error="" if error is None else error.decode(errors="replace").strip(),
        notes=tuple(notes),
        images=_read_images(path, seals),
    )


def read_rounds(
    path: Path,
    seals: RunSeals,
    notes: list[str],
    needed: Sequence[str] = ROUND_COLUMNS,
) -> tuple[Row, ...]:
    """The rows of rounds.csv, with the seconds of times.csv; early versions had these there too."""
    rounds = read_table(path, ROUNDS, needed, seals, notes) or ()
    for before, after in pairwise(row["round"] for row in rounds):
        if not cast(int, before) < cast(int, after):
            raise damaged(path, ROUNDS, seals, f"round {after} follows round {before}")
    times = read_table(path, TIMES, TIME_COLUMNS, seals, [])
    if times is None:
        return tuple({"seconds": None, **row} for row in rounds)
    seconds = {row["round"]: row["seconds"] for row in times}
    return tuple({**row, "seconds": seconds.get(row["round"])} for row in rounds)


def read_table(
    run: Path, name: str, needed: Sequence[str], seals: RunSeals, notes: list[str]
) -> tuple[Row, ...] | None:
    """The rows of a table of a run, numbers as numbers; None where there is none.

    needed: columns that it must have. A last line that is cut is left out, with a note. Raises
    `InputError` for any other damage, and for what is no such table.
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
    if len(whole) < len(text):
        notes.append(f"The last line of {name} is cut and left out.")
    if not lines:
        return ()
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
    return tuple(rows)


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


def _read_summary(path: Path, seals: RunSeals) -> Row:
    """summary.json, its nested values as text; empty where the run has none yet."""
    return {
        key: finite(value) if value is None or isinstance(value, Value) else json.dumps(value)
        for key, value in read_object(path, SUMMARY, seals).items()
    }


def _read_images(path: Path, seals: RunSeals) -> dict[str, Any]:
    """images.json, as far as a report shows it."""
    found = read_object(path, IMAGES, seals)
    shape_ok = not found or (
        isinstance(found.get("kind"), str)
        and isinstance(found.get("notes"), list)
        and all(isinstance(note, str) for note in found["notes"])
        and all(_is_object_of(found.get(key, {}), int) for key in ("left_out", "identical"))
        and _is_object_of(found.get("formats"), int)
        and _is_object_of(found.get("examples", {}), str)
        and _is_object_of(found.get("counts"), dict)
        and all(_is_object_of(row, int) for row in found["counts"].values())
    )
    if not shape_ok:
        raise damaged(path, IMAGES, seals, "it does not tell of images")
    return found


def _is_object_of(value: object, kind: type) -> bool:
    return isinstance(value, dict) and all(isinstance(each, kind) for each in value.values())


def _read_settings(path: Path, seals: RunSeals, notes: list[str]) -> tuple[Row, str]:
    """config.toml and the command in its first line."""
    data = read_sealed(path, CONFIG, seals)
    if data is None:
        notes.append("There is no config.toml: the settings are unknown.")
        return {}, ""
    try:
        text = data.decode()
        found = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise damaged(path, CONFIG, seals, str(error)) from None
    _, mark, command = text.partition("\n")[0].partition("# Repeat this run: ")
    return {
        key: finite(value) if isinstance(value, Value) else str(value)
        for key, value in found.items()
    }, command if mark else ""
