"""`fed-ist bench superlink`: what each node costs the server, waiting and in a round.

A SuperLink with its database on disk and SuperNodes run on loopback: first they wait, then a run of
the app has rounds with all of them. The `fed-ist` command calls this module with its options as one
JSON object.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from fed_ist.errors import InputError
from fed_ist.launch.processes import failure
from fed_ist.words import table
from sims.benchmarks.cases import measure_cases
from sims.benchmarks.loopback import Loopback, on_loopback
from sims.benchmarks.process_samples import count_bytes, family, lasting_cpu_s, role_of
from sims.benchmarks.soak import RUN, last_round, running_app
from sims.drawn_images import draw_images

CONNECT_TIMEOUT_S = 600.0
SETTLE_S = 10.0
ACTIVATED = "Activated node_id"  # the SuperLink logs it once for each node
FIGURES = {
    "idle CPU ms": "of the SuperLink, by node and minute of waiting",
    "round CPU ms": "of SuperLink and ServerApp, by node and round",
    "server MB": "of memory that SuperLink and ServerApp take, shared pages divided",
    "node MB": "of memory that a waiting SuperNode takes",
    "node start CPU s": "of a SuperNode until it is known to the SuperLink",
    "node idle CPU ms": "of a SuperNode, by minute of waiting",
    "log bytes": "of the SuperLink, by node and round",
    "database kB": "after the rounds",
    "round s": "from the second round on",
}


@dataclass(frozen=True)
class SuperlinkBench:
    """What `fed-ist bench superlink` is asked for.

    n_nodes: of each run. n_rounds: how many are measured. idle_s: how long nodes wait first. out:
    the folder for superlink.json and history.jsonl.
    """

    n_nodes: list[int]
    n_rounds: int
    idle_s: float
    out: str


@dataclass(frozen=True)
class ServerUsage:
    """What the server has taken until now.

    at: by `time.monotonic`. cpu_s: CPU seconds by process. log_bytes: of the SuperLink's log.
    """

    at: float
    cpu_s: dict[str, float]
    log_bytes: int

    def since(self, before: "ServerUsage", roles: Sequence[str]) -> tuple[float, float, int]:
        """(seconds, CPU seconds of these processes, log bytes) between two readings."""
        cpu_s = sum(self.cpu_s.get(role, 0.0) - before.cpu_s.get(role, 0.0) for role in roles)
        return self.at - before.at, cpu_s, self.log_bytes - before.log_bytes


def measure(request: SuperlinkBench) -> Iterator[dict[str, float]]:
    """The figures of each number of nodes.

    Raises `InputError` where nodes do not connect, or a run fails.
    """
    for n_nodes in request.n_nodes:
        with tempfile.TemporaryDirectory(prefix="fed-ist-superlink-") as name:
            folder = Path(name)
            images = [draw_images(folder / f"images{i}", i, 2) for i in range(n_nodes)]
            with on_loopback(folder, images) as hosts:
                wait_for_nodes(hosts, n_nodes)
                time.sleep(SETTLE_S)
                found: dict[str, float] = {"nodes": n_nodes}
                begun, started_s = read_usage(hosts), nodes_cpu_s(hosts)
                time.sleep(request.idle_s)
                seconds, cpu_s, _ = read_usage(hosts).since(begun, ["SuperLink"])
                waited_s = nodes_cpu_s(hosts) - started_s
                found["node start CPU s"] = started_s / n_nodes
                found["node idle CPU ms"] = 1000 * waited_s / n_nodes / (seconds / 60)
                found["idle CPU ms"] = 1000 * cpu_s / n_nodes / (seconds / 60)
                found["node MB"] = memory_mb(hosts.nodes[0])
                yield found | rounds(request, hosts, folder, n_nodes)


def rounds(
    request: SuperlinkBench, hosts: Loopback, folder: Path, n_nodes: int
) -> dict[str, float]:
    """The figures of rounds with all nodes, without the first round."""
    n_rounds = request.n_rounds + 2  # the report is written in the last one
    results = folder / "results" / RUN
    with running_app(n_nodes, n_rounds, Path.cwd(), hosts, folder) as run:

        def until(n_rounds: int) -> ServerUsage:
            while last_round(results) < n_rounds:
                if run.poll() is not None:
                    raise failure("The run failed", folder / "run.log")
                time.sleep(0.1)
            return read_usage(hosts)

        begun = until(1)
        ended = until(1 + request.n_rounds)
        seconds, cpu_s, log_bytes = ended.since(begun, ["SuperLink", "ServerApp"])
        server_mb = memory_mb(hosts.server)
    n_pairs = n_nodes * request.n_rounds
    return {
        "round CPU ms": 1000 * cpu_s / n_pairs,
        "log bytes": log_bytes / n_pairs,
        "server MB": server_mb,
        "database kB": count_bytes(hosts.database) / 1000,
        "round s": seconds / request.n_rounds,
    }


def wait_for_nodes(hosts: Loopback, n_nodes: int) -> None:
    """Wait until this many nodes are connected; raises `InputError` where they do not come."""
    deadline = time.monotonic() + CONNECT_TIMEOUT_S
    log = hosts.logs / "superlink.log"
    while (n := log.read_text(encoding="utf-8", errors="replace").count(ACTIVATED)) < n_nodes:
        if time.monotonic() > deadline:
            raise InputError(f"{n} of {n_nodes} nodes have come in {CONNECT_TIMEOUT_S:.0f} s.")
        time.sleep(0.5)


def read_usage(hosts: Loopback) -> ServerUsage:
    """What the server has taken until now."""
    cpu_s: dict[str, float] = {}
    for member in family(hosts.server):
        with suppress(psutil.NoSuchProcess):
            cpu_s[role_of(member)] = sum(member.cpu_times()[:2])
    log = hosts.logs / "superlink.log"
    return ServerUsage(time.monotonic(), cpu_s, log.stat().st_size)


def nodes_cpu_s(hosts: Loopback) -> float:
    """CPU seconds of all SuperNodes and their SuperExecs, since they were started."""
    return sum(lasting_cpu_s(psutil.Process(node.pid)) for node in hosts.nodes)


def memory_mb(process: "subprocess.Popen[bytes]") -> float:
    """The proportional set size, in MB, of a process and everything that it has started."""
    found = 0.0
    for member in family(process):
        with suppress(psutil.NoSuchProcess):  # a ClientApp ended while we looked
            found += member.memory_full_info().pss / 1e6
    return found


def render(found: Sequence[Mapping[str, float]]) -> str:
    """The figures as a table in Markdown, with a line on each of its columns."""
    rows = [(f"{case['nodes']:.0f}", *(f"{case[key]:.1f}" for key in FIGURES)) for case in found]
    said = "\n".join(f"{key}: {meaning}" for key, meaning in FIGURES.items())
    return f"{table(('nodes', *FIGURES), rows)}\n\n{said}\n"


def main() -> int:
    """Measure; returns the exit code."""
    request = SuperlinkBench(**json.loads(sys.argv[1]))
    return measure_cases("superlink", request, measure(request), len(request.n_nodes), render)


if __name__ == "__main__":
    sys.exit(main())
