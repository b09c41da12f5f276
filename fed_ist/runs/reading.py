"""Reads the folder of a run, finished or not: this is the one place where its files are opened.

`RunFiles` reads each file when it is first asked for and checks it against its seal, so that a
reader of one file depends on no other. `read_run` reads everything that a report shows, and
`read_resumable` what a run goes on from. Of a run of an earlier version, whatever it has is read.
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

from fed_ist.errors import InputError
from fed_ist.files.sealed_tensors import load_sealed
from fed_ist.runs.checkpoint import Checkpoint, read_checkpoint
from fed_ist.runs.confusion import Confusion, parse_confusion
from fed_ist.runs.folder import FIGURE, NO_MODEL, REASON, Model
from fed_ist.runs.seals import (
    CONFIG,
    CONFUSION,
    IMAGES,
    LEDGER,
    MODEL,
    ROUNDS,
    SUMMARY,
    TABLES,
    TIMES,
    RunSeals,
    damaged,
    read_object,
    read_sealed,
    read_seals,
)
from fed_ist.runs.summary import ENDED_EARLY, FINISHED, RUNNING
from fed_ist.runs.tables import (
    REQUIRED_LEDGER_COLUMNS,
    REQUIRED_ROUND_COLUMNS,
    REQUIRED_TIME_COLUMNS,
    CellValue,
    Row,
    finite,
    read_table,
)

FAILED = "failed"  # the state of a run that has an error.txt
MOST_ROUNDS = 2**31
REPEAT = "# Repeat this run: "


@dataclass(frozen=True)
class RunFiles:
    """The files of a run's folder, each read when it is first asked for.

    Each property raises `InputError` where its file is missing or damaged, and is empty where a run
    may lack the file.
    """

    path: Path
    seals: RunSeals

    @cached_property
    def rounds(self) -> tuple[Row, ...]:
        """The rows of rounds.csv, each with its seconds from times.csv.

        Early versions wrote the seconds into rounds.csv.
        """
        rows, _ = self._rounds
        return rows

    @cached_property
    def _rounds(self) -> tuple[tuple[Row, ...], str]:
        rounds, note = read_table(self.path, ROUNDS, REQUIRED_ROUND_COLUMNS, self.seals) or ((), "")
        for before, after in pairwise(row["round"] for row in rounds):
            if not cast(int, before) < cast(int, after):
                raise damaged(
                    self.path, ROUNDS, self.seals, f"round {after} follows round {before}"
                )
        times = read_table(self.path, TIMES, REQUIRED_TIME_COLUMNS, self.seals)
        if times is None:
            return tuple({"seconds": None, **row} for row in rounds), note
        seconds = {row["round"]: row["seconds"] for row in times[0]}
        return tuple({**row, "seconds": seconds.get(row["round"])} for row in rounds), note

    @property
    def ledger(self) -> tuple[Row, ...]:
        """The rows of ledger.csv, one for each message."""
        return self._ledger[0] if self._ledger else ()

    @property
    def has_ledger(self) -> bool:
        """Whether there is a ledger.csv, even one without messages."""
        return self._ledger is not None

    @cached_property
    def _ledger(self) -> tuple[tuple[Row, ...], str] | None:
        return read_table(self.path, LEDGER, REQUIRED_LEDGER_COLUMNS, self.seals)

    @cached_property
    def summary(self) -> Row:
        """The content of summary.json, with nested values as text."""
        return {
            key: finite(value)
            if value is None or isinstance(value, CellValue)
            else json.dumps(value)
            for key, value in read_object(self.path, SUMMARY, self.seals).items()
        }

    @property
    def required_summary(self) -> Row:
        """The same as `summary`, of a run that must have one.

        Raises `InputError` where there is no file.
        """
        if not self.summary and not (self.path / SUMMARY).is_file():
            raise InputError(f"'{self.path}' has no readable summary.json: there is no such file.")
        return self.summary

    @property
    def settings(self) -> Row:
        """The run-config keys in config.toml."""
        return self._config[0]

    @property
    def command(self) -> str:
        """The command that repeats the run, from the first line of config.toml."""
        return self._config[1]

    @cached_property
    def _config(self) -> tuple[Row, str]:
        if (data := read_sealed(self.path, CONFIG, self.seals)) is None:
            return {}, ""
        try:
            text = data.decode()
            found = tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            raise damaged(self.path, CONFIG, self.seals, str(error)) from None
        _, mark, command = text.partition("\n")[0].partition(REPEAT)
        settings = {
            key: finite(value) if isinstance(value, CellValue) else str(value)
            for key, value in found.items()
        }
        return settings, command if mark else ""

    @cached_property
    def images(self) -> Mapping[str, Any]:
        """The content of images.json (see `fed_ist.datasets.inspection`)."""
        found = read_object(self.path, IMAGES, self.seals)
        if found and not _tells_of_images(found):
            raise damaged(self.path, IMAGES, self.seals, "it does not tell of images")
        return found

    @cached_property
    def confusion(self) -> Confusion | None:
        """What the last classifier took the test images for; None before the run's end."""
        if (data := read_sealed(self.path, CONFUSION, self.seals)) is None:
            return None
        try:
            return parse_confusion(data.decode())
        except ValueError as error:
            raise damaged(self.path, CONFUSION, self.seals, str(error)) from None

    @cached_property
    def error(self) -> str:
        """The text of error.txt: why the run ended before it was done."""
        found = read_sealed(self.path, REASON, self.seals)
        return "" if found is None else found.decode(errors="replace").strip()

    @cached_property
    def model(self) -> Model:
        """The trained classifier; raises `InputError` where there is none."""
        path = self.path / MODEL
        if not path.is_file():
            raise InputError(f"'{self.path}' is no run with a model: there is no '{path}'.")
        read_sealed(self.path, MODEL, self.seals)
        params, extras = load_sealed(path, NO_MODEL, is_old_read=MODEL not in self.seals.own)
        try:
            return Model(params=params, **{**extras, "class_names": tuple(extras["class_names"])})
        except (KeyError, TypeError, ValueError) as error:  # of earlier versions, without checksum
            raise InputError(f"'{path}' is cut short or {NO_MODEL} ({error}).") from None

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on files that are missing or cut."""
        no_ledger = "There is no ledger.csv: bytes of single messages are unknown."
        no_settings = "There is no config.toml: the settings are unknown."
        said = (
            self._rounds[1],
            self._ledger[1] if self._ledger else no_ledger,
            "" if (self.path / CONFIG).exists() else no_settings,
        )
        return tuple(note for note in said if note)

    @property
    def num_rounds(self) -> int | None:
        """How many rounds the run was to have; None where its settings do not say."""
        value = self.settings.get("num-rounds")
        return value if isinstance(value, int) and 0 <= value < MOST_ROUNDS else None

    @property
    def state(self) -> str:
        """How far the run has come: `RUNNING`, `FINISHED`, `ENDED_EARLY` or `FAILED`.

        A run that was cut is `RUNNING` too, as its files cannot tell. Runs of earlier versions do
        not write their state: they are done after their last round, or once their figure is there.
        """
        if self.error:
            return FAILED
        if "state" in self.summary:
            return str(self.summary["state"])
        last = self.rounds[-1]["round"] if self.rounds else None
        is_last = last is not None and last == self.num_rounds
        if not is_last and not (self.path / FIGURE).exists():
            return RUNNING
        return ENDED_EARLY if self.summary.get("ended_early") else FINISHED

    @property
    def is_finished(self) -> bool:
        """Whether the run came to its end, even an early one."""
        return self.state in (FINISHED, ENDED_EARLY)


def open_run(path: Path) -> RunFiles:
    """The files of a run, of which only checksums.json is read at once."""
    return RunFiles(path, read_seals(path))


def read_run(path: Path) -> RunFiles:
    """The files of a run, with all that a report shows read at once.

    Raises `InputError` where the folder is no run, or a file is damaged.
    """
    if not path.is_dir():
        raise InputError(f"'{path}' is no run: there is no such folder. Give results/<run>.")
    run = open_run(path)
    if not run.seals.files and not (path / ROUNDS).is_file():
        raise InputError(f"'{path}' is no run: it has no rounds.csv. Give results/<run>.")
    try:
        return _read_all(run)
    except InputError:
        # If the run is being resumed at this moment, its files were just cut back to a whole round.
        again = open_run(path)
        if again.seals == run.seals:
            raise
        return _read_all(again)


def _read_all(run: RunFiles) -> RunFiles:
    for name in ("rounds", "ledger", "settings", "error", "summary", "images", "confusion"):
        getattr(run, name)
    return run


@dataclass(frozen=True)
class Resumable:
    """A run that was cut, at the end of its last whole round.

    tables: the bytes of rounds.csv, times.csv and ledger.csv, by name, which may go on after that
    round. settings, summary, images: the same as in `RunFiles`.
    """

    path: Path
    checkpoint: Checkpoint
    tables: Mapping[str, bytes]
    settings: Row
    summary: Row
    images: Mapping[str, Any]


def read_resumable(path: Path) -> Resumable:
    """What a run goes on from; each file is read once.

    Raises `InputError` where the run has no checkpoint, or a file is damaged.
    """
    checkpoint = read_checkpoint(path)
    run = RunFiles(path, checkpoint.seals)
    try:
        tables = {name: read_sealed(path, name, run.seals) or b"" for name in TABLES}
        return Resumable(path, checkpoint, tables, run.settings, run.summary, run.images)
    except InputError as damage:
        raise InputError(
            f"'{path}' cannot be resumed from its checkpoint of round {checkpoint.round}: {damage}"
        ) from None


def _tells_of_images(found: Mapping[str, Any]) -> bool:
    """Whether images.json has what a report shows of it."""
    return (
        isinstance(found.get("kind"), str)
        and isinstance(found.get("notes"), list)
        and all(isinstance(note, str) for note in found["notes"])
        and all(_is_object_of(found.get(key, {}), int) for key in ("left_out", "identical"))
        and _is_object_of(found.get("formats"), int)
        and _is_object_of(found.get("examples", {}), str)
        and _is_object_of(found.get("counts"), dict)
        and all(_is_object_of(row, int) for row in found["counts"].values())
        and _is_finite(found)
    )


def _is_finite(found: object) -> bool:
    """Whether all numbers of an object that JSON gave are finite; it reads 1e999 as infinite."""
    try:
        json.dumps(found, allow_nan=False)
    except ValueError:
        return False
    return True


def _is_object_of(value: object, kind: type) -> bool:
    return isinstance(value, dict) and all(isinstance(each, kind) for each in value.values())
