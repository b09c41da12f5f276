"""Where files go when nobody says where."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from fed_ist.errors import InputError
from fed_ist.files.installed import checkout


def cache_dir(configured: str) -> Path:
    """The embedding cache: as configured, or `fed-ist` in the user's cache folder."""
    if configured:
        return Path(configured)
    return Path(os.environ.get("XDG_CACHE_HOME") or _home("cache-dir") / ".cache") / "fed-ist"


def make_cache(folder: Path) -> None:
    """Make a cache, and what is missing above it, for its owner alone; raises `OSError`.

    The usual one is made private where others may enter it. A folder that is there already and that
    somebody has named, or linked to, is theirs to share: it stays as it is.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
    if _is_usual_cache(folder):
        found = folder.stat()
        if found.st_mode & 0o077 and found.st_uid == os.geteuid():
            folder.chmod(0o700)


def _is_usual_cache(folder: Path) -> bool:
    try:
        usual = cache_dir("")
    except InputError:
        return False
    return not usual.is_symlink() and folder.resolve() == usual.resolve()


def require_cache(folder: Path, key: str = "cache-dir") -> None:
    """As `make_cache`; raises `InputError` where nothing can be written into it."""
    with suppress(OSError):  # which is told in the same words as of any folder
        make_cache(folder)
    require_writable(folder, key)


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
