"""Finds a run's folder by its name: in the current folder, or where runs are kept."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from fed_ist.errors import InputError
from fed_ist.files.paths import results_dir, server_results_dir
from fed_ist.printable import printable

# A folder with one of these is a run's: the first is there from the start, the others come later.
MARKS = ("rounds.csv", "summary.json", "model.safetensors")
N_LISTED = 8


def find_run(name: Path) -> Path:
    """The folder of a run, given by its name or path; raises `InputError` where there is none.

    A folder or file that exists but is no run is returned too: the function that reads it says what
    it lacks.
    """
    return look_up(name, run_places())


def look_up(name: Path, places: Sequence[Path]) -> Path:
    """The same as `find_run`, but in these folders; the first that has the run counts."""
    paths = [place / name.expanduser() for place in places]
    for is_it in (is_run, Path.exists):
        for path in paths:
            if is_it(path):
                return path
    raise InputError(f"{missing(name, places)} Give one of these, or the path of another.")


def missing(name: Path, places: Sequence[Path]) -> str:
    """Sentences for a run that was not found: where it was looked for, and which runs are there."""
    if name.expanduser().is_absolute():
        return f"There is no run '{name}'. {_what_is_in(name.expanduser().parent)}"
    folders = [place.absolute() for place in places]
    where = " nor in ".join(f"'{folder}'" for folder in folders)
    return f"There is no run '{name}', neither in {where}. {_what_is_in(*folders)}"


def is_run(path: Path) -> bool:
    """Whether this is the folder of a run."""
    return any((path / mark).is_file() for mark in MARKS)


def run_places() -> list[Path]:
    """The folders in which runs are looked for, in this order."""
    results = [results_dir("")]
    with suppress(InputError):  # without a home no SuperLink of this user has written anything
        results.append(server_results_dir(""))
    return [Path(), *dict.fromkeys(results)]


def _what_is_in(*folders: Path) -> str:
    """The runs in these folders, the newest first."""
    found = {path for folder in folders if folder.is_dir() for path in _runs(folder)}
    if not found:
        return "No runs are there."
    newest = sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)
    names = ", ".join(printable(path.name) for path in newest[:N_LISTED])
    more = f" and {len(newest) - N_LISTED} more" if len(newest) > N_LISTED else ""
    return f"The runs there: {names}{more}."


def _runs(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if is_run(path)]
    except OSError:
        return []
