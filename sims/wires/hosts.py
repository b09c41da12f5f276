"""Starts a SuperLink and SuperNodes, each in a network namespace of its own, and runs there."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlunsplit

from fed_ist.config.toml import Value
from fed_ist.deploy.certificates import Certificates, write_certificates
from fed_ist.deploy.node_keys import write_node_key
from fed_ist.errors import InputError
from fed_ist.launch.environment import own_environment
from fed_ist.launch.processes import end_family, wait_until
from sims.wires.namespaces import Wires, within
from sims.wires.supernode import START_TIMEOUT_S, SuperNode

PORT, BEHIND_GATE = 8000, 8001


@dataclass(frozen=True)
class Hosts:
    """The SuperLink's process, the nodes, and the environment of a user on the server.

    That user's Flower config calls the SuperLink `wire`.
    """

    server: "subprocess.Popen[bytes]"
    nodes: list[SuperNode]
    environment: dict[str, str]


@contextmanager
def running(
    wires: Wires,
    folder: Path,
    node_configs: Sequence[Mapping[str, Value]],
    *,
    tls: bool,
    authenticated: bool = False,
    relayed: bool = False,
    connect_timeout_s: float = START_TIMEOUT_S,
) -> Iterator[Hosts]:
    """Start a SuperLink, and a SuperNode for each node config; all are ended afterwards.

    folder: for certificates, settings, caches, state and logs. authenticated: whether the server
    knows the nodes by their keys, which needs `tls`. relayed: whether a gate stands before the
    SuperLink, and nodes keep one connection each, which needs `authenticated`. Raises `InputError`
    where one does not start.
    """
    addresses = ["127.0.0.1", *(wires.address(node) for node in range(len(wires.nodes)))]
    secrets = folder / "keys"
    certificates = write_certificates(secrets, addresses) if tls else None
    names = [f"node{i}" for i in range(len(node_configs))]
    keys = [write_node_key(secrets, name) for name in names] if authenticated else []
    port = BEHIND_GATE if relayed else PORT
    environment = _environment(folder, certificates, port)
    command = ["flower-superlink", "--host", "0.0.0.0", "--port", str(port)]
    command += _server_options(certificates)
    if authenticated:
        command += ["--enable-supernode-auth", "--database", str(folder / "superlink.db")]
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
        _wait_until_ready(wires, server, port, log, certificates, environment)
        _register(wires, keys, environment)
        if relayed:
            gate = stack.enter_context(_gate(wires, folder, environment))
            gate_log = folder / "gate.log"
            _wait_until_ready(wires, gate, PORT, gate_log, certificates, environment)
        nodes = []
        for node, config in enumerate(node_configs):
            command = ["fed-ist", "supernode"] if relayed else ["flower-supernode"]
            command += ["--superlink", f"{wires.address(node)}:{PORT}"]
            command += _client_options(certificates)
            if authenticated:
                command += ["--auth-supernode-private-key", str(keys[node])]
            settings = " ".join(f"{key}={json.dumps(value)}" for key, value in config.items())
            command += ["--node-config", settings]
            own = environment | {"XDG_CACHE_HOME": str(folder / f"cache{node}")}
            nodes.append(SuperNode(within(wires.nodes[node], command), own))
            stack.callback(nodes[-1].cut_power)
        with ThreadPoolExecutor(len(nodes)) as pool:
            for started in [pool.submit(node.restart, connect_timeout_s) for node in nodes]:
                started.result()
        yield Hosts(server, nodes, environment)


@contextmanager
def _gate(
    wires: Wires, folder: Path, environment: Mapping[str, str]
) -> Iterator["subprocess.Popen[bytes]"]:
    """A gate before the SuperLink, as its systemd unit starts it."""
    places = {"--keys": "keys", "--database": "superlink.db", "--runtime": "gate"}
    places |= {"--bodies": "bodies", "--logs": "logs"}
    command = ["fed-ist", "gate", "--port", str(PORT), "--superlink-port", str(BEHIND_GATE)]
    command += [word for key, name in places.items() for word in (key, str(folder / name))]
    with (folder / "gate.log").open("wb") as output:
        gate = subprocess.Popen(
            within(wires.server, command),
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield gate
    finally:
        end_family(gate)


def start_run(
    wires: Wires, hosts: Hosts, app: Path, name: str, settings: Mapping[str, object]
) -> "subprocess.Popen[str]":
    """Start `fed-ist run` in the server's namespace, with errors in its output."""
    command = [sys.executable, "-c", "from fed_ist.cli.main import main; main()"]
    command += ["run", "--on", "wire", "--name", name, "--app", str(app)]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    return subprocess.Popen(
        within(wires.server, command),
        env=hosts.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )


def _environment(folder: Path, certificates: Certificates | None, port: int) -> dict[str, str]:
    secure = (
        f'root-certificates = "{certificates.authority}"' if certificates else "insecure = true"
    )
    (folder / "flwr").mkdir()
    (folder / "flwr" / "config.toml").write_text(
        f'[superlink.wire]\naddress = "127.0.0.1:{port}"\n{secure}\n',
        encoding="utf-8",
    )
    return own_environment() | {
        "FLWR_HOME": str(folder / "flwr"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "PYTHONUNBUFFERED": "1",
        # A proxy knows none of the addresses in these namespaces.
        **dict.fromkeys(("no_proxy", "NO_PROXY"), "*"),
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


def _register(wires: Wires, keys: Sequence[Path], environment: Mapping[str, str]) -> None:
    """Register the keys with the SuperLink; raises `InputError` with Flower's words if it fails."""

    def register(key: Path) -> None:
        command = ["flwr", "supernode", "register", str(key.with_suffix(".pub")), "wire"]
        done = subprocess.run(
            within(wires.server, command),
            env=environment,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        if done.returncode != 0:
            said = (done.stdout + done.stderr).strip()
            raise InputError(f"Flower's SuperLink did not accept the key of {key.name}:\n{said}")

    with ThreadPoolExecutor() as pool:
        list(pool.map(register, keys))


def _wait_until_ready(
    wires: Wires,
    server: "subprocess.Popen[bytes]",
    port: int,
    log: Path,
    certificates: Certificates | None,
    environment: Mapping[str, str],
) -> None:
    url = urlunsplit(("https" if certificates else "http", f"127.0.0.1:{port}", "/health", "", ""))
    ask = f"import ssl, urllib.request as r; r.urlopen({url!r}, timeout=2"
    if certificates:
        ask += f", context=ssl.create_default_context(cafile={str(certificates.authority)!r})"
    command = within(wires.server, [sys.executable, "-c", ask + ")"])

    def is_ready() -> bool:
        done = subprocess.run(command, env=environment, capture_output=True, check=False)
        return done.returncode == 0

    wait_until(is_ready, server, "Flower's SuperLink", log, START_TIMEOUT_S)
