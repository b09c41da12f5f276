"""Reads the folder of a run, finished or not, as far as it goes.

Tables are appended to line by line, so a run that was cut leaves at most one line that is cut too.
Columns that this version does not know are kept.
"""

import csv
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fed_ist.errors import InputError

Value = str | int | float | bool | None
Row = dict[str, Value]

# What the numbers below are made of; a table without them is none of ours.
ROUND_COLUMNS = ("round", "accuracy", "loss", "bytes_down", "bytes_up")
TIME_COLUMNS = ("round", "seconds")
LEDGER_COLUMNS = ("round", "node", "direction", "kind", "payload_bytes", "message_bytes")
TEXT_COLUMNS = ("node", "direction", "kind")


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
        return value if isinstance(value, int) else None

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
    if not (path / "rounds.csv").is_file():
        raise InputError(f"'{path}' is no run: it has no rounds.csv. Give results/<run>.")
    notes: list[str] = []
    rounds = _read_rounds(path, notes)
    ledger: tuple[Row, ...] = ()
    if (path / "ledger.csv").is_file():
        ledger = read_table(path / "ledger.csv", LEDGER_COLUMNS, notes)
    else:
        notes.append("There is no ledger.csv: bytes of single messages are unknown.")
    settings, command = _read_settings(path / "config.toml", notes)
    error = path / "error.txt"
    return RunFiles(
        path=path,
        rounds=rounds,
        ledger=ledger,
        summary=_read_summary(path / "summary.json"),
        settings=settings,
        command=command,
        error=_read_text(error).strip() if error.is_file() else "",
        notes=tuple(notes),
        images=_read_object(path / "images.json"),
    )


def _read_rounds(path: Path, notes: list[str]) -> tuple[Row, ...]:
    """The rows of rounds.csv, with the seconds of times.csv; early versions had these there too."""
    rounds = read_table(path / "rounds.csv", ROUND_COLUMNS, notes)
    if not (path / "times.csv").is_file():
        return rounds
    times = read_table(path / "times.csv", TIME_COLUMNS, [])
    seconds = {row["round"]: row["seconds"] for row in times}
    return tuple({**row, "seconds": seconds.get(row["round"])} for row in rounds)


def read_table(path: Path, needed: Sequence[str], notes: list[str]) -> tuple[Row, ...]:
    """The rows of a CSV file, numbers as numbers; `needed` are columns that it must have.

    A last line that is cut is left out, with a note. Raises `InputError` for any other damage.
    """
    lines = _read_text(path).splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        notes.append(f"The last line of {path.name} is cut and left out.")
        lines.pop()
    reader = csv.reader(lines)
    header = next(reader, [])
    missing = [name for name in needed if name not in header]
    if missing and lines:
        raise InputError(
            f"'{path}' is damaged or no table of a run: its first line lacks {', '.join(missing)}. "
            "Restore the file, or leave this run out."
        )
    rows = []
    for cells in reader:
        row: Row = {
            name: text if name in TEXT_COLUMNS else parse_value(text)
            for name, text in zip(header, cells, strict=False)
        }
        # A round that evaluates to nan is a number that is none; None stands for it.
        bad = [n for n in needed if n not in TEXT_COLUMNS and isinstance(row.get(n), str)]
        if len(cells) != len(header) or bad:
            raise InputError(
                f"'{path}' is damaged: line {reader.line_num} is {','.join(cells)!r}, where its "
                f"columns are {','.join(header)}. Restore the file, or leave this run out."
            )
        rows.append(row)
    return tuple(rows)


def parse_value(text: str) -> Value:
    """A number where it is one, None for nothing and for numbers that JSON lacks, else the text."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return finite(float(text))
    except ValueError:
        return text or None


def finite(value: Value) -> Value:
    """None for nan and the infinities, which JSON lacks."""
    is_odd = isinstance(value, float) and not abs(value) < float("inf")
    return None if is_odd else value


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"'{path}' cannot be read: {error}. Restore the file, or leave this run out."
        ) from None


def _read_summary(path: Path) -> Row:
    """summary.json, its nested values as text; empty where the run has none yet."""
    return {
        key: finite(value) if value is None or isinstance(value, Value) else json.dumps(value)
        for key, value in _read_object(path).items()
    }


def _read_object(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is no such file."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(_read_text(path))
    except ValueError as error:
        raise InputError(f"'{path}' is damaged: {error}. Restore or remove the file.") from None
    if not isinstance(found, dict):
        raise InputError(f"'{path}' is damaged: it is no JSON object. Restore or remove the file.")
    return found


def _read_settings(path: Path, notes: list[str]) -> tuple[Row, str]:
    """config.toml and the command in its first line."""
    if not path.is_file():
        notes.append("There is no config.toml: the settings are unknown.")
        return {}, ""
    text = _read_text(path)
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"'{path}' is damaged: {error}. Restore or remove the file.") from None
    _, mark, command = text.partition("\n")[0].partition("# Repeat this run: ")
    return {
        key: finite(value) if isinstance(value, Value) else str(value)
        for key, value in found.items()
    }, command if mark else ""
