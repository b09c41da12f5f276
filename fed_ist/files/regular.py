"""Files that are nothing but files: no pipe, device or socket is ever opened, nor a link to one.

Reading a pipe waits for ever, and reading a device may never end. What stood there when a folder
was listed may be another thing when it is opened, so what was opened is looked at.
"""

import os
import stat
from pathlib import Path
from typing import BinaryIO


class NoRegularFileError(OSError):
    """What is there is no file; `strerror` says so."""


def open_regular(path: Path | str) -> BinaryIO:
    """A file opened for reading; raises `OSError`, also for what is no regular file."""
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
