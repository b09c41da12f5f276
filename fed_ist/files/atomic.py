"""Files and folders that are there whole or not at all, also after a power cut.

They are built beside their place under a hidden name that ends in `.part`, forced to the disk, and
renamed. What a cut leaves of the building is swept away later.
"""

import os
import shutil
import time
import uuid
from contextlib import suppress
from pathlib import Path

STALE_S = 3600.0  # nothing is built for so long without a byte being written


def part_of(path: Path) -> Path:
    """A name beside `path` to build it under, which nobody else has."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that a reader finds the old one or the new one, whole."""
    part = part_of(path)
    try:
        with part.open("wb") as file:
            file.write(data)
        put_in_place(part, path)
    finally:
        part.unlink(missing_ok=True)


def put_in_place(part: Path, path: Path) -> None:
    """Rename a file, or a folder of files, once its content is on the disk."""
    for file in part.iterdir() if part.is_dir() else [part]:
        _settle(file)
    if part.is_dir():
        _settle(part)
    part.replace(path)
    _settle(path.parent)


def _settle(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def clear(path: Path) -> None:
    """Remove whatever is at a place, a file, a link or a folder, if anything is."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what earlier cuts have left of files and folders that were being built."""
    for part in folder.glob(".*.part"):
        with suppress(OSError):
            newest = max(p.stat().st_mtime for p in [part, *part.glob("*")])
            if time.time() - newest > STALE_S:
                shutil.rmtree(part) if part.is_dir() else part.unlink()
