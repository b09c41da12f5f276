"""A simulation whose nodes are spread over several machines: here two Ray nodes as processes."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest
from conftest import ROOT

from fed_ist.launch.processes import end_family, free_port

pytestmark = [pytest.mark.flower, pytest.mark.slow]

RAY = Path(sys.executable).parent / "ray"
ADDRESSES = ("127.0.0.1", "127.0.0.2")
SETTINGS = ("num-rounds=20", "hidden-dim=64")
JOINED = """
import os, ray, time
ray.init(address=os.environ["AT"])
deadline = time.monotonic() + 600
while sum(node["Alive"] for node in ray.nodes()) < 2:
    assert time.monotonic() < deadline
    time.sleep(0.2)
"""


@pytest.fixture
def cluster():
    """Two Ray nodes of a core each; their address."""
    address = f"{ADDRESSES[0]}:{free_port()}"
    common = ["--num-cpus=1", "--disable-usage-stats", "--block"]
    port = address.split(":")[1]
    with ExitStack() as stack:
        # A short path, as Ray's sockets lie in it.
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp"))
        head = [f"--port={port}", "--head", "--include-dashboard=false", f"--temp-dir={folder}"]
        for where, ip in zip((head, [f"--address={address}"]), ADDRESSES, strict=True):
            command = [str(RAY), "start", *where, f"--node-ip-address={ip}", *common]
            process = subprocess.Popen(command, start_new_session=True)
            stack.callback(end_family, process)
            wait_for(ADDRESSES[0], int(port))
        # Flower counts the cores once, as a run starts.
        subprocess.run([sys.executable, "-c", JOINED], check=True, env=os.environ | {"AT": address})
        yield address


def wait_for(host: str, port: int) -> None:
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection((host, port), timeout=1):
            return
        time.sleep(0.2)
    raise TimeoutError(f"Nothing listens on {host}:{port}")


def at_work() -> set[int]:
    """The Ray nodes (by the pids of their raylets) that have an actor at work."""
    found = set()
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, IndexError):
            if process.cmdline()[0].startswith("ray::ClientAppActor"):
                found.add(process.ppid())
    return found


def start(tmp_path: Path, engine: str, **environment: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", "from fed_ist.cli.main import main; main()", "run"]
    command += ["--nodes=4", "--name", engine, "--engine", engine, "--app", str(ROOT)]
    command += [f"--set={setting}" for setting in SETTINGS]
    command += [f"--set=results-dir={tmp_path}"]
    return subprocess.Popen(command, env=os.environ | environment)


def test_nodes_of_a_simulation_work_on_all_machines_and_the_outcome_is_the_same(cluster, tmp_path):
    run = start(tmp_path, "flower", RAY_ADDRESS=cluster)
    seen: set[int] = set()
    while run.poll() is None:
        seen |= at_work()
        time.sleep(0.2)
    assert run.returncode == 0
    assert len(seen) == 2
    assert start(tmp_path, "inline").wait() == 0
    spread, alone = (tmp_path / engine / "rounds.csv" for engine in ("flower", "inline"))
    assert spread.read_bytes() == alone.read_bytes()
