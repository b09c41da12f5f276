"""`fed-ist bench message`: where a device's seconds go, from a message to its reply.

A SuperLink and one SuperNode run on this machine; the node, with everything that it starts, gets a
share of a core. The `fed-ist` command calls this module with its options as one JSON object.
"""

import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from threading import Event, Thread
from typing import Any

import psutil

from fed_ist.config.toml import Value
from fed_ist.errors import InputError
from fed_ist.launch.bundle import slim_app
from fed_ist.launch.flower_run import run_and_tell
from fed_ist.launch.processes import flwr_arguments
from fed_ist.words import table
from sims.benchmarks.cases import measure_cases
from sims.benchmarks.cpu_limit import cpu_limit
from sims.benchmarks.loopback import SUPERLINK, on_loopback
from sims.benchmarks.message_app import CACHE, HEAVY, STAMPS, TRAINING
from sims.benchmarks.process_samples import lasting_cpu_s
from sims.drawn_images import N_CLASSES, draw_images

TIMEOUT_S = 600.0
COMPONENTS = {
    "message_server": "sims.server_app:app",
    "message_node": "sims.benchmarks.message_app:app",
}
# What a SuperNode logs first and last of a message. It fetches the slice while a process starts.
RECEIVING, SENT = "Receiving: train", "Sent successfully"
STEPS = ("waking", "Flower", "app", "cache", "training", "coding", "sending")


@dataclass(frozen=True)
class MessageBench:
    """What `fed-ist bench message` is asked for.

    cores: shares of a core, a run each. n_rounds: how many are measured. images: of the node.
    hidden_dim: of the slice. out: the folder for message.json and history.jsonl.
    """

    cores: list[float]
    n_rounds: int
    images: int
    hidden_dim: int
    out: str


@dataclass(frozen=True)
class LogLine:
    """A line that a SuperNode logged.

    at: when, in seconds since 1970. cpu_s: the CPU seconds that the node and its SuperExec had
    taken by then.
    """

    text: str
    at: float
    cpu_s: float


def measure(request: MessageBench) -> Iterator[dict[str, Any]]:
    """The figures of each share: `cores`, seconds by step and as `whole`, CPU seconds as `cpu`.

    Raises `InputError` where a run fails, or where a process cannot be held back.
    """
    for cores in request.cores:
        with tempfile.TemporaryDirectory(prefix="fed-ist-message-") as name:
            folder = Path(name)
            images = draw_images(folder / "images", 0, -(-request.images // N_CLASSES))
            with (
                slim_app(Path.cwd(), COMPONENTS) as app,
                cpu_limit(cores) as members,
                on_loopback(folder, [images]) as hosts,
            ):
                node = hosts.nodes[0]
                members.write_text(str(node.pid))
                settings: dict[str, Value] = {
                    "dataset": str(images),
                    "results-dir": name,
                    "hidden-dim": request.hidden_dim,
                    "num-rounds": request.n_rounds + 1,
                    "min-nodes": 1,
                    "round-timeout-s": TIMEOUT_S,
                    "prepare-timeout-s": TIMEOUT_S,
                }
                with followed(hosts.logs / "node0.log", psutil.Process(node.pid)) as log:
                    environment = hosts.environment
                    with flwr_arguments(app, settings, SUPERLINK) as arguments:
                        run_and_tell(arguments, environment)
            try:
                stamps = [json.loads(text) for text in (folder / STAMPS).open(encoding="utf-8")]
            except FileNotFoundError:
                raise InputError("The run failed; the log above says why.") from None
            yield {"cores": cores} | summarise(stamps, log)


@contextmanager
def followed(path: Path, process: psutil.Process) -> Iterator[list[LogLine]]:
    """A list of the lines that a process logs, which grows until the end of the block."""
    lines: list[LogLine] = []
    is_over = Event()

    def follow() -> None:
        with path.open(encoding="utf-8") as log:
            rest = ""
            while True:
                last = is_over.is_set()
                rest += log.read()
                *whole, rest = rest.split("\n")
                if whole:
                    at, cpu_s = time.time(), lasting_cpu_s(process)
                    lines.extend(LogLine(text, at, cpu_s) for text in whole)
                if last:
                    return
                time.sleep(0.005)

    thread = Thread(target=follow)
    thread.start()
    try:
        yield lines
    finally:
        is_over.set()
        thread.join()


def summarise(stamps: Sequence[Mapping[str, Any]], log: Sequence[LogLine]) -> dict[str, Any]:
    """Medians over training messages, without the first, whose process finds cold caches.

    Raises `InputError` where log and stamps do not belong together.
    """
    rounds = [stamp for stamp in stamps if stamp["type"].startswith("train")]
    messages = list(messages_in(log))
    if not rounds or len(rounds) != len(messages):
        raise InputError(
            f"{len(rounds)} messages were trained on, of {len(messages)} that the node's log has."
        )
    pairs = list(zip(rounds, messages, strict=True))
    found = [figures(stamp, *lines) for stamp, lines in pairs[1:] or pairs]
    return {
        step: {key: median(each[step][key] for each in found) for key in found[0][step]}
        for step in ("seconds", "cpu")
    } | {"loaded": sorted({name for stamp in rounds for name in stamp["loaded"]})}


def messages_in(log: Sequence[LogLine]) -> Iterator[tuple[LogLine, LogLine]]:
    """The two lines of each training message: when it was seen, and when its reply was sent."""
    met = None
    for line in log:
        if RECEIVING in line.text:
            met = line
        elif met and SENT in line.text:
            yield met, line
            met = None


def figures(stamp: Mapping[str, Any], met: LogLine, sent: LogLine) -> dict[str, dict[str, float]]:
    """The seconds by step, and the CPU seconds, of one message."""
    at = {key: moment[0] for key, moment in stamp["moments"].items()}
    cpu = {key: moment[1] for key, moment in stamp["moments"].items()}
    wall = stamp["wall"]
    seconds = {
        "waking": at["started"] - met.at,
        "Flower": at["began"] - at["started"],
        "app": at["imported"] - at["began"],
        "cache": wall[CACHE],
        "training": wall[TRAINING],
        "coding": at["answered"] - at["imported"] - wall[CACHE] - wall[TRAINING],
        "sending": sent.at - at["answered"],
        "whole": sent.at - met.at,
    }
    return {
        "seconds": seconds,
        "cpu": {
            "Flower": cpu["began"],
            "app": cpu["imported"] - cpu["began"],
            "training": stamp["cpu"][TRAINING],
            "process": cpu["ended"],
            "node": sent.cpu_s - met.cpu_s,
        },
    }


def render(found: Sequence[Mapping[str, Any]]) -> str:
    """Two tables in Markdown: seconds by step, and CPU seconds."""
    blocks = []
    for title, key, steps in (
        ("seconds", "seconds", (*STEPS, "whole")),
        ("CPU seconds", "cpu", ("Flower", "app", "training", "process", "node")),
    ):
        rows = [
            (f"{case['cores']:g}", *(f"{case[key][step]:.2f}" for step in steps)) for case in found
        ]
        blocks += [f"{title}, by share of a core:", table(("cores", *steps), rows)]
    loaded = sorted({name for case in found for name in case["loaded"]})
    blocks.append(f"Loaded in a round, of {', '.join(HEAVY)}: {', '.join(loaded) or 'none'}.")
    return "\n\n".join(blocks) + "\n"


def main() -> int:
    """Measure; returns the exit code."""
    request = MessageBench(**json.loads(sys.argv[1]))
    return measure_cases("message", request, measure(request), len(request.cores), render)


if __name__ == "__main__":
    sys.exit(main())
