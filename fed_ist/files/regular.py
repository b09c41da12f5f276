"""Opening regular files only: never a pipe, device or socket, nor a link to one.

Reading a pipe may wait for ever, and reading a device may never end. A path may have become
something else since its folder was listed, so the kind is checked again once it is open.
"""

import os
import stat
from pathlib import Path
from typing import BinaryIO


class NoRegularFileError(OSError):
    """A path leads to something other than a regular file; `strerror` says so."""


def open_regular(path: Path | str) -> BinaryIO:
    """A file opened for reading bytes.

    Raises `OSError`, and its subclass `NoRegularFileError` for what is no regular file.
    """
    _require(Path(path).stat().st_mode, path)  # opening a device may already do something
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        _require(os.fstat(descriptor).st_mode, path)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _require(mode: int, path: Path | str) -> None:
    if not stat.S_ISREG(mode):
        raise NoRegularFileError(0, "it is no regular file", str(path))
