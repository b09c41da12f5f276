"""The ClientApp of `fed-ist bench message`: the app's own, which writes down when it does what.

Each message has a process of its own here, as on a device. At its end the process adds a line to
`STAMPS` in the run's `results-dir`, which on one machine is the node's as well.
"""

import atexit
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable

from sims.benchmarks.stopwatch import Stopwatch

STAMPS = "stamps.jsonl"
CACHE, TRAINING = "cache", "training"
# None of these is needed to train on embeddings that are there.
HEAVY = ("torch", "timm", "torchvision", "datasets", "flwr_datasets", "matplotlib", "pyarrow")

Moment = tuple[float, float]  # seconds since 1970, and of this process's CPU time


def now() -> Moment:
    return time.time(), time.process_time()


def stamped_app(began: Moment) -> ClientApp:
    """The app, whose import is timed as well; began: when this module's began."""
    from clients.app import create_app
    from clients.data import OwnImages

    imported = now()
    wall, cpu = Stopwatch(), Stopwatch(time.process_time)

    class TimedImages(OwnImages):
        def passes(self, *args: Any) -> Callable[[int], Any]:
            with wall.on(CACHE), cpu.on(CACHE):
                return super().passes(*args)

    def timed(message: Message, context: Context, train: ClientAppCallable) -> Message:
        with wall.on(TRAINING), cpu.on(TRAINING):
            return train(message, context)

    inner = create_app(TimedImages(), [timed])
    outer = ClientApp()

    def stamp(message: Message, context: Context) -> Message:
        asked = now()
        reply = inner(message, context)
        answered = now()
        line = {
            "type": message.metadata.message_type,
            "moments": {
                "began": began,
                "imported": imported,
                "asked": asked,
                "answered": answered,
            },
            "wall": wall.take(),
            "cpu": cpu.take(),
        }
        atexit.register(write, Path(str(context.run_config["results-dir"])), line)
        return reply

    outer.query()(stamp)
    outer.query("statistics")(stamp)
    outer.train()(stamp)
    return outer


def write(folder: Path, line: dict[str, Any]) -> None:
    """At the end of the process: with when it was started, how it ended, what it had loaded."""
    moments = {"started": (time.time() - age_s(), 0.0), "ended": now()}
    line["moments"].update(moments)
    line["loaded"] = [name for name in HEAVY if name in sys.modules]
    with (folder / STAMPS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def age_s() -> float:
    """Seconds since this process was started, on Linux; psutil knows it to the second only."""
    ticks = int(Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


app = stamped_app(now())
