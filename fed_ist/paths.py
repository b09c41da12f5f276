"""Where files go when nobody says where.

A Flower daemon's working directory is that of its first start, so nothing here depends on it.
"""

import os
import tempfile
from pathlib import Path

from fed_ist.bundled import checkout
from fed_ist.errors import InputError


def cache_dir(configured: str) -> Path:
    """The embedding cache: as configured, or `fed-ist` in the user's cache folder."""
    if configured:
        return Path(configured)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fed-ist"


def results_dir(configured: str) -> Path:
    """The folder of runs: as configured, `results/` of the checkout, or `~/fed-ist-results`."""
    if configured:
        return Path(configured)
    root = checkout()
    return root / "results" if root else Path.home() / "fed-ist-results"


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
