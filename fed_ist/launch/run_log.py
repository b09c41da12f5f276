"""Flower's log of a run: kept in a file, and shown where the user wants it or it tells a reason."""

import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from fed_ist.printable import shown

LOG = "flower.log"
N_SHOWN = 40  # lines at its end that tell why a run failed


@contextmanager
def open_run_log(*, is_shown: bool) -> Iterator["RunLog"]:
    """A log that is gone after the block, unless it was kept."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as file:
        yield RunLog(file, is_shown=is_shown)


class RunLog:
    """What the processes of a run print, line by line.

    The run makes its folder itself, and another run may have its name: so lines go to a temporary
    file, which is put into the folder in the end. is_shown: whether lines are printed as well.
    """

    def __init__(self, file: IO[str], *, is_shown: bool) -> None:
        self.is_shown = is_shown
        self._file = file

    def write(self, line: str) -> None:
        """Keep a line, which ends with a newline, and print it if lines are shown."""
        self._file.write(shown(line))
        if self.is_shown:
            print(line, end="", flush=True)

    def keep(self, run: Path) -> None:
        """Append all lines to flower.log in a run's folder, if it has one on this host."""
        if run.is_dir():
            self._file.seek(0)
            with (
                suppress(OSError),
                (run / LOG).open("a", encoding="utf-8", errors="replace") as log,
            ):
                log.writelines(self._file)

    def print_end(self) -> None:
        """Print its last lines to stderr, unless all of it was printed already."""
        if self.is_shown:
            return
        self._file.seek(0)
        for line in deque(self._file, N_SHOWN):
            print(line, end="", file=sys.stderr, flush=True)
