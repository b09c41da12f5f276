"""Runs `flwr run`, passes its output on to the terminal, and finds out why a run ended early."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from fed_ist.config.toml import Value
from fed_ist.launch.environment import own_environment
from fed_ist.launch.processes import exit_at_sigterm, flwr_arguments
from fed_ist.launch.run_log import RunLog
from fed_ist.runs.folder import NAME_TAKEN

STARTED = re.compile(r"Successfully started run (\d+)")
STATUS_TIMEOUT_S = 60.0
ERRORS_S = 5.0
COMPLETED = "finished:completed"
# What Flower says of a run that failed, and what that means.
MEANINGS = {
    "No heartbeat received from the task": "the process of the server's app was killed or stood "
    "still for a minute. If memory ran out, the kernel says so: journalctl -k",
    "Task failed with unknown error.": "the log above says why",
}


@dataclass(frozen=True)
class Ended:
    """How a command that started a run ended.

    code: its exit code, as shells have it. reason: a sentence on why the run ended before it was
    done; "" if it was done, or if its folder says why. is_name_taken: whether another run had the
    folder first, so that nothing in it is of this run.
    """

    code: int
    reason: str = ""
    is_name_taken: bool = False


class NoLongerFollowed(KeyboardInterrupt):
    """Ctrl-C while a run was followed, which does not end the run.

    run_id: Flower's number of the run; "" if it has none yet.
    """

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        self.run_id = run_id


def deploy(
    app: Path, overrides: Mapping[str, Value], superlink: str, is_told: Callable[[], bool]
) -> Ended:
    """Run the app on the nodes of a SuperLink, and follow the run until it ends.

    superlink: the name of a connection in Flower's config. is_told: whether the run's folder says
    how it ended. Raises `NoLongerFollowed` at Ctrl-C.
    """
    environment = own_environment()
    with exit_at_sigterm(), flwr_arguments(app, overrides, superlink) as arguments:
        told = run_and_tell(arguments, environment)
    if told.is_name_taken:
        return Ended(told.code, is_name_taken=True)
    return Ended(told.code, "" if is_told() else why_ended(told.run_id, superlink, environment))


@dataclass(frozen=True)
class Told:
    """What `flwr run` told of a run.

    code: its exit code. run_id: Flower's number of the run; "" if it started none. is_name_taken:
    whether the server said that another run has the name.
    """

    code: int
    run_id: str
    is_name_taken: bool


def run_and_tell(
    arguments: list[str], environment: Mapping[str, str], log: RunLog | None = None
) -> Told:
    """Call `flwr`, pass its output on, and return what it told of the run.

    log: takes the output; None to print it. At Ctrl-C `flwr` is ended, and `NoLongerFollowed` is
    raised.
    """
    process = subprocess.Popen(
        ["flwr", *arguments],
        env={**environment, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        # At a terminal's Ctrl-C it would print a traceback while it loads.
        start_new_session=True,
    )
    run_id, is_name_taken = "", False
    assert process.stdout
    assert process.stderr
    # We print the errors ourselves, so that what could harm the terminal is taken out of them.
    errors = threading.Thread(target=_pass_on, args=(process.stderr, log), daemon=True)
    errors.start()
    try:
        for line in process.stdout:
            if log:
                log.write(line)
            else:
                print(line, end="", flush=True)
            if found := STARTED.search(line):
                run_id = found[1]
            is_name_taken |= NAME_TAKEN in line
        errors.join(ERRORS_S)  # what flwr started may keep it open
        return Told(process.wait(), run_id, is_name_taken)
    except BaseException as end:
        process.kill()
        process.wait()
        if isinstance(end, KeyboardInterrupt):
            raise NoLongerFollowed(run_id) from None
        raise
    finally:
        process.stdout.close()


def _pass_on(output: IO[str], log: RunLog | None) -> None:
    with output:
        for line in output:
            if log:
                log.write(line)
            else:
                print(line, end="", file=sys.stderr, flush=True)


def why_ended(run_id: str, superlink: str, environment: Mapping[str, str]) -> str:
    """Why a run ended, by what the SuperLink says of it; "" if it was completed.

    superlink: the name of a connection in Flower's config.
    """
    if not run_id:
        return "Flower did not start it, and says why above"
    command = ["flwr", "ls", superlink, "--run-id", run_id, "--format", "json"]
    try:
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=STATUS_TIMEOUT_S,
        )
        run = json.loads(done.stdout)["runs"][0]
        status, details = run["status"], run["status-details"]
    except (subprocess.TimeoutExpired, ValueError, LookupError, TypeError):
        return "the SuperLink ended, or no longer answers"
    if status == COMPLETED:
        return ""
    if not status.startswith("finished"):
        return f"its log broke off; follow what it does with: flwr log {run_id} {superlink}"
    meaning = f": {MEANINGS[details]}" if details in MEANINGS else ""
    return f"Flower has it as {status} ({details.rstrip('.')}){meaning}"
