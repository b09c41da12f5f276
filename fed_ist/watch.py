"""Follows a run by its files, round by round."""

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from statistics import median

from fed_ist.errors import InputError
from fed_ist.report import readable_bytes
from fed_ist.run_files import Row, RunFiles, read_run

POLL_S = 0.5
HEADER = f"{'round':>9}  accuracy    loss  {'down':>10}  {'up':>10}  seconds  left"


def follow(path: Path, wait_s: float, say: Callable[[str], None]) -> None:
    """Say a line for each round of a run, those that are there first, until it ends.

    On a terminal a bar shows how far it is. Raises `InputError` where the folder does not appear
    within `wait_s`, goes away, is damaged, or where the run stops with an error.
    """
    from tqdm import tqdm

    _wait_for(path, wait_s)
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
                bar.set_description(path.name)
            if run.error:
                raise InputError(run.error)
            if run.is_finished:
                break
            time.sleep(POLL_S)
    say(f"finished  {path}")


def render_round(run: RunFiles, i: int) -> str:
    """The line of a run's i-th row: bytes of that round, and the time that is left after it."""
    row = run.rounds[i]
    planned = "?" if run.num_rounds is None else run.num_rounds
    left_s = seconds_left(run, i)
    left = "" if left_s is None else str(timedelta(seconds=round(left_s)))
    return (
        f"{row['round']!s:>4}/{planned!s:<4}  {100 * _number(row, 'accuracy'):7.2f}%  "
        f"{_number(row, 'loss'):6.3f}  {readable_bytes(_number(row, 'bytes_down')):>10}  "
        f"{readable_bytes(_number(row, 'bytes_up')):>10}  {_number(row, 'seconds'):7.1f}  {left}"
    ).rstrip()


def seconds_left(run: RunFiles, i: int) -> float | None:
    """What the rounds after the i-th row take if they are like those before, by their median.

    None before round 1: what is before it is the encoding of the images.
    """
    done = [_number(row, "seconds") for row in run.rounds[: i + 1] if _number(row, "round") > 0]
    if run.num_rounds is None or not done:
        return None
    return max(0.0, run.num_rounds - _number(run.rounds[i], "round")) * median(done)


def _wait_for(path: Path, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while not (path / "rounds.csv").exists():
        if time.monotonic() >= deadline:
            raise InputError(
                f"'{path}' is no run, and did not become one within {wait_s:g} s. Give "
                "results/<run>, or wait longer with --wait-s."
            )
        time.sleep(min(POLL_S, max(0.0, deadline - time.monotonic())))


def _number(row: Row, name: str) -> float:
    """A number of a row; nan where it has none."""
    value = row.get(name)
    return value if isinstance(value, int | float) else float("nan")
