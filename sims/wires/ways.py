"""`fed-ist bench wire --relay`: what a node's link carries with SuperNodes and with the relay.

The same runs, one after the other, with the same keys, TLS and namespaces: first plain
`flower-supernode` against the SuperLink, then `fed-ist supernode` through the gate. Bytes are those
of IP packets by the interface's counters, both ways. The `fed-ist` command calls this module with
its options as one JSON object.
"""

import json
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from PIL import Image

from fed_ist.config.toml import Value
from fed_ist.datasets.scenes import SCENES, draw_scene
from fed_ist.errors import InputError
from fed_ist.files.atomic import write_atomic
from fed_ist.rng import generator
from fed_ist.runs.reading import open_run
from fed_ist.words import table
from sims.endings import exit_code
from sims.wires.hosts import Hosts, running, start_run
from sims.wires.namespaces import Counters, Wires, read_counters, wired
from sims.wires.sizes import Sizes, sniffing

N_CLASSES, N_IMAGES = 30, 2  # as many classes as AID has
PLAIN_IDLE_S = 60.0  # a SuperNode's waiting repeats itself each 20 s, the relay's each 240
SETTLE_S = 2.0
HOUR_S, DAY_S = 3600.0, 86_400.0
INT4: dict[str, Value] = {
    "down-codec": "int4",
    "up-codec": "int4",
    "reply": "update",
    "zstd": "true",
}
LINEAR: dict[str, Value] = {"strategy": "fedavg", "hidden-layers": 0, "num-rounds": 4, **INT4}
IST: dict[str, Value] = {
    **{"strategy": "ist", "groups": 8, "hidden-layers": 1, "hidden-dim": 1024, "num-rounds": 20},
    **INT4,
}
GOALS = {"connected": 0.0, "waiting": 40e3, "empty": 5e3, "linear": 45e3, "day": 1e6}


@dataclass(frozen=True)
class WaysBench:
    """What is asked for. idle_s: how long a node's waiting is watched; out: a Markdown file."""

    idle_s: float
    out: str


@dataclass(frozen=True)
class Way:
    """What one way took, in bytes of one node's link, both ways.

    connected: until it is. waiting: in an hour. empty: of a message and its reply beside the arrays
    in them. linear, day: of whole runs, with what a node fetches once. payload: of the day's
    arrays. round_s: median seconds of a round of the linear head. sizes: packets of `idle_s` of
    waiting.
    """

    connected: float
    waiting: float
    empty: float
    linear: float
    day: float
    payload: float
    round_s: float
    idle_s: float
    sizes: Sizes


def measure(request: WaysBench, app: Path) -> tuple[Way, Way]:
    """(plain SuperNode, relay); raises `InputError` where a run fails."""
    found = []
    for relayed in (False, True):
        print(f"Measuring {'the relay' if relayed else 'a plain SuperNode'}.", flush=True)
        with tempfile.TemporaryDirectory(prefix="fi-", dir="/tmp") as name, ExitStack() as stack:
            folder = Path(name)
            images = draw(folder / "images")
            wires = stack.enter_context(wired(1, tun=False))
            hosts = stack.enter_context(
                running(
                    wires,
                    folder,
                    [{"data-path": str(images)}],
                    tls=True,
                    authenticated=True,
                    relayed=relayed,
                )
            )
            idle_s = request.idle_s if relayed else min(request.idle_s, PLAIN_IDLE_S)
            found.append(measure_way(idle_s, app, Bench(wires, hosts, folder, images)))
    return found[0], found[1]


def draw(folder: Path) -> Path:
    """A folder of drawn images in as many classes as AID has."""
    kinds = list(SCENES)
    for number in range(N_CLASSES):
        kind = kinds[number % len(kinds)]
        own = folder / f"{kind}-{number:02}"
        own.mkdir(parents=True)
        for i in range(N_IMAGES):
            pixels = draw_scene(kind, generator(number, kind, i))
            Image.fromarray(pixels).save(own / f"{i}.png")
    return folder


@dataclass(frozen=True)
class Bench:
    """Where one way is measured."""

    wires: Wires
    hosts: Hosts
    folder: Path
    images: Path

    def counters(self) -> Counters:
        """What has crossed the node's wire until now."""
        return read_counters(self.hosts.server.pid, self.wires)[0]

    def run(self, app: Path, name: str, settings: Mapping[str, Value]) -> tuple[float, float]:
        """(bytes on the link, seconds) of a run."""
        common: dict[str, Value] = {
            "dataset": str(self.images),
            "results-dir": str(self.folder / "results"),
            "local-epochs": 1,
            "min-nodes": 1,
            "round-timeout-s": 600,
        }
        before, begun_s = self.counters(), time.monotonic()
        with start_run(self.wires, self.hosts, app, name, {**common, **settings}) as process:
            output, _ = process.communicate()
        if process.returncode != 0:
            tail = "\n".join(output.strip().splitlines()[-5:])
            raise InputError(f"The run {name} failed:\n{tail}")
        time.sleep(SETTLE_S)
        return total(self.counters().since(before)), time.monotonic() - begun_s

    def payload(self, name: str) -> tuple[float, float]:
        """(bytes of the arrays in a run's messages and replies, how many pairs of these)."""
        lines = open_run(self.folder / "results" / name).ledger
        return sum(float(str(line["payload_bytes"])) for line in lines), len(lines) / 2


def measure_way(idle_s: float, app: Path, bench: Bench) -> Way:
    """The figures of one way; waiting comes first, and is left out of the runs."""
    time.sleep(SETTLE_S)
    before, begun_s = bench.counters(), time.monotonic()
    with sniffing(bench.wires, 0) as sizes:
        time.sleep(idle_s)
    waiting = total(bench.counters().since(before)) / (time.monotonic() - begun_s)
    linear, linear_s = bench.run(app, "linear", LINEAR)
    payload, pairs = bench.payload("linear")
    rounds = open_run(bench.folder / "results" / "linear").rounds
    day, day_s = bench.run(app, "day", IST)
    return Way(
        total(before),
        waiting * HOUR_S,
        (linear - waiting * linear_s - payload) / pairs,
        linear,
        day - waiting * day_s + waiting * DAY_S,
        bench.payload("day")[0],
        median(float(str(row["seconds"])) for row in rounds if row["round"]),
        idle_s,
        sizes,
    )


def total(crossed: Counters) -> float:
    """Bytes of IP packets both ways."""
    return crossed.bytes_down + crossed.bytes_up


def render(plain: Way, relayed: Way) -> str:
    """The report in Markdown."""
    ways = (plain, relayed)
    rows = [
        (
            what,
            *(f"{getattr(way, key) / 1000:,.1f} kB" for way in ways),
            f"{GOALS[key] / 1000:,.0f} kB" if GOALS[key] else "",
        )
        for key, what in (
            ("connected", "until it is connected, once"),
            ("waiting", "waiting, an hour"),
            ("empty", "a message and its reply, beside the arrays in them"),
            ("linear", "a linear head in 4 bits, 4 rounds, 30 classes, all in"),
            ("day", "IST in 4 bits, 20 rounds of 128 neurons, and a day of waiting"),
        )
    ]
    rows.append(("a round of the linear head", *(f"{way.round_s:.1f} s" for way in ways), ""))
    heads = ("a node's link, both ways", "flower-supernode", "fed-ist supernode", "goal")
    kinds = "\n\n".join(
        f"{name}, {way.idle_s:.0f} s of waiting by kind of packet:\n\n{way.sizes.render()}"
        for name, way in zip(("flower-supernode", "fed-ist supernode"), ways, strict=True)
    )
    return (
        "# What a node's link carries, with and without the relay\n\n"
        "`sudo fed-ist bench wire --relay`: one node and its server in network namespaces, TLS and "
        "a key; bytes of IP packets by the interface's counters. Waiting was counted over "
        f"{plain.idle_s:.0f} s and {relayed.idle_s:.0f} s, and multiplied. The linear head's run "
        "is the node's first, which fetches the app's bundle and is prepared. The day is the "
        f"run's bytes and 24 hours of waiting; {relayed.payload / 1000:,.0f} kB of it are the "
        "arrays. The relay goes through the gate; flower-supernode asks the SuperLink itself.\n\n"
        f"{table(heads, rows)}\n\n{kinds}\n"
    )


def main() -> int:
    """Measure; returns the exit code."""
    request = WaysBench(**json.loads(sys.argv[1]))

    def work() -> int:
        report = render(*measure(request, Path.cwd()))
        print(report)
        if request.out:
            write_atomic(Path(request.out), report.encode())
        return 0

    return exit_code(work, "Interrupted. Namespaces and processes are gone.")


if __name__ == "__main__":
    sys.exit(main())
