"""A SuperLink and SuperNodes as processes in namespaces of their own, and what the nodes say."""

import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlunsplit

from fed_ist.credentials import Certificates, write_certificates
from fed_ist.errors import InputError
from fed_ist.launch import end_family, own_environment
from sims.namespaces import Wires, within

PORT = 8000
START_TIMEOUT_S = 90.0
SAID = re.compile(r"Receiving: |Received successfully|Sending: |Sent successfully")
WORDS = {"Receiving: ": "poll", "Received successfully": "received"}
WORDS |= {"Sending: ": "reply", "Sent successfully": "sent"}


@dataclass(frozen=True)
class Event:
    """What a SuperNode's log says, and when (`time.monotonic`): "poll" brought a message, it was
    "received", the "reply" is ready, it was "sent".
    """

    at_s: float
    what: str


@dataclass
class SuperNode:
    """A running SuperNode; `node_id` is Flower's, "" until it is connected."""

    process: "subprocess.Popen[str]"
    node_id: str = ""
    events: list[Event] = field(default_factory=list)
    tail: list[str] = field(default_factory=list)

    def listen(self) -> None:
        """Read its log until it ends."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            now = time.monotonic()
            self.tail = [*self.tail[-30:], line.rstrip()]
            if found := re.search(r"SuperNode ID: (\d+)", line):
                self.node_id = found[1]
            elif found := SAID.search(line):
                self.events.append(Event(now, WORDS[found[0]]))


@dataclass(frozen=True)
class Hosts:
    """What runs: `server` in the server's namespace, and the environment of a user there, whose
    Flower config calls the SuperLink `wire`.
    """

    server: "subprocess.Popen[bytes]"
    nodes: list[SuperNode]
    environment: dict[str, str]


@contextmanager
def running(wires: Wires, folder: Path, images: Sequence[Path], *, tls: bool) -> Iterator[Hosts]:
    """Start a SuperLink and a SuperNode for each folder of images; all are ended afterwards.

    folder: for certificates, settings, caches and logs.
    """
    addresses = ["127.0.0.1", *(wires.address(node) for node in range(len(wires.nodes)))]
    certificates = write_certificates(folder, addresses) if tls else None
    environment = _environment(folder, certificates)
    command = ["flower-superlink", "--host", "0.0.0.0", "--port", str(PORT)]
    command += _server_options(certificates)
    with ExitStack() as stack:
        log = folder / "superlink.log"
        output = stack.enter_context(log.open("wb"))
        server = subprocess.Popen(
            within(wires.server, command),
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        stack.callback(end_family, server)
        _wait_until_ready(wires, server, log, certificates)
        nodes = []
        for node, path in enumerate(images):
            command = ["flower-supernode", "--superlink", f"{wires.address(node)}:{PORT}"]
            command += _client_options(certificates)
            command += ["--node-config", f"data-path='{path}'"]
            process = subprocess.Popen(
                within(wires.nodes[node], command),
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
            stack.callback(end_family, process)
            nodes.append(SuperNode(process))
            threading.Thread(target=nodes[-1].listen, daemon=True).start()
        _wait_until_connected(nodes)
        yield Hosts(server, nodes, environment)


def _environment(folder: Path, certificates: Certificates | None) -> dict[str, str]:
    secure = (
        f'root-certificates = "{certificates.authority}"' if certificates else "insecure = true"
    )
    (folder / "flwr").mkdir()
    (folder / "flwr" / "config.toml").write_text(
        f'[superlink.wire]\naddress = "127.0.0.1:{PORT}"\n{secure}\n'
    )
    return own_environment() | {
        "FLWR_HOME": str(folder / "flwr"),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "XDG_CACHE_HOME": str(folder / "cache"),
        "PYTHONUNBUFFERED": "1",
        # All nodes are on this machine, and small matrices are slower in several threads.
        "OMP_NUM_THREADS": "1",
    }


def _server_options(certificates: Certificates | None) -> list[str]:
    if certificates is None:
        return ["--insecure"]
    return [
        f"--ssl-ca-certfile={certificates.authority}",
        f"--ssl-certfile={certificates.server}",
        f"--ssl-keyfile={certificates.key}",
    ]


def _client_options(certificates: Certificates | None) -> list[str]:
    if certificates is None:
        return ["--insecure"]
    return [f"--root-certificates={certificates.authority}"]


def _wait_until_ready(
    wires: Wires,
    server: "subprocess.Popen[bytes]",
    log: Path,
    certificates: Certificates | None,
) -> None:
    url = urlunsplit(("https" if certificates else "http", f"127.0.0.1:{PORT}", "/health", "", ""))
    ask = f"import ssl, urllib.request as r; r.urlopen({url!r}, timeout=2"
    if certificates:
        ask += f", context=ssl.create_default_context(cafile={str(certificates.authority)!r})"
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and server.poll() is None:
        command = within(wires.server, [sys.executable, "-c", ask + ")"])
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.5)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
    raise InputError(f"Flower's SuperLink did not start. The end of its log:\n{tail}")


def _wait_until_connected(nodes: Sequence[SuperNode]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    for node in nodes:
        while not node.node_id:
            if time.monotonic() > deadline or node.process.poll() is not None:
                raise InputError(
                    "A SuperNode did not connect. The end of its log:\n" + "\n".join(node.tail[-5:])
                )
            time.sleep(0.1)
