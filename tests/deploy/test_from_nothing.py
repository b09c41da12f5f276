"""docs/deploy.md, command by command: a server, its gate, two devices, a run, and who is refused.

What installs software, copies files to another host or asks systemd is done otherwise here, as
`INSTEAD` says; a line of the document that is neither run nor listed there fails.
"""

import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from conftest import ROOT
from test_units import read_unit

from fed_ist.launch.processes import end_family, free_port, wait_until_listening

pytestmark = [pytest.mark.flower, pytest.mark.slow]

START_TIMEOUT_S = 600.0


def lines(where: str) -> list[str]:
    """The commands of docs/deploy.md's blocks for this place."""
    blocks = re.findall(
        rf"^```sh {where}\n(.*?)^```", (ROOT / "docs/deploy.md").read_text(), re.M | re.S
    )
    assert blocks
    return [line for block in blocks for line in block.splitlines()]


@dataclass
class Field:
    """The hosts of a federation, as folders, and the programs that run on them."""

    root: Path
    run: Path  # short, as a socket's path has to be
    port: int
    superlink_port: int
    running: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def home(self, host: str) -> Path:
        return self.root / host

    def environment(self, host: str) -> dict[str, str]:
        return os.environ | {
            "HOME": str(self.home(host)),
            "XDG_CACHE_HOME": str(self.home(host) / "cache"),
            "FLWR_HOME": str(self.home(host) / ".flwr"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "FLWR_TELEMETRY_ENABLED": "0",
        }

    def call(self, host: str, line: str) -> "subprocess.CompletedProcess[str]":
        """One line of the document on a host, with this test's folders, ports and names."""
        line = line.replace("field.example.org:8000", f"127.0.0.1:{self.port}")
        line = line.replace("127.0.0.1:8001", f"127.0.0.1:{self.superlink_port}")
        line = line.replace("field.example.org", "127.0.0.1")
        line = line.replace("unit superlink", f"unit superlink --port {self.superlink_port}")
        line = line.replace(
            "unit gate", f"unit gate --port {self.port} --superlink-port {self.superlink_port}"
        )
        line = line.replace("sudo tee /etc", f"tee {self.root}/etc")
        return subprocess.run(
            ["bash", "-o", "pipefail", "-c", line],
            cwd=self.home(host),
            env=self.environment(host),
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def follow(self, host: str, where: str) -> None:
        """All lines for a place; what cannot be done here is done as `INSTEAD` says."""
        for line in lines(where):
            line = line.replace("north", host) if where == "device" else line
            for pattern, instead in INSTEAD.items():
                if found := re.fullmatch(pattern, line):
                    instead(self, *found.groups())
                    break
            else:
                done = self.call(host, line)
                assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"

    def start(self, name: str, host: str) -> None:
        """What systemd would do with a unit; its folders are below `root`."""
        text = (self.root / "etc/systemd/system" / f"{name}.service").read_text()
        text = text.replace("/run/fed-ist-gate", str(self.run))
        for place in ("lib", "cache", "log"):
            text = text.replace(f"/var/{place}/fed-ist", str(self.home(host) / "var" / place))
            (self.home(host) / "var" / place).mkdir(parents=True, exist_ok=True)
        words, environment = read_unit(text)
        if name == "fed-ist-supernode":  # one of several on this host
            words += ["--port", str(free_port())]
        self.spawn(f"{name} {host}", words, environment | {"PYTHONPATH": str(ROOT)})

    def spawn(self, name: str, words: list[str], environment: dict[str, str]) -> None:
        with self.log(name).open("ab") as log:
            self.running[name] = subprocess.Popen(
                words, env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def log(self, name: str) -> Path:
        return self.root / f"{name}.log"

    def said(self, name: str, words: str) -> int:
        """How often a program has said something."""
        log = self.log(name)
        return log.read_text(errors="replace").count(words) if log.exists() else 0

    def wait_for(self, name: str, words: str, n_times: int = 1) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while self.said(name, words) < n_times:
            assert time.monotonic() < deadline, self.log(name).read_text(errors="replace")
            time.sleep(0.2)

    def start_superlink(self) -> None:
        name, words = "fed-ist-superlink server", "Application startup complete"
        n_before = self.said(name, words)
        self.start("fed-ist-superlink", "server")
        self.wait_for(name, words, n_before + 1)

    def start_gate(self) -> None:
        self.start("fed-ist-gate", "server")
        name = "fed-ist-gate server"
        wait_until_listening(self.running[name], self.port, "the gate", self.log(name))

    def gate_log(self) -> str:
        return (self.home("server") / "var" / "log" / "gate.log").read_text()

    def copy(self, source: str, folder: str) -> None:
        """scp to the device north; what is for it goes to south too, under its name."""
        for host in ("north", "south"):
            for pattern in source.split():
                for path in self.home("server").glob(pattern.replace("north", host)):
                    shutil.copy2(path, self.home(host) / folder)


def nothing(field: Field) -> None:
    pass


INSTEAD: dict[str, Callable[..., None]] = {
    r"sudo apt install .*": nothing,
    r"python3 -m venv \S+": nothing,
    r"\S*bin/pip install .*": nothing,
    r"\. \S*bin/activate": nothing,
    r"pip wheel .*": nothing,  # test_packaging builds one
    r"ssh pi@north mkdir -m 700 keys": nothing,
    r"scp (.*) pi@north:(\S*)": Field.copy,
    r"sudo systemctl daemon-reload": nothing,
    r"sudo systemctl enable --now fed-ist-superlink": Field.start_superlink,
    r"sudo systemctl enable --now fed-ist-gate": Field.start_gate,
    r"sudo systemctl enable --now fed-ist-supernode": nothing,  # both, once all is set up
    r"fed-ist run .*": nothing,  # a test of its own
    r"flwr supernode ls field": nothing,
}


@pytest.fixture(scope="module")
def field(tmp_path_factory, image_folder) -> Iterator[Field]:
    if not shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin"):
        pytest.skip("needs nginx (Debian packages nginx and libnginx-mod-stream)")
    root = tmp_path_factory.mktemp("field")
    run = Path(tempfile.mkdtemp(prefix="gate-", dir="/tmp"))
    hosts = Field(root, run, free_port(), free_port())
    for name in ("etc/systemd/system", "server"):
        (root / name).mkdir(parents=True)
    shutil.copy(ROOT / "pyproject.toml", root / "server")
    shutil.copytree(image_folder, root / "server" / "test-images")
    for host, classes in {"north": ("beach", "forest"), "south": ("forest", "farmland")}.items():
        (root / host / "keys").mkdir(parents=True, mode=0o700)
        for name in classes:
            shutil.copytree(image_folder / name, root / host / "images" / name)
    try:
        hosts.follow("server", "server")
        for host in ("north", "south"):
            hosts.follow(host, "device")
            hosts.start("fed-ist-supernode", host)
        for host in ("north", "south"):
            hosts.wait_for(f"fed-ist-supernode {host}", "SuperNode ID:")
        yield hosts
    finally:
        for process in reversed(hosts.running.values()):
            end_family(process)
        shutil.rmtree(run)


def test_the_short_page_has_no_command_that_the_document_has_not():
    section = (ROOT / "docs/devices.md").read_text()
    commands = "".join(re.findall(r"^```sh\n(.*?)^```", section, re.M | re.S)).splitlines()
    assert len(commands) > 10
    assert not set(commands) - {line for place in ("server", "device") for line in lines(place)}


def test_devices_and_server_made_by_the_document_train_together(field):
    (line,) = (line for line in lines("server") if line.startswith("fed-ist run"))
    results = field.home("server") / "results"
    for setting in (
        f"results-dir={results}",
        "num-rounds=1",
        "hidden-dim=64",
        "round-timeout-s=60",
    ):
        line += f" --set {setting}"
    done = field.call("server", f"{line} --name first")
    assert done.returncode == 0, done.stdout + done.stderr
    ledger = (results / "first" / "ledger.csv").read_text()
    assert ",north," in ledger
    assert ",south," in ledger


def test_a_device_without_a_registered_key_is_refused_and_logged(field):
    assert field.call("server", "fed-ist keys --out keys --node stranger").returncode == 0
    before = nodes(field)
    done = supernode(field, "stranger", field.home("server") / "keys" / "ca.crt")
    assert done.returncode != 0
    assert nodes(field) == before
    assert "its key is not registered" in done.stdout + done.stderr
    assert "No SuperNode found" not in field.log("fed-ist-superlink server").read_text()
    listed = field.call("server", "ssh-keygen -l -f keys/stranger.pub")
    assert f"unknown key {listed.stdout.split()[1]}" in field.gate_log()


def test_a_device_does_not_talk_to_a_server_of_another_authority(field):
    assert field.call("south", "fed-ist keys --out others --host 127.0.0.1").returncode == 0
    done = supernode(field, "stranger", field.home("south") / "others" / "ca.crt", wait_s=20)
    assert "SuperNode ID" not in done.stdout + done.stderr
    assert "certificate verify failed" in done.stdout + done.stderr


def supernode(
    field: Field, key: str, authority: Path, wait_s: float = 60
) -> "subprocess.CompletedProcess[str]":
    line = f"timeout {wait_s} flower-supernode --superlink 127.0.0.1:{field.port} "
    line += f"--root-certificates {authority} --auth-supernode-private-key keys/{key} "
    return field.call("server", line + f"--port {free_port()} --max-retries 2")


def nodes(field: Field) -> set[str]:
    listed = field.call("server", "flwr supernode ls field --format json").stdout
    return set(re.findall(r'"node-id": "(\d+)"', listed))


def test_the_gate_refuses_orders_from_outside_and_logs_them(field):
    (field.home("south") / ".flwr").mkdir(exist_ok=True)
    (field.home("south") / ".flwr" / "config.toml").write_text(
        f'[superlink.field]\naddress = "127.0.0.1:{field.port}"\n'
        f'root-certificates = "{field.home("south")}/keys/ca.crt"\n'
    )
    before = field.said("fed-ist-superlink server", "/v1/control/")
    assert field.call("south", "fed-ist keys --out mine --host a --node own").returncode == 0
    for order in (
        "flwr supernode register mine/own.pub field",
        "flwr supernode ls field",
        f"fed-ist run --app {ROOT} --on field",
    ):
        done = field.call("south", order)
        assert done.returncode != 0
        assert "403" in done.stdout + done.stderr, order
    assert field.said("fed-ist-superlink server", "/v1/control/") == before
    logged = field.gate_log()
    for path in ("register-node", "list-nodes", "start-run"):
        assert f'403 POST "/v1/control/{path}"' in logged, logged
    assert "pull-messages" not in logged


def test_a_server_that_was_killed_knows_its_devices_when_it_is_back_with_a_trimmed_database(field):
    before = nodes(field)
    superlink = field.running["fed-ist-superlink server"]
    os.killpg(superlink.pid, signal.SIGKILL)
    end_family(superlink)
    (trim,) = (line for line in lines("trim") if "sqlite3 /" in line)
    *_, path, statements = shlex.split(trim)
    database = Path(path.replace("/var/lib/fed-ist", str(field.home("server") / "var" / "lib")))
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript(statements)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    field.start_superlink()
    assert len(before) == 2
    assert nodes(field) == before


def test_a_renewed_certificate_and_further_keys_leave_the_others_as_they_are(field):
    keys = field.home("server") / "keys"
    before = {path: path.read_bytes() for path in keys.iterdir() if path.name != "server.crt"}
    for line in lines("renewal"):
        if not line.startswith("sudo systemctl"):
            assert field.call("server", line).returncode == 0
    assert (keys / "west.pub").exists()
    assert {path: path.read_bytes() for path in before} == before
