"""Files and folders that are there whole or not at all, also after a power cut.

They are built in the same folder under a hidden name that ends in `.part`, forced to the disk, and
renamed. What a power cut leaves half-built is swept away later.
"""

import os
import shutil
import time
import uuid
from contextlib import suppress
from pathlib import Path

STALE_S = 3600.0  # nothing is built for this long without a byte being written


def temporary_path(path: Path) -> Path:
    """A hidden path in the folder of `path` to build it under, different at each call."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that at any moment a reader finds either the whole old or the whole new.

    An `OSError` names this file, not the draft.
    """
    draft = temporary_path(path)
    try:
        with draft.open("wb") as file:
            file.write(data)
        put_in_place(draft, path)
    except OSError as error:
        if error.errno is not None:
            error.filename, error.filename2 = str(path), None  # the name that the user knows
        raise
    finally:
        draft.unlink(missing_ok=True)


def put_in_place(draft: Path, path: Path) -> None:
    """Rename `draft`, a file or a folder of files, to `path` once its content is on the disk."""
    for file in draft.iterdir() if draft.is_dir() else [draft]:
        _settle(file)
    if draft.is_dir():
        _settle(draft)
    draft.replace(path)
    _settle(path.parent)


def _settle(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def clear(path: Path) -> None:
    """Remove the file, link or folder at a path, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove half-built files and folders that were last written more than `STALE_S` ago."""
    for draft in folder.glob(".*.part"):
        with suppress(OSError):
            newest = max(p.stat().st_mtime for p in [draft, *draft.glob("*")])
            if time.time() - newest > STALE_S:
                shutil.rmtree(draft) if draft.is_dir() else draft.unlink()
