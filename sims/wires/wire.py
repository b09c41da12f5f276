"""`fed-ist bench wire`: what really crosses the network in a run, against the ledger's estimate.

A SuperLink and SuperNodes run in network namespaces, and a real run trains on a few drawn images.
The interfaces' counters are read 20 times a second, and divided where a node has sent its reply.
The `fed-ist` command calls this module with its options as one JSON object.
"""

import json
import math
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from flwr.cli.build import build_fab_from_disk
from tqdm import tqdm

from fed_ist.classifier.layout import init_params
from fed_ist.errors import InputError
from fed_ist.launch.bundle import slim_app
from fed_ist.traffic.links import Link, find_link
from fed_ist.traffic.packets import bytes_of_start
from fed_ist.training.local import LocalTraining, train
from sims.drawn_images import N_CLASSES, N_IMAGES, draw_images
from sims.endings import exit_code
from sims.wires.capture import Capture, capturing
from sims.wires.exchanges import SETTLE_S, Exchange, Watch, read_exchanges, watching
from sims.wires.hosts import Hosts, running, start_run
from sims.wires.namespaces import Wires, wired
from sims.wires.report import render_idle, render_run, render_times, write_table
from sims.wires.slow_wire import slow

EMBED_DIM = 192
RUN_TIMEOUT_S = 3600
# What training takes in a round: longer than the 5 s for which a node keeps its connections. On a
# device, starting a ClientApp alone takes longer than that.
TRAINING_S = 8.0
TIMED_STEPS = 50


@dataclass(frozen=True)
class WireBench:
    """What `fed-ist bench wire` is asked for.

    slice_bytes: of a classifier that is sent whole, about; a run for each. link: the name of a
    profile; "" for wires that hold nothing back. links: a TOML file of profiles; "" for the
    built-in ones. idle_s: how long nodes wait before the first run. out: a CSV file; "" for none.
    """

    n_nodes: int
    slice_bytes: list[int]
    n_rounds: int
    tls: bool
    link: str
    links: str
    idle_s: float
    out: str


def measure(request: WireBench, app: Path) -> list[tuple[int, Exchange]]:
    """Make a run for each size of slice, and print what crossed the wires and what the ledger says.

    Returns the exchanges, each with the size that was asked for.
    """
    path = Path(request.links) if request.links else None
    link = find_link(request.link, path) if request.link else None
    with slim_app(app) as bundled:
        start = bytes_of_start(len(build_fab_from_disk(bundled)), tls=request.tls)
    measured: list[tuple[int, Exchange]] = []
    with ExitStack() as stack:
        print("Starting a SuperLink and its nodes; each size takes one to two minutes.", flush=True)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fed-ist-wire-")))
        images = [draw_images(folder / f"node{i}", i) for i in range(request.n_nodes)]
        configs = [{"data-path": str(path)} for path in images]
        wires = stack.enter_context(wired(request.n_nodes, tun=link is not None))
        if link:
            stack.enter_context(slow(wires, link))
        hosts = stack.enter_context(running(wires, folder, configs, tls=request.tls))
        watch = stack.enter_context(watching(hosts.server.pid, wires))
        print(describe(request, link), flush=True)
        if request.idle_s:
            print(watch_idle(request, watch), flush=True)
        with tqdm(request.slice_bytes, unit="run") as bar:
            for n_bytes in bar:
                bar.set_description(f"slices of {n_bytes} B")
                capture = Capture(wires, folder / f"{n_bytes}.pcap")
                with capturing(capture):
                    begun_s = time.monotonic()
                    done = run_app(request, app, hosts, wires, folder, n_bytes)
                found = read_exchanges(done, hosts.nodes, watch, begun_s, tls=request.tls)
                measured += [(n_bytes, exchange) for exchange in found]
                with tqdm.external_write_mode():
                    print(render_run(n_bytes, found, start))
                    print(capture.describe())
                    if link:
                        print(render_times(link, done, found))
                    sys.stdout.flush()
    if request.out:
        write_table(Path(request.out), measured)
    return measured


def describe(request: WireBench, link: Link | None) -> str:
    """A line on what is measured."""
    on = "wires that hold nothing back"
    if link:
        on = (
            f"links like {link.name}: {link.down_bps / 1e3:g} kbit/s down, "
            f"{link.up_bps / 1e3:g} up, {1e3 * link.latency_s:g} ms, {link.loss:.1%} lost "
            "(packets through TUN devices)"
        )
    return f"{request.n_nodes} nodes, {'with' if request.tls else 'without'} TLS, on {on}"


def watch_idle(request: WireBench, watch: Watch) -> str:
    """Let the nodes wait for `idle_s`; returns lines on the bytes that this takes."""
    begun_s = time.monotonic()
    time.sleep(request.idle_s)
    ended_s = time.monotonic()
    found = [
        watch.at(ended_s, node).since(watch.at(begun_s, node)) for node in range(request.n_nodes)
    ]
    return render_idle(found, ended_s - begun_s, tls=request.tls)


def run_app(
    request: WireBench, app: Path, hosts: Hosts, wires: Wires, folder: Path, n_bytes: int
) -> Path:
    """Run the real app in the server's namespace; returns the folder of the run.

    Raises `InputError` where it fails.
    """
    hidden_dim = max(1, round((n_bytes / 4 - N_CLASSES) / (EMBED_DIM + 1 + N_CLASSES)))
    settings = {
        "dataset": folder / "node0",
        "results-dir": folder / "results",
        "strategy": "fedavg",
        "hidden-dim": hidden_dim,
        "num-rounds": request.n_rounds,
        "local-steps": steps_that_take(TRAINING_S, hidden_dim),
        "min-nodes": request.n_nodes,
        "round-timeout-s": RUN_TIMEOUT_S,
    }
    name = f"slices-{n_bytes}"
    with start_run(wires, hosts, app, name, settings) as process:
        output, _ = process.communicate()
    if process.returncode != 0:
        tail = "\n".join(output.strip().splitlines()[-5:])
        raise InputError(f"The run with slices of {n_bytes} B failed:\n{tail}")
    time.sleep(2 * SETTLE_S)
    return folder / "results" / name


def steps_that_take(seconds: float, hidden_dim: int) -> int:
    """About how many steps of a node's training take `seconds` on this machine."""
    rng, n_images = np.random.default_rng(0), N_IMAGES * N_CLASSES
    params = init_params(EMBED_DIM, hidden_dim, N_CLASSES, rng, hidden_layers=1)
    examples = (
        rng.normal(size=(n_images, EMBED_DIM)).astype(np.float32),
        rng.integers(0, N_CLASSES, n_images),
    )
    how = LocalTraining(1, TIMED_STEPS, n_images, "adam", 1e-3)
    train(params, lambda _: examples, how, 1.0, rng)  # the first time takes longer
    begun_s = time.perf_counter()
    train(params, lambda _: examples, how, 1.0, rng)
    return math.ceil(seconds * TIMED_STEPS / (time.perf_counter() - begun_s))


def main() -> int:
    """Measure; returns the exit code."""
    request = WireBench(**json.loads(sys.argv[1]))

    def work() -> int:
        measure(request, Path.cwd())
        return 0

    return exit_code(work, "Interrupted. Namespaces and processes are gone.")


if __name__ == "__main__":
    sys.exit(main())
