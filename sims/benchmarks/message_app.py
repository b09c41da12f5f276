"""The ClientApp of `fed-ist bench message`: the app's own, with the times of what it does.

As on a device, each message has a process of its own. At its end the process adds a line to
`STAMPS` in the run's `results-dir`, a folder that server and node share on this machine.
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
# None of these is needed to train on embeddings that are in the cache.
HEAVY = ("torch", "timm", "torchvision", "datasets", "flwr_datasets", "matplotlib", "pyarrow")

Moment = tuple[float, float]  # seconds since 1970, and of this process's CPU time


def now() -> Moment:
    """The time now: seconds since 1970, and of this process's CPU time."""
    return time.time(), time.process_time()


def stamped_app(began: Moment) -> ClientApp:
    """The app, with the time of its import. began: when the import of this module began."""
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
    """Write the line of a message at the end of its process, and what the process had loaded."""
    moments = {"started": (time.time() - age_s(), 0.0), "ended": now()}
    line["moments"].update(moments)
    line["loaded"] = [name for name in HEAVY if name in sys.modules]
    with (folder / STAMPS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def age_s() -> float:
    """Seconds since this process was started, on Linux, where psutil only knows whole seconds."""
    ticks = int(Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


app = stamped_app(now())
