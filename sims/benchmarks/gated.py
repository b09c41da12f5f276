"""A server as docs/deploy.md sets it up: SuperLink, gate and devices on this host, with keys."""

import random
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPSConnection
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fed_ist.config.toml import Value
from fed_ist.deploy.certificates import write_certificates
from fed_ist.deploy.node_keys import write_node_key
from fed_ist.errors import InputError
from fed_ist.launch.environment import own_environment
from fed_ist.launch.processes import end_family, free_port, wait_until, wait_until_listening

Process = subprocess.Popen[bytes]
ACTIVATED = "SuperNode ID:"  # a SuperNode logs it once the SuperLink knows the node
START_TIMEOUT_S = 600.0
SUPERLINK = "field"  # its name in the owner's Flower config


class Gated:
    """A SuperLink, a gate and devices, which are started one by one.

    folder: for everything that they keep; its path must be short, as it holds sockets. port: the
    gate's, which devices reach at 127.0.0.1. Methods that start something raise `InputError` where
    it does not start.
    """

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self.keys, self.logs = folder, folder / "keys", folder / "logs"
        self.port, self.superlink_port = quiet_port(), quiet_port()
        self.database = folder / "superlink.db"
        self.certificates = write_certificates(self.keys, [])
        self._stack = stack
        (folder / "flwr").mkdir()
        (folder / "flwr" / "config.toml").write_text(
            f'[superlink.{SUPERLINK}]\naddress = "127.0.0.1:{self.superlink_port}"\n'
            f'root-certificates = "{self.certificates.authority}"\n',
            encoding="utf-8",
        )
        self.environment = own_environment() | {
            "FLWR_HOME": str(folder / "flwr"),
            "XDG_CACHE_HOME": str(folder / "cache"),
            # All are on this machine, and small matrices are slower in several threads.
            "OMP_NUM_THREADS": "1",
        }

    def start_superlink(self) -> Process:
        """Start the SuperLink, and wait until it listens."""
        files = {
            "--ssl-ca-certfile": self.certificates.authority,
            "--ssl-certfile": self.certificates.server,
            "--ssl-keyfile": self.certificates.key,
            "--database": self.database,
        }
        where = ["--host", "127.0.0.1", "--port", str(self.superlink_port)]
        options = [word for key, path in files.items() for word in (key, str(path))]
        command = ["flower-superlink", *where, "--enable-supernode-auth", *options]
        process = self.start("superlink", command)
        wait_until_listening(
            process, self.superlink_port, "Flower's SuperLink", self.log("superlink")
        )
        return process

    def start_gate(self) -> Process:
        """Start the gate as its systemd unit does, and wait until it listens."""
        options = {
            "--keys": self.keys,
            "--database": self.database,
            "--runtime": self.folder / "run",
            "--bodies": self.folder / "bodies",
            "--logs": self.logs,
            "--port": self.port,
            "--superlink-port": self.superlink_port,
        }
        words = [word for key, value in options.items() for word in (key, str(value))]
        process = self.start("gate", ["fed-ist", "gate", *words])
        wait_until_listening(process, self.port, "The gate", self.log("gate"))
        return process

    def register(self, name: str) -> None:
        """Make a device's key, and register it with the SuperLink."""
        write_node_key(self.keys, name)
        public = f"{self.keys / name}.pub"
        self.order("supernode", "register", public, SUPERLINK, "--name", name)

    def order(self, *words: str) -> str:
        """Run `flwr` as the server's owner; returns its output. Raises `InputError` if it fails."""
        done = subprocess.run(
            ["flwr", *words], env=self.environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise InputError(f"flwr {' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    def start_device(self, name: str, images: Path) -> Process:
        """Start a SuperNode with this name's key, and wait until the SuperLink knows it."""
        where = ["--superlink", f"127.0.0.1:{self.port}", "--port", str(free_port())]
        who = ["--root-certificates", str(self.certificates.authority)]
        who += ["--auth-supernode-private-key", str(self.keys / name)]
        config = f"data-path='{images}' name='{name}'"
        process = self.start(name, ["flower-supernode", *where, *who, "--node-config", config])
        self.wait_for(name, ACTIVATED, process)
        return process

    def start_relayed(self, name: str, images: Path, port: int) -> Process:
        """Start `fed-ist supernode` with this name's key, and wait until it is connected.

        port: of 127.0.0.1, at which it finds the gate.
        """
        words = {
            "--superlink": f"127.0.0.1:{port}",
            "--root-certificates": str(self.certificates.authority),
            "--auth-supernode-private-key": str(self.keys / name),
            "--node-config": f"data-path='{images}' name='{name}'",
            "--port": str(free_port()),  # of the SuperNode's own server
        }
        options = [word for pair in words.items() for word in pair]
        process = self.start(name, ["fed-ist", "supernode", *options])
        self.wait_for(name, ACTIVATED, process)
        return process

    def wait_for(self, name: str, words: str, process: Process) -> None:
        """Wait until a program has logged these words."""

        def said() -> bool:
            return words in self.log(name).read_text(encoding="utf-8", errors="replace")

        wait_until(said, process, name, self.log(name), START_TIMEOUT_S)

    def run(self, app: Path, name: str, settings: Mapping[str, Value]) -> Process:
        """Start `fed-ist run`; its results will be in `folder / "results" / name`."""
        command = ["fed-ist", "run", "--on", SUPERLINK, "--app", str(app), "--name", name]
        for key, value in {"results-dir": str(self.folder / "results"), **settings}.items():
            command += ["--set", f"{key}={value}"]
        return self.start(f"run-{name}", command)

    def key(self, name: str) -> ec.EllipticCurvePrivateKey:
        """The private key of a device."""
        found = serialization.load_ssh_private_key((self.keys / name).read_bytes(), None)
        assert isinstance(found, ec.EllipticCurvePrivateKey)
        return found

    def connect(self, source: str = "127.0.0.1") -> HTTPSConnection:
        """A connection to the gate from an address of loopback."""
        context = ssl.create_default_context(cafile=self.certificates.authority)
        return HTTPSConnection(
            "127.0.0.1", self.port, context=context, timeout=60, source_address=(source, 0)
        )

    def log(self, name: str) -> Path:
        """The file with a program's output."""
        return self.folder / f"{name}.log"

    def start(self, name: str, command: list[str]) -> Process:
        """Start a program in the environment of all; it is ended together with them."""
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        self._stack.callback(end_family, process)
        return process


def quiet_port() -> int:
    """A free port, outside the range that the strangers' thousands of connections use."""
    while True:
        port = random.SystemRandom().randrange(10000, 30000)
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("", port))
            return port


@contextmanager
def gated() -> Iterator[Gated]:
    """A `Gated` in which nothing runs yet; everything that is started is ended afterwards."""
    with TemporaryDirectory(prefix="gated-", dir="/tmp") as name, ExitStack() as stack:
        yield Gated(Path(name), stack)
