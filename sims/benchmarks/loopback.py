"""A SuperLink with its database on disk, and SuperNodes, as processes on this machine."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from fed_ist.launch.environment import own_environment
from fed_ist.launch.processes import (
    end_family,
    exit_at_sigterm,
    free_port,
    wait_until_ready,
)

SUPERLINK = "loopback"


@dataclass(frozen=True)
class Loopback:
    """The processes on loopback, and where they keep things.

    environment: of a user whose Flower config calls the SuperLink `loopback`. database: the
    SuperLink's. flower_home: FLWR_HOME. cache, logs: folders.
    """

    server: "subprocess.Popen[bytes]"
    nodes: list["subprocess.Popen[bytes]"]
    environment: dict[str, str]
    database: Path
    flower_home: Path
    cache: Path
    logs: Path


@contextmanager
def on_loopback(folder: Path, images: Sequence[Path]) -> Iterator[Loopback]:
    """Start a SuperLink, and a SuperNode for each folder of images; all are ended afterwards.

    folder: for the database, settings, caches and logs. Raises `InputError` where the SuperLink
    does not start. A SuperNode that does not start is noticed by the run that waits for it.
    """
    port = free_port()
    database, home, cache, logs = (folder / name for name in ("flower.db", "flwr", "cache", "logs"))
    home.mkdir()
    logs.mkdir()
    (home / "config.toml").write_text(
        f'[superlink.{SUPERLINK}]\naddress = "127.0.0.1:{port}"\ninsecure = true\n',
        encoding="utf-8",
    )
    environment = own_environment() | {
        "FLWR_HOME": str(home),
        "XDG_CACHE_HOME": str(cache),
        # All nodes are on this machine, and small matrices are slower in several threads.
        "OMP_NUM_THREADS": "1",
    }
    with exit_at_sigterm(), ExitStack() as stack:

        def start(name: str, *command: str) -> "subprocess.Popen[bytes]":
            output = stack.enter_context((logs / f"{name}.log").open("wb"))
            process = subprocess.Popen(
                command, env=environment, stdout=output, stderr=output, start_new_session=True
            )
            stack.callback(end_family, process)
            return process

        where = ["--insecure", "--host", "127.0.0.1", "--port", str(port)]
        server = start("superlink", "flower-superlink", *where, "--database", str(database))
        wait_until_ready(server, port, logs / "superlink.log")
        nodes = []
        for node, path in enumerate(images):
            # Each serves its own ClientApps on a port, which on one host must differ.
            where = ["--superlink", f"127.0.0.1:{port}", "--port", str(free_port())]
            own = ["--insecure", "--node-config", f"data-path='{path}'"]
            nodes.append(start(f"node{node}", "flower-supernode", *where, *own))
        yield Loopback(server, nodes, environment, database, home, cache, logs)
