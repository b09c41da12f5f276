"""A deployed federation: a SuperLink and SuperNodes as processes, each node with its own images."""

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from conftest import ROOT

pytestmark = pytest.mark.flower


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def federation(tmp_path, image_folder):
    """The environment of a user whose Flower config names a SuperLink with two nodes: `field`."""
    port, bin_dir = free_port(), Path(sys.executable).parent
    environment = os.environ | {
        "FLWR_HOME": str(tmp_path / "flwr"),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "PATH": f"{bin_dir}:{os.environ['PATH']}",
    }
    (tmp_path / "flwr").mkdir()
    (tmp_path / "flwr" / "config.toml").write_text(
        f'[superlink.field]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    # The nodes know different classes, one of them a class that the server does not.
    for node, classes in {"a": ("beach", "forest"), "b": ("forest", "car-park")}.items():
        for name in classes:
            shutil.copytree(image_folder / name, tmp_path / node / name)
    shutil.copytree(image_folder / "farmland", tmp_path / "a" / "unheard-of")
    server = tmp_path / "server"
    for name in ("beach", "car-park", "forest"):
        shutil.copytree(image_folder / name, server / name)

    commands = [f"flower-superlink --insecure --host 127.0.0.1 --port {port}".split()]
    for node in ("a", "b"):
        # Each SuperNode serves its own ClientApps on a port, which on one host must differ.
        command = f"flower-supernode --insecure --superlink 127.0.0.1:{port} --port {free_port()}"
        commands.append([*command.split(), "--node-config", f"data-path='{tmp_path / node}'"])
    processes = []
    with (tmp_path / "log").open("wb") as log:
        for command in commands:
            processes.append(
                subprocess.Popen(
                    command, env=environment, stdout=log, stderr=log, start_new_session=True
                )
            )
            if len(processes) == 1:
                wait_for(f"http://127.0.0.1:{port}/health")
        yield environment, server
        for process in processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for(url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            with urlopen(url, timeout=1):
                return
        except (URLError, OSError):
            assert time.monotonic() < deadline, "the SuperLink did not start"
            time.sleep(0.2)


def test_nodes_with_their_own_folders_train_together(federation, tmp_path):
    environment, server = federation
    command = ["fed-ist", "run", "--on", "field", "--name", "deployed", "--app", str(ROOT)]
    for setting in (
        f"dataset={server}",
        f"results-dir={tmp_path / 'results'}",
        "num-rounds=3",
        "round-timeout-s=60",
        "hidden-dim=64",
        "batch-size=8",
        "local-epochs=8",
        "anchor=ridge",
        "label-skew=calibrate",
        "proximal=0.1",
        "down-codec=int8",
        "up-codec=int4",
        "reply=update",
        "statistics-codec=fp16",
        "zstd=true",
    ):
        command += ["--set", setting]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    log = (tmp_path / "log").read_text(errors="replace")
    assert done.returncode == 0, done.stdout + done.stderr + log
    summary = json.loads((tmp_path / "results" / "deployed" / "summary.json").read_text())
    assert (summary["clients"], summary["rounds"]) == (2, 3)
    assert summary["images"] == 48
    assert summary["images_of_unknown_classes"] == 12
    assert summary["accuracy"] > 0.5
    assert f"results     {tmp_path / 'results' / 'deployed'}" in done.stdout
    with (tmp_path / "results" / "deployed" / "ledger.csv").open() as file:
        kinds = [(line["kind"], line["direction"]) for line in csv.DictReader(file)]
    assert kinds.count(("statistics", "up")) == 2  # once from each node
    assert kinds.count(("train", "up")) == 6
