"""`python -m sims.benchmarks.silent`: what a node that never answers costs a run.

A SuperLink and SuperNodes run on loopback. One SuperNode goes on telling the server that it is
there, but the process that starts its ClientApps is halted: from the start, or after some rounds.
The options are one JSON object.
"""

import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from fed_ist.launch.processes import failure
from fed_ist.runs.reading import open_run
from fed_ist.words import table
from sims.benchmarks.cases import measure_cases
from sims.benchmarks.loopback import Loopback, on_loopback
from sims.benchmarks.soak import RUN, last_round, running_app
from sims.benchmarks.superlink import wait_for_nodes
from sims.drawn_images import draw_images

MIN_NODES = 2
POLL_S = 0.2
HEADER = ("one node falls silent", "run", "against none", "rounds, s", "answered of asked")
NEVER = -2  # the round after which the node falls silent; -1: before the run


@dataclass(frozen=True)
class SilentBench:
    """What is to be measured. n_nodes: one falls silent. silent_after: rounds, a run for each."""

    n_nodes: int = 8
    n_rounds: int = 12
    silent_after: Sequence[int] = (-1, 0, 3)
    out: str = "silent"


def measure(request: SilentBench) -> Iterator[dict[str, Any]]:
    """The figures of a run in which all nodes answer, and of a run for each of `silent_after`."""
    for silent_after in (NEVER, *request.silent_after):
        with tempfile.TemporaryDirectory(prefix="fed-ist-silent-") as name:
            folder = Path(name)
            images = [draw_images(folder / f"images{i}", i, 2) for i in range(request.n_nodes)]
            with on_loopback(folder, images) as hosts:
                wait_for_nodes(hosts, request.n_nodes)
                with standing_still(hosts) as silence:
                    yield one_run(request, hosts, folder, silent_after, silence)


def one_run(
    request: SilentBench, hosts: Loopback, folder: Path, silent_after: int, silence: psutil.Process
) -> dict[str, Any]:
    """The seconds of a run until its last round has ended, and how many nodes answered in each."""
    results, begun_s = folder / "results" / RUN, time.monotonic()
    if silent_after == -1:
        silence.suspend()
    with running_app(MIN_NODES, request.n_rounds, Path.cwd(), hosts, folder) as run:
        while (done := last_round(results)) < request.n_rounds:
            if done >= silent_after >= 0 and silence.status() != psutil.STATUS_STOPPED:
                silence.suspend()
            if run.poll() is not None and last_round(results) < request.n_rounds:
                raise failure("The run failed", folder / "run.log")
            time.sleep(POLL_S)
        seconds = time.monotonic() - begun_s
    rounds = open_run(results).rounds
    return {
        "silent_after": silent_after,
        "seconds": round(seconds, 1),
        "round_s": [round(float(str(row["seconds"])), 1) for row in rounds],
        "asked": [row["asked"] for row in rounds],
        "answered": [row["answered"] for row in rounds],
    }


@contextmanager
def standing_still(hosts: Loopback) -> Iterator[psutil.Process]:
    """The process that starts the last node's ClientApps; if halted, it goes on at the end."""
    children = psutil.Process(hosts.nodes[-1].pid).children()
    (found,) = [child for child in children if "flower-superexec" in " ".join(child.cmdline())]
    try:
        yield found
    finally:
        found.resume()


def render(found: Sequence[Mapping[str, Any]]) -> str:
    """The figures as a table in Markdown."""
    when = {NEVER: "never", -1: "before the run", 0: "once it is prepared"}
    rows = []
    for case in found:
        after, counts = case["silent_after"], zip(case["answered"], case["asked"], strict=True)
        rows.append(
            (
                when.get(after, f"after round {after}"),
                f"{case['seconds']:.0f} s",
                f"{case['seconds'] / found[0]['seconds']:.2f}",
                " ".join(f"{s:.0f}" for s in case["round_s"]),
                " ".join(f"{n}/{of}" for n, of in counts),
            )
        )
    return table(HEADER, rows) + "\n"


def main() -> int:
    """Measure; returns the exit code."""
    request = SilentBench(**json.loads(sys.argv[1] if len(sys.argv) > 1 else "{}"))
    n_cases = 1 + len(request.silent_after)
    return measure_cases("silent", request, measure(request), n_cases, render)


if __name__ == "__main__":
    sys.exit(main())
