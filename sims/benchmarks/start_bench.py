"""`fed-ist bench start`: what passes from the command to the first round of a simulation.

For comparison it also times what it cannot be faster than: Ray's own start, and the answers of an
empty app to plain `flwr run`. The `fed-ist` command calls this module with its options as one JSON
object.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from fed_ist.launch.bundle import slim_app
from fed_ist.launch.environment import own_environment
from fed_ist.launch.processes import (
    end_families,
    end_family,
    failure,
    flwr_arguments,
    free_port,
)
from fed_ist.runs.reading import open_run
from fed_ist.words import table
from sims.benchmarks.cases import measure_cases
from sims.benchmarks.start_app import N_NODES
from sims.drawn_images import draw_images

COMPONENTS = {
    "start_server": "sims.benchmarks.start_app:app",
    "start_node": "sims.benchmarks.start_app:node",
}
RAY = """
import ray
ray.init(include_dashboard=False, log_to_driver=False)
@ray.remote
class Actor:
    def answer(self):
        return 1
ray.get(Actor.remote().answer.remote())
print("answered", flush=True)
"""
TIMEOUT_S = 300.0
FIGURES = {
    "Ray s": "until an actor of a Ray started for it has answered",
    "flwr s": "until the nodes of an empty app have answered to `flwr run`, SuperLink and all",
    "fed-ist s": "until the first round of `fed-ist run`, with all images encoded already",
    "whole s": "until that command has ended, after two rounds",
}


@dataclass(frozen=True)
class StartBench:
    """What `fed-ist bench start` is asked for.

    n_runs: of each kind. out: the folder for start.json and history.jsonl.
    """

    n_runs: int
    out: str


def measure(request: StartBench) -> Iterator[dict[str, float]]:
    """The figures of each turn.

    Raises `InputError` with the end of the log where something fails.
    """
    with tempfile.TemporaryDirectory(prefix="fed-ist-start-") as name:
        folder = Path(name)
        draw_images(folder / "images", 0)
        fed_ist(folder, "first")  # it encodes the images, and fills the file system's cache
        for turn in range(request.n_runs):
            in_round, in_all = fed_ist(folder, f"fed-ist-{turn}")
            yield {
                "Ray s": ray(folder),
                "flwr s": flwr(folder, f"flwr-{turn}"),
                "fed-ist s": in_round,
                "whole s": in_all,
            }


def ray(folder: Path) -> float:
    """The seconds until an actor of a new Ray has answered."""
    log = folder / "ray.log"
    command = [sys.executable, "-c", RAY]
    return timed(command, own_environment(), log, lambda: b"answered" in log.read_bytes())[0]


def flwr(folder: Path, name: str) -> float:
    """The seconds until the nodes of the empty app have answered."""
    home, port = folder / f"{name}-home", free_port()
    environment = {
        **own_environment(),
        "FLWR_HOME": str(home),
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(port),
        "FLWR_LOCAL_CONTROL_API_PORT": str(free_port()),
    }
    settings = {"results-dir": str(folder), "name": name}
    with (
        slim_app(Path.cwd(), COMPONENTS) as app,
        flwr_arguments(app, settings, "local", N_NODES) as arguments,
    ):
        try:
            return timed(
                ["flwr", *arguments], environment, folder / "flwr.log", (folder / name).exists
            )[0]
        finally:
            end_superlink(port)


def fed_ist(folder: Path, name: str) -> tuple[float, float]:
    """(the seconds until the first round, the seconds until the end) of `fed-ist run`."""
    settings = {
        "dataset": folder / "images",
        "results-dir": folder,
        "cache-dir": folder / "cache",
        "hidden-dim": 64,
        "num-rounds": 2,
    }
    command = ["fed-ist", "run", "--nodes", str(N_NODES), "--name", name]
    command += [f"--set={key}={value}" for key, value in settings.items()]
    return timed(
        command,
        own_environment(),
        folder / "fed-ist.log",
        lambda: len(open_run(folder / name).rounds) > 1,  # the first row is round 0
    )


def timed(
    command: Sequence[str], environment: Mapping[str, str], log: Path, is_there: Callable[[], bool]
) -> tuple[float, float]:
    """(the seconds until `is_there`, the seconds until the command has ended).

    Raises `InputError` with the end of its log where the command fails.
    """
    began = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL
        )
    try:
        found = None
        while process.poll() is None and time.monotonic() < began + TIMEOUT_S:
            if found is None and is_there():
                found = time.monotonic() - began
            time.sleep(0.02)
    finally:
        end_family(process)
    if found is None or process.returncode:
        raise failure(f"'{command[0]}' failed", log)
    return found, time.monotonic() - began


def end_superlink(port: int) -> None:
    """End the SuperLink that `flwr run` has left on a port."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            words = process.cmdline()
            if str(port) in words and any("flower-superlink" in word for word in words):
                found.append(process.pid)
    end_families(found)


def render(found: Sequence[Mapping[str, float]]) -> str:
    """A table in Markdown with the medians, and a line on each of its columns."""
    rows = {str(turn): case for turn, case in enumerate(found, start=1)}
    rows["median"] = {key: statistics.median(case[key] for case in found) for key in FIGURES}
    lines = []
    for name, case in rows.items():
        cells = [case[key] for key in FIGURES] + [case["fed-ist s"] - case["Ray s"]]
        lines.append((name, *(f"{cell:.1f}" for cell in cells)))
    meanings = [f"{key}: {meaning}" for key, meaning in FIGURES.items()]
    said = "\n".join([*meanings, "after Ray s: fed-ist s less Ray s"])
    return f"{table(('run', *FIGURES, 'after Ray s'), lines)}\n\n{said}\n"


def main() -> int:
    """Measure; returns the exit code."""
    request = StartBench(**json.loads(sys.argv[1]))
    return measure_cases("start", request, measure(request), request.n_runs, render)


if __name__ == "__main__":
    sys.exit(main())
