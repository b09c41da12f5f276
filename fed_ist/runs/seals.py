"""Checksums of a run's files, in checksums.json, by which damage is found.

The file is written after each round, once everything that it tells of is on the disk. Tables go on
growing, so the beginning of each is sealed, and the whole of it once the run has come to its end.
Files that are replaced in each round have a checksum within them.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import Any

from fed_ist.errors import InputError
from fed_ist.files.atomic import write_atomic
from fed_ist.files.sealed_tensors import is_whole
from fed_ist.files.seals import (
    NOT_AS_WRITTEN,
    DamagedError,
    Seal,
    parse_sealed_json,
    read_sealed_json,
    seal_of,
    sealed_json,
)

CHECKSUMS_FILE = "checksums.json"
CONFIG, IMAGES, SUMMARY, MODEL = "config.toml", "images.json", "summary.json", "model.safetensors"
ROUNDS, TIMES, LEDGER = "rounds.csv", "times.csv", "ledger.csv"
CONFUSION = "confusion.csv"
TABLES = (ROUNDS, TIMES, LEDGER)
OWN = (IMAGES, SUMMARY, MODEL)  # those with a checksum of their own
RESTORE = "Restore the file, or leave this run out."


@dataclass(frozen=True)
class RunSeals:
    """The seals of a run's files.

    files: by name. own: the files that have a checksum within them and must be there. is_done:
    whether the run has come to its end, after which nothing grows. All three are empty for a run of
    an earlier version, and for a run before its first evaluation.
    """

    files: Mapping[str, Seal] = field(default_factory=dict)
    own: tuple[str, ...] = ()
    is_done: bool = False


def write_seals(run: Path, seals: RunSeals) -> None:
    """Replace checksums.json."""
    files = {name: astuple(seal) for name, seal in seals.files.items()}
    values = {"files": files, "own": list(seals.own), "is_done": seals.is_done}
    write_atomic(run / CHECKSUMS_FILE, sealed_json(values, indent=2))


def read_seals(run: Path) -> RunSeals:
    """What checksums.json says; nothing where there is no such file.

    Raises `InputError` where it is damaged.
    """
    path = run / CHECKSUMS_FILE
    if not os.path.lexists(path):
        return RunSeals()
    found = read_sealed_json(
        path, "Remove it to have the run's files read without checksums.", is_old_read=False
    )
    files = {name: Seal(*numbers) for name, numbers in found["files"].items()}
    return RunSeals(files, tuple(found["own"]), found["is_done"])


def read_sealed(run: Path, name: str, seals: RunSeals) -> bytes | None:
    """The bytes of a run's file; None where there is none and the run may lack it.

    Raises `InputError` where it is missing or not what the run wrote.
    """
    path, seal = run / name, seals.files.get(name)
    if not os.path.lexists(path):
        if seal or name in seals.own:
            raise damaged(run, name, seals, "it is missing")
        return None
    try:
        data = path.read_bytes()
    except OSError as error:
        raise damaged(run, name, seals, error.strerror or str(error)) from None
    if seal and not seal.fits(data, to_the_end=seals.is_done or name not in TABLES):
        raise damaged(run, name, seals, NOT_AS_WRITTEN)
    return data


def read_object(run: Path, name: str, seals: RunSeals) -> dict[str, Any]:
    """A run's JSON file as an object; empty where there is none and the run may lack it.

    Raises `InputError` where it is missing or damaged.
    """
    data = read_sealed(run, name, seals)
    if data is None:
        return {}
    try:
        return parse_sealed_json(data, is_old_read=name not in seals.own)
    except ValueError as error:
        raise damaged(run, name, seals, str(error)) from None


def damaged(run: Path, name: str, seals: RunSeals, why: str) -> InputError:
    """The error to raise for a run's file that cannot be used."""
    return DamagedError(f"'{run / name}' is damaged: {why}. {what_is_left(run, name, seals)}")


def what_is_left(run: Path, name: str, seals: RunSeals) -> str:
    """Sentences on what can be done without a file of a run, and which of the others are whole."""
    if not seals.files:
        return RESTORE
    names = dict.fromkeys((*seals.files, *seals.own))
    whole = [other for other in names if other != name and _is_whole(run, other, seals)]
    told = f"Whole are {', '.join(whole)}" if whole else "No other file is whole"
    use = ", so that `fed-ist predict` works" if MODEL in whole else ""
    as_it_is = (
        f" To have it read as it is now, delete '{run / CHECKSUMS_FILE}'." if name in TABLES else ""
    )
    return f"Restore it from a copy. {told}{use}.{as_it_is}"


def _is_whole(run: Path, name: str, seals: RunSeals) -> bool:
    try:
        data = (run / name).read_bytes()
        if name == MODEL:
            return is_whole(data)
        if name in OWN:
            read_sealed_json(run / name, "", is_old_read=False)
            return True
        return seals.files[name].fits(data, to_the_end=seals.is_done or name not in TABLES)
    except (OSError, InputError):
        return False


def write_told(run: Path, name: str, text: str) -> None:
    """Write a file that tells how a run ended, and seal it if the run's files are sealed."""
    data = text.encode(errors="backslashreplace")
    write_atomic(run / name, data)
    with suppress(InputError):
        if (seals := read_seals(run)).files:
            write_seals(run, replace(seals, files={**seals.files, name: seal_of(data)}))


def forget_told(run: Path, *names: str) -> None:
    """Remove files that `write_told` wrote, and their seals."""
    with suppress(InputError):
        seals = read_seals(run)
        if any(name in seals.files for name in names):
            kept = {name: seal for name, seal in seals.files.items() if name not in names}
            write_seals(run, replace(seals, files=kept))
    for name in names:
        (run / name).unlink(missing_ok=True)
