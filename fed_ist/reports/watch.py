"""Follows a run by reading its files, round by round."""

import shlex
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fed_ist.errors import InputError
from fed_ist.printable import printable
from fed_ist.reports.progress import live_line, number, progress_of, seconds_left
from fed_ist.runs.alive import has_died
from fed_ist.runs.lookup import find_run, missing, run_places
from fed_ist.runs.reading import RunFiles, read_run
from fed_ist.words import readable_bytes, readable_seconds

POLL_S = 0.5
HEADER = f"{'round':>9}  accuracy    loss  {'down':>10}  {'up':>10}  seconds  left"


def wait_for(name: Path, wait_s: float, say: Callable[[str], None]) -> Path:
    """The folder of a run, as soon as there is one; if it is not there yet, `say` is told so.

    Raises `InputError` where it does not appear within `wait_s`.
    """
    deadline = time.monotonic() + wait_s
    n_tries = 0
    while True:
        with suppress(InputError):
            path = find_run(name)
            if (path / "rounds.csv").exists():
                return path
        if time.monotonic() >= deadline:
            raise InputError(
                f"{missing(name, run_places())} None began within {wait_s:g} s. Give the name of a "
                "run, or wait longer with --wait-s."
            )
        if n_tries == 0:
            say(f"{missing(name, run_places())} Waiting {wait_s:g} s for it to begin.")
        n_tries += 1
        time.sleep(min(POLL_S, max(0.0, deadline - time.monotonic())))


def follow(path: Path, say: Callable[[str], None]) -> None:
    """Say a line for each round of a run, those that are there first, until the run ends.

    In a terminal, a line below shows how far the run is. Raises `InputError` where the folder
    disappears or is damaged, and where the run stops with an error or its process is gone.
    """
    from tqdm import tqdm

    say(HEADER)
    n_said, started = 0, time.monotonic()
    with live_line() as line:
        while True:
            is_dead = has_died(path)  # before the files are read, which may tell of the end
            if not path.is_dir():
                raise InputError(
                    f"'{path}' is gone. `fed-ist run` removes the folder of a run that fails "
                    "before its first round, and prints why."
                )
            run = read_run(path)
            with tqdm.external_write_mode():
                for i in range(n_said, len(run.rounds)):
                    say(render_round(run, i))
            n_said = len(run.rounds)
            line.show(progress_of(run), time.monotonic() - started)
            if run.error:
                raise InputError(run.error)
            if run.is_finished:
                break
            if is_dead:
                raise InputError(
                    f"The run has died: the process that wrote '{path}' is gone and left no "
                    f"reason. Go on with: fed-ist run --resume {shlex.quote(str(path))}"
                )
            time.sleep(POLL_S)
    say(f"finished  {printable(path)}")


def render_round(run: RunFiles, i: int) -> str:
    """The line of a run's i-th row: the figures of the round, and the time left after it."""
    row = run.rounds[i]
    planned = "?" if run.num_rounds is None else run.num_rounds
    left_s = seconds_left(run.rounds[: i + 1], run.num_rounds)
    left = "" if left_s is None else readable_seconds(left_s)
    line = (
        f"{row['round']!s:>4}/{planned!s:<4}  {100 * number(row, 'accuracy'):7.2f}%  "
        f"{number(row, 'loss'):6.3f}  {readable_bytes(number(row, 'bytes_down')):>10}  "
        f"{readable_bytes(number(row, 'bytes_up')):>10}  {number(row, 'seconds'):7.1f}  {left}"
    )
    return printable(line).rstrip()
