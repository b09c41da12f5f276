"""Where files go when nobody says where."""

import os
import tempfile
from pathlib import Path

from fed_ist.bundled import checkout
from fed_ist.errors import InputError


def cache_dir(configured: str) -> Path:
    """The embedding cache: as configured, or `fed-ist` in the user's cache folder."""
    if configured:
        return Path(configured)
    return Path(os.environ.get("XDG_CACHE_HOME") or _home("cache-dir") / ".cache") / "fed-ist"


def results_dir(configured: str) -> Path:
    """A command's folder of runs: as configured, `results/` of the checkout, or `./results`."""
    if configured:
        return Path(configured)
    return (checkout() or Path.cwd()) / "results"


def server_results_dir(configured: str) -> Path:
    """That of a SuperLink's runs: as configured, `results/` of the checkout, `~/fed-ist-results`.

    A daemon's working directory is that of its first start, so this does not depend on it.
    """
    if configured:
        return Path(configured)
    root = checkout()
    return root / "results" if root else _home("results-dir") / "fed-ist-results"


def _home(key: str) -> Path:
    try:
        return Path.home()
    except RuntimeError:  # a container's user need not have one
        raise InputError(f"This user has no home folder: give {key}.") from None


def is_writable(folder: Path) -> bool:
    """Whether files can be made in a folder, which leaves none there."""
    try:  # nothing but trying tells: root may write where the file system does not let it
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def require_writable(folder: Path, key: str) -> None:
    """Make a folder if need be; raises `InputError` where nothing can be written into it."""
    try:  # nothing but trying tells: root may write where the file system does not let it
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"{key} = '{folder}' cannot be written to: {error.strerror}. Choose another {key}."
        ) from None
