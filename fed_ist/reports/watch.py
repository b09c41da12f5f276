"""Follows a run by reading its files, round by round."""

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from statistics import median

from fed_ist.errors import InputError
from fed_ist.printable import printable
from fed_ist.runs.lookup import find_run, missing, run_places
from fed_ist.runs.reading import RunFiles, read_run
from fed_ist.runs.tables import Row
from fed_ist.words import readable_bytes

POLL_S = 0.5
MOST_LEFT_S = 1e12  # what a `timedelta` holds, and more than anyone waits
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

    In a terminal, a bar shows how far the run is. Raises `InputError` where the folder disappears
    or is damaged, and where the run stops with an error.
    """
    from tqdm import tqdm

    say(HEADER)
    n_said = 0
    with tqdm(unit="round", disable=None, leave=False, desc="preparing") as bar:
        while True:
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
            if run.rounds:
                bar.total, bar.n = run.num_rounds, _number(run.rounds[-1], "round")
                bar.set_description(printable(path.name))
            if run.error:
                raise InputError(run.error)
            if run.is_finished:
                break
            time.sleep(POLL_S)
    say(f"finished  {printable(path)}")


def render_round(run: RunFiles, i: int) -> str:
    """The line of a run's i-th row: the figures of the round, and the time left after it."""
    row = run.rounds[i]
    planned = "?" if run.num_rounds is None else run.num_rounds
    left_s = seconds_left(run, i)
    left = "" if left_s is None or left_s > MOST_LEFT_S else str(timedelta(seconds=round(left_s)))
    line = (
        f"{row['round']!s:>4}/{planned!s:<4}  {100 * _number(row, 'accuracy'):7.2f}%  "
        f"{_number(row, 'loss'):6.3f}  {readable_bytes(_number(row, 'bytes_down')):>10}  "
        f"{readable_bytes(_number(row, 'bytes_up')):>10}  {_number(row, 'seconds'):7.1f}  {left}"
    )
    return printable(line).rstrip()


def seconds_left(run: RunFiles, i: int) -> float | None:
    """The time that the rounds after the i-th row take, if each takes the median of those before.

    It is None before round 1, as round 0 is the encoding of the images.
    """
    rows = [row for row in run.rounds[: i + 1] if _number(row, "round") > 0]
    done = [_number(row, "seconds") for row in rows if row.get("seconds") is not None]
    if run.num_rounds is None or not done:
        return None
    return max(0.0, run.num_rounds - _number(run.rounds[i], "round")) * median(done)


def _number(row: Row, name: str) -> float:
    """A number of a row; nan where the row has none."""
    value = row.get(name)
    return value if isinstance(value, int | float) else float("nan")
