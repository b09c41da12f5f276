"""How a run of `fed-ist run` ended: it is told on the terminal and kept in the run's folder."""

import shlex
from contextlib import suppress
from pathlib import Path

import typer

from fed_ist.errors import InputError
from fed_ist.launch.flower_run import Ended
from fed_ist.launch.run_log import LOG
from fed_ist.printable import indented, printable
from fed_ist.runs.alive import PROCESS, forget_alive
from fed_ist.runs.checkpoint import CHECKPOINT_FILE
from fed_ist.runs.folder import KEPT, REASON, TRACEBACK
from fed_ist.runs.reading import open_run
from fed_ist.runs.seals import SUMMARY, forget_told, write_told
from fed_ist.words import readable_bytes

INTERRUPTED, TERMINATED = 130, 143  # exit codes, as shells have them
REPORT = "report.html"
# The files that a run writes before its first round.
EARLY_FILES = (
    *(
        REASON,
        KEPT,
        LOG,
        PROCESS,
        "images.json",
        "rounds.csv",
        "times.csv",
        "ledger.csv",
        "config.toml",
    ),
)


def is_complete(run: Path) -> bool:
    """Whether a run has come to its end and has written its last files.

    The last thing that a run does is to remove its checkpoint.
    """
    with suppress(InputError):
        return open_run(run).is_finished and not (run / CHECKPOINT_FILE).exists()
    return False


def tells(run: Path) -> bool:
    """Whether a run's folder says how the run ended."""
    return is_complete(run) or (run / REASON).exists()


def needs_log(run: Path, ended: Ended) -> bool:
    """Whether only the end of the log can tell why a run is not done."""
    is_refused = (run / REASON).exists() and not (run / TRACEBACK).exists()
    is_stopped = ended.code in (INTERRUPTED, TERMINATED) or ended.is_name_taken
    return not (is_complete(run) or is_refused or is_stopped)


def print_outcome(run: Path, ended: Ended, *, is_new: bool) -> None:
    """Print accuracy, bytes and folder of a run that is done; else say why it is not, and exit.

    is_new: whether the folder is new; if the run was refused then, its folder is removed. Raises
    `InputError` where the run was refused, and `typer.Exit` where it ended in another way before
    its last round.
    """
    if ended.is_name_taken:
        raise InputError(
            f"Another run was given the name '{run.name}' before this one began, which did "
            "nothing. Choose another --name."
        )
    if is_complete(run):
        _print_summary(run)
        return
    code = ended.code
    if code in (INTERRUPTED, TERMINATED):
        how = "Interrupted" if code == INTERRUPTED else "Terminated"
        typer.echo(f"{how}; {_left_by(run)}", err=True)
        keep_reason(run, f"{how}.")
        _say_how_to_resume(run)
        raise typer.Exit(code)
    if (run / REASON).is_file():
        reason = open_run(run).error
        if not (run / TRACEBACK).exists():
            if is_new and not (run / SUMMARY).exists():
                _remove_early(run)
            raise InputError(reason)
    else:
        reason = f"The run did not finish: {ended.reason or f'its process ended with code {code}'}."
        keep_reason(run, reason)
    typer.echo(f"fed-ist: {indented(reason)}\n{_left_by(run).capitalize()}", err=True)
    _say_how_to_resume(run)
    raise typer.Exit(1)


def keep_reason(run: Path, reason: str) -> None:
    """Write a run's error.txt, unless it is there already or the run has no folder on this host."""
    if run.is_dir() and not (run / REASON).exists():
        with suppress(OSError):
            write_told(run, REASON, f"{reason}\n")


def forget_reason(run: Path) -> None:
    """Remove the files that say how a run ended, as it is resumed now."""
    forget_told(run, REASON, TRACEBACK)
    forget_alive(run)


def _print_summary(run: Path) -> None:
    summary = open_run(run).required_summary
    typer.echo(f"accuracy    {100 * float(str(summary['accuracy'])):.2f}%")
    typer.echo(f"bytes down  {readable_bytes(float(str(summary['bytes_down'])))}")
    typer.echo(f"bytes up    {readable_bytes(float(str(summary['bytes_up'])))}")
    if n_skipped := summary.get("images_skipped"):
        typer.echo(f"skipped     {n_skipped} images that cannot be read; {LOG} names them")
    typer.echo(f"results     {printable(run)}")
    typer.echo(f"report      {(run / REPORT).absolute().as_uri()}")
    if why := summary.get("ended_early"):
        typer.echo(f"It ended after round {summary['rounds']}: {printable(why)}.", err=True)


def _left_by(run: Path) -> str:
    return f"what the run wrote is in {printable(run)}" if run.exists() else "nothing was written"


def _remove_early(run: Path) -> None:
    """Remove what a run wrote before its first round, and its folder if nothing else is in it."""
    with suppress(OSError):
        for name in EARLY_FILES:
            (run / name).unlink(missing_ok=True)
        run.rmdir()


def _say_how_to_resume(run: Path) -> None:
    if (run / CHECKPOINT_FILE).exists():
        how = f"fed-ist run --resume {shlex.quote(str(run))}"
        typer.echo(f"It goes on after its last whole round with: {printable(how)}", err=True)
