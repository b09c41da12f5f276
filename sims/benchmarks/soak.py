"""`fed-ist bench soak`: whether a federation that runs for long takes more and more.

A SuperLink with its database on disk and SuperNodes run on loopback. A run of many short rounds
trains on a few drawn images, and memory, open files and disk are measured every few rounds. The
`fed-ist` command calls this module with its options as one JSON object.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from fed_ist.launch.processes import end_family, failure
from fed_ist.runs.reading import open_run
from sims.benchmarks.loopback import SUPERLINK, Loopback, on_loopback
from sims.benchmarks.process_samples import Sample, take_sample
from sims.benchmarks.soak_report import write_soak
from sims.drawn_images import draw_images
from sims.endings import exit_code

POLL_S = 0.5
MAX_SAMPLES = 250
RUN = "soak"


@dataclass(frozen=True)
class Soak:
    """What `fed-ist bench soak` is asked for.

    minutes: after these it ends, whatever the round. out: the folder for soak.json and soak.md.
    """

    n_nodes: int
    n_rounds: int
    minutes: float
    out: str


def soak(request: Soak, app: Path) -> list[Sample]:
    """Run the rounds for which the time is enough, and write the report after each sample.

    Raises `InputError` where the run fails; the report then has the samples up to that.
    """
    samples: list[Sample] = []

    def report(ended: str) -> None:
        write_soak(Path(request.out), samples, request.n_rounds, request.n_nodes, ended)

    with tempfile.TemporaryDirectory(prefix="fed-ist-soak-") as name:
        folder = Path(name)
        images = [draw_images(folder / f"images{i}", i) for i in range(request.n_nodes)]
        with (
            on_loopback(folder, images) as hosts,
            running_app(request.n_nodes, request.n_rounds, app, hosts, folder) as run,
            tqdm(total=request.n_rounds, unit="round") as bar,
        ):
            try:
                for sample in watch(request, hosts, run, folder / "results" / RUN):
                    samples.append(sample)
                    bar.update(sample.round - bar.n)
                    report("It goes on.")
            except (KeyboardInterrupt, SystemExit):
                report("It was interrupted.")
                raise
            if run.poll():
                report("The run failed.")
                raise failure("The run failed", folder / "run.log")
            is_complete = run.returncode == 0  # read here, as it changes once the run is ended
    report("All rounds were run." if is_complete else "The time was up before all rounds.")
    return samples


@contextmanager
def running_app(
    n_nodes: int, n_rounds: int, app: Path, hosts: Loopback, folder: Path
) -> Iterator["subprocess.Popen[bytes]"]:
    """A run of the real app with all nodes in each round; it is ended with the block."""
    settings = {
        "dataset": folder / "images0",
        "results-dir": folder / "results",
        "hidden-dim": 16,
        "num-rounds": n_rounds,
        "local-steps": 1,
        "min-nodes": n_nodes,
    }
    command = [sys.executable, "-c", "from fed_ist.cli.main import main; main()"]
    command += ["run", "--on", SUPERLINK, "--name", RUN, "--app", str(app)]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    with (folder / "run.log").open("wb") as log:
        process = subprocess.Popen(
            command, env=hosts.environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield process
    finally:
        end_family(process)


def watch(
    request: Soak, hosts: Loopback, run: "subprocess.Popen[bytes]", results: Path
) -> Iterator[Sample]:
    """A sample after every few rounds, until the run ends or the time is up."""
    begun_s, next_round = time.monotonic(), 0
    step = max(1, request.n_rounds // MAX_SAMPLES)
    while run.poll() is None and time.monotonic() - begun_s < 60 * request.minutes:
        done = last_round(results)
        # No sample after the last round, as the ServerApp writes its report then.
        if next_round <= done < request.n_rounds:
            yield take_sample(done, round(time.monotonic() - begun_s, 1), hosts, results)
            next_round = done + step
        time.sleep(POLL_S)


def last_round(results: Path) -> int:
    """The last round that a run has recorded; -1 while there is none."""
    return len(open_run(results).rounds) - 1


def main() -> int:
    """Run the soak; returns the exit code."""
    request = Soak(**json.loads(sys.argv[1]))

    def work() -> int:
        soak(request, Path.cwd())
        print((Path(request.out) / "soak.md").read_text(encoding="utf-8"))
        return 0

    return exit_code(work, f"Interrupted. {request.out} has what was seen.")


if __name__ == "__main__":
    sys.exit(main())
