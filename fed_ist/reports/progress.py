"""How far a run is: told by its files, on one line of a terminal or in a line for each round."""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from fed_ist.errors import InputError
from fed_ist.runs.reading import RunFiles, open_run
from fed_ist.runs.seals import ROUNDS
from fed_ist.runs.tables import Row
from fed_ist.words import readable_bytes, readable_seconds

if TYPE_CHECKING:
    from tqdm import tqdm

POLL_S = 0.5
BAR = "{bar:16} {desc}"


@dataclass(frozen=True)
class Progress:
    """How far a run is after its last round.

    num_rounds, left_s: None where that is not known. n_bytes: of all messages so far.
    """

    round: int
    num_rounds: int | None
    accuracy: float
    n_bytes: float
    left_s: float | None

    @property
    def words(self) -> str:
        """The same as text: `round 3 of 30  97.50%  2.51 MB  1.2 min left`."""
        of = "" if self.num_rounds is None else f" of {self.num_rounds}"
        left = f"  {readable_seconds(self.left_s)} left" if self.left_s else ""
        sent = readable_bytes(self.n_bytes)
        return f"round {self.round}{of}  {100 * self.accuracy:.2f}%  {sent}{left}"


def progress_of(run: RunFiles, n_rows: int | None = None) -> Progress | None:
    """How far a run is after its first `n_rows` evaluations, or all; None where there are none."""
    rows = run.rounds[:n_rows]
    if not rows:
        return None
    return Progress(
        round=int(number(rows[-1], "round")),
        num_rounds=run.num_rounds,
        accuracy=number(rows[-1], "accuracy"),
        n_bytes=sum(number(row, "bytes_down") + number(row, "bytes_up") for row in rows),
        left_s=seconds_left(rows, run.num_rounds),
    )


def seconds_left(rows: Sequence[Row], num_rounds: int | None) -> float | None:
    """The time that the rounds after these take, if each takes the median of these.

    It is None before round 1, as round 0 is the encoding of the images.
    """
    trained = [row for row in rows if number(row, "round") > 0]
    done = [number(row, "seconds") for row in trained if row.get("seconds") is not None]
    if num_rounds is None or not done:
        return None
    return max(0.0, num_rounds - number(rows[-1], "round")) * median(done)


def number(row: Row, name: str) -> float:
    """A number of a row; nan where the row has none."""
    value = row.get(name)
    return value if isinstance(value, int | float) else float("nan")


class LiveLine:
    """The last line of a terminal; where there is no terminal, it shows nothing."""

    def __init__(self, bar: "tqdm[None]") -> None:
        self._bar = bar

    def show(self, progress: Progress | None, seconds: float) -> None:
        """Show how far a run is. seconds: for which it was waited, shown before its first round."""
        if progress is None:
            self._bar.set_description_str(f"preparing images, {readable_seconds(round(seconds))}")
            return
        self._bar.total = progress.num_rounds or max(1, progress.round)
        self._bar.n = min(progress.round, self._bar.total)
        self._bar.set_description_str(progress.words)


@contextmanager
def live_line() -> Iterator[LiveLine]:
    """A live line, which is gone after the block."""
    from tqdm import tqdm

    with tqdm(total=1, bar_format=BAR, disable=None, leave=False) as bar:
        yield LiveLine(bar)


@contextmanager
def following(run: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Tell how far a run is while the block goes on: in a terminal on a live line.

    Elsewhere a line for each round is said. Rounds that are there already are not told. Files that
    cannot be read say nothing here: who reads them in the end tells why.
    """
    ended = threading.Event()
    teller = threading.Thread(target=_tell, args=(run, say, ended, _count_rounds(run)), daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()


def _tell(run: Path, say: Callable[[str], None], ended: threading.Event, n_told: int) -> None:
    started, table = time.monotonic(), run / ROUNDS
    n_bytes, progress = -1, None
    is_seen = sys.stderr.isatty()
    with live_line() as line:
        while True:
            is_last = ended.wait(POLL_S)
            with suppress(OSError, InputError):
                if (size := table.stat().st_size) != n_bytes:  # else nothing is new
                    found = open_run(run)
                    for i in range(n_told, len(found.rounds)):
                        progress = progress_of(found, i + 1)
                        if not is_seen and progress:
                            say(progress.words)
                    n_told, n_bytes = max(n_told, len(found.rounds)), size
            if is_last:
                return
            line.show(progress, time.monotonic() - started)


def _count_rounds(run: Path) -> int:
    with suppress(InputError):
        return len(open_run(run).rounds)
    return 0
