"""The folders for the cache and for results, and whether they can be written to."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from fed_ist.errors import InputError
from fed_ist.files.installed import checkout


def cache_dir(configured: str) -> Path:
    """The cache folder: as configured, or `fed-ist` in the user's cache folder.

    Raises `InputError` where nothing is configured and the user has no home.
    """
    if configured:
        return Path(configured)
    return Path(os.environ.get("XDG_CACHE_HOME") or _home("cache-dir") / ".cache") / "fed-ist"


def make_cache(folder: Path) -> None:
    """Make a cache folder, and missing folders above it, with access for the owner only.

    If others may enter the default cache, their access is removed. Any other folder that exists
    already keeps its permissions, and so does one that the default is a link to: its owner may
    want to share it. Raises `OSError`.
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
    """Make a cache folder as `make_cache` does; raises `InputError` where it is not writable.

    key: what the message calls the folder's setting.
    """
    with suppress(OSError):  # `require_writable` fails too then, and words the message
        make_cache(folder)
    require_writable(folder, key)


def results_dir(configured: str) -> Path:
    """The folder of runs of a command: as configured, else `results/` of the checkout if there is
    one, else `./results`.
    """
    if configured:
        return Path(configured)
    return (checkout() or Path.cwd()) / "results"


def server_results_dir(configured: str) -> Path:
    """The folder of runs of a SuperLink: as configured, else `results/` of the checkout if there is
    one, else `~/fed-ist-results`.

    It does not depend on the working directory, which a daemon keeps from its first start.
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
    """Whether files can be made in a folder; none stays there."""
    try:  # only trying tells: permissions let root write where the file system does not
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def require_absent(target: Path) -> None:
    """Raise `InputError` where something is at a path that is to be written."""
    if target.exists():
        raise InputError(
            f"'{target}' exists already, and nothing is ever overwritten. "
            "Choose another name, or move it away."
        )


def require_writable(folder: Path, key: str) -> None:
    """Make a folder if there is none; raises `InputError` where it is not writable.

    key: what the message calls the folder's setting.
    """
    try:  # only trying tells: permissions let root write where the file system does not
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"{key} = '{folder}' cannot be written to: {error.strerror}. Choose another {key}."
        ) from None
