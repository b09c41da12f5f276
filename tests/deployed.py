"""A deployed federation on this host: a SuperLink and SuperNodes as processes, without TLS."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
from conftest import ROOT

from fed_ist.launch.environment import own_environment
from fed_ist.launch.processes import end_family, free_port, wait_until_ready


class Deployed:
    """What a user's Flower config calls `field`; its state is on disk, so it may be killed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.environment = own_environment() | {
            "FLWR_HOME": str(folder / "flwr"),
            "XDG_CACHE_HOME": str(folder / "cache"),
        }
        (folder / "flwr").mkdir()
        (folder / "flwr" / "config.toml").write_text(
            f'[superlink.field]\naddress = "{self.address}"\ninsecure = true\n'
        )
        self.log = folder / "log"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.start_superlink()

    def start_superlink(self) -> None:
        database = self.folder / "state.db"
        command = f"flower-superlink --insecure --host 127.0.0.1 --port {self.port}".split()
        self.superlink = self._start([*command, "--database", str(database)])
        wait_until_ready(self.superlink, self.port, self.log)

    def start_node(self, **node_config: str) -> subprocess.Popen[bytes]:
        # Each SuperNode serves its own ClientApps on a port, which on one host must differ.
        command = f"flower-supernode --insecure --superlink {self.address} --port {free_port()}"
        settings = " ".join(f"{key.replace('_', '-')}='{v}'" for key, v in node_config.items())
        return self._start([*command.split(), "--node-config", settings])

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        self.processes.append(process)
        return process

    def run(self, *words: str) -> subprocess.Popen[str]:
        """`fed-ist run --on field`, under way."""
        command = ["fed-ist", "run", "--on", "field", "--app", str(ROOT), *words]
        return subprocess.Popen(
            command,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def serverapp(self) -> psutil.Process:
        """The process in which the run's ServerApp is."""
        family = psutil.Process(self.superlink.pid).children(recursive=True)
        (found,) = [p for p in family if p.name() == "flwr-serverapp"]
        return found

    def kill_superlink(self) -> None:
        """As `kill -9` does, which its children do not get."""
        os.kill(self.superlink.pid, signal.SIGKILL)
        self.superlink.wait()

    def end(self) -> None:
        for process in self.processes:
            end_family(process)


def outcome(process: subprocess.Popen[str], timeout_s: float = 600) -> tuple[int, str]:
    """The exit code of a command and what it said."""
    said, _ = process.communicate(timeout=timeout_s)
    return process.returncode, said


def settings(**changes: Any) -> list[str]:
    """The options of a run-config with these changes."""
    words: list[str] = []
    for key, value in changes.items():
        words += ["--set", f"{key.replace('_', '-')}={value}"]
    return words
