"""What strangers at the gate do to a run of two devices: `python -m sims.benchmarks.gate OUT.md`.

SuperLink, gate and devices run on this host as docs/deploy.md sets them up, with keys and TLS. The
same run is timed alone, and while strangers hold connections and send bodies, from other addresses
of loopback and from the devices' own. All share this machine's processors, the strangers too.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import psutil

from fed_ist.launch.processes import exit_at_sigterm, failure
from fed_ist.words import bullets, table
from sims.benchmarks import strangers
from sims.benchmarks.gated import Gated, Process, gated
from sims.benchmarks.process_samples import count_bytes, family
from sims.drawn_images import draw_images
from sims.endings import exit_code

DEVICES = ("north", "south")
SETTINGS = {"hidden-dim": 64, "num-rounds": 3, "local-steps": 1, "min-nodes": len(DEVICES)}
OTHERS = [f"127.0.0.{i}" for i in range(2, 12)]
MANY = [f"127.0.1.{i}" for i in range(1, 41)]
LOOK_S = 0.25
STANDING_S = 15.0  # how long strangers are there before the run begins


@dataclass(frozen=True)
class Scenario:
    """What strangers do during a run.

    half_open: connections that they hold. flooders: connections that send bodies. sources:
    addresses.
    """

    name: str
    half_open: int
    flooders: int
    sources: Sequence[str]


ALONE = Scenario("none", 0, 0, [])
ATTACKED = Scenario("10 other addresses", 1000, 30, OTHERS)
# Each attack stands between two runs without strangers, as the machine's own load may change.
CASES = (
    ALONE,
    ATTACKED,
    ALONE,
    Scenario("the devices' own address", 1000, 30, ["127.0.0.1"]),
    ALONE,
    Scenario("40 other addresses", 4500, 30, MANY),
    ALONE,
)


@dataclass(frozen=True)
class Found:
    """What one run measured.

    seconds: of the run. superlink_bytes, gate_bytes: of resident memory, the most during the run
    minus that before the strangers came. log_bytes: of the gate's logs. deeds: what strangers say
    they did.
    """

    case: Scenario
    seconds: float
    superlink_bytes: int
    gate_bytes: int
    log_bytes: int
    deeds: dict[str, object]


@contextmanager
def federation() -> Iterator[tuple[Gated, Process, Process]]:
    """Two devices at the gate of a SuperLink; yields them and the processes of both."""
    with gated() as hosts:
        superlink = hosts.start_superlink()
        gate = hosts.start_gate()
        for node, name in enumerate(DEVICES):
            images = draw_images(hosts.folder / f"images-{name}", node)
            hosts.register(name)
            hosts.start_device(name, images)
        yield hosts, superlink, gate


def time_run(hosts: Gated, name: str) -> Iterator[float]:
    """The seconds since a run began, again and again, the last time when it has ended.

    Raises `InputError` where the run fails.
    """
    begun = time.monotonic()
    dataset = str(hosts.folder / f"images-{DEVICES[0]}")
    run = hosts.run(Path.cwd(), name, SETTINGS | {"dataset": dataset})
    while run.poll() is None:
        yield time.monotonic() - begun
        time.sleep(LOOK_S)
    if run.returncode:
        raise failure("The run failed", hosts.log(f"run-{name}"))
    yield time.monotonic() - begun


def measure(case: Scenario, hosts: Gated, superlink: Process, gate: Process, name: str) -> Found:
    """Measure a run in this case."""
    before, gate_before = resident_bytes([superlink]), resident_bytes(family(gate))
    most = gate_most = seconds = 0.0
    with at_the_gate(case, hosts.port) as deeds:
        for passed in time_run(hosts, name):
            seconds = passed
            most = max(most, resident_bytes([superlink]))
            gate_most = max(gate_most, resident_bytes(family(gate)))
    return Found(
        case,
        seconds,
        int(most - before),
        int(gate_most - gate_before),
        count_bytes(hosts.logs),
        deeds,
    )


@contextmanager
def at_the_gate(case: Scenario, port: int) -> Iterator[dict[str, object]]:
    """Run strangers as a process of their own; the dict has their deeds once they are gone."""
    deeds: dict[str, object] = {}
    if not case.half_open + case.flooders:
        yield deeds
        return
    request = strangers.Request(port, case.half_open, case.flooders, list(case.sources))
    command = [sys.executable, "-m", "sims.benchmarks.strangers", json.dumps(asdict(request))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8")
    try:
        time.sleep(STANDING_S)
        yield deeds
    finally:
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=60)
        deeds |= json.loads(said)


def resident_bytes(processes: "Iterator[psutil.Process] | Sequence[Process]") -> int:
    """The resident memory of these processes together; pages that they share count for each."""
    found = 0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            found += psutil.Process(process.pid).memory_info().rss
    return found


HEADER = (
    *("strangers at", "hold", "of them stood at most", "send bodies", "MB sent", "seconds"),
    *("times the usual", "SuperLink grew by", "gate grew by", "its logs in all"),
)


def render(found: Sequence[Found]) -> str:
    """The report, in Markdown."""
    rows = []
    for number, one in enumerate(found):
        sent = one.deeds.get("body-bytes", 0)
        assert isinstance(sent, int)
        rows.append(
            (
                one.case.name,
                one.case.half_open,
                one.deeds.get("most-standing", 0),
                one.case.flooders,
                f"{sent / 1e6:.0f}",
                f"{one.seconds:.1f}",
                f"{one.seconds / usual_s(found, number):.2f}",
                f"{one.superlink_bytes / 1e6:.1f} MB",
                f"{one.gate_bytes / 1e6:.1f} MB",
                f"{one.log_bytes / 1e6:.2f} MB",
            )
        )
    answers = {one.case.name: one.deeds["statuses"] for one in found if one.deeds}
    blocks = [
        "# Strangers at the gate",
        f"A run of {SETTINGS['num-rounds']} rounds with two devices, through the gate of "
        "docs/deploy.md on loopback. Strangers without a registered key hold connections half open "
        "(without a word, with half a header, with one that comes letter by letter) and send "
        f"bodies of {strangers.BODY_BYTES / 1e6:.0f} MB, unsigned, signed by a key of their own, "
        "and in chunks; what is closed they open again. They run on the same processors as all "
        "else.",
        table(HEADER, rows),
        'Answers to their bodies, by status ("closed": none):',
        bullets(f"{name}: {statuses}" for name, statuses in answers.items()),
    ]
    return "\n\n".join(blocks) + "\n"


def usual_s(found: Sequence[Found], number: int) -> float:
    """The mean of the runs without strangers just before and just after this one."""
    around = [one.seconds for one in found[max(0, number - 1) : number + 2] if not one.deeds]
    return fmean(around)


def measure_all(out: Path) -> int:
    """Measure all cases, and write the report after each; returns an exit code."""
    found: list[Found] = []
    with exit_at_sigterm(), federation() as (hosts, superlink, gate):
        for _ in time_run(hosts, "first"):  # the devices encode their images in this run
            pass
        for number, case in enumerate(CASES):
            found.append(measure(case, hosts, superlink, gate, f"case-{number}"))
            out.write_text(render(found), encoding="utf-8")
            print(found[-1], flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(lambda: measure_all(Path(sys.argv[1]))))
