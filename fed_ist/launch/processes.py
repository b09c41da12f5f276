"""Starts processes of Flower and of the app, waits for them, and ends them."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

import psutil

from fed_ist.config.toml import Value, read_defaults, write_toml
from fed_ist.errors import InputError
from fed_ist.files.installed import installed_app
from fed_ist.launch.environment import own_environment
from fed_ist.launch.run_log import RunLog

Process = subprocess.Popen[Any]

START_TIMEOUT_S = 60.0
OUTPUT_S = 5.0
SERVER_PORTS = range(20000, 32768)


def find_app(given: Path | None) -> Path:
    """The folder with the app's pyproject.toml: the given, the current, or the installed one.

    Raises `InputError` where the given folder is not the app.
    """
    if given is None:
        here = Path.cwd()
        return (here if _is_app(here) else installed_app()).resolve()
    if not _is_app(given):
        raise InputError(
            f"--app '{given}' is not the fed-ist app. Name a checkout of fed-ist, or leave it out "
            "for the installed one."
        )
    return given.resolve()


def _is_app(folder: Path) -> bool:
    try:
        defaults = read_defaults(folder / "pyproject.toml")
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        return False
    return "mask-ratio" in defaults


def require_connection(name: str) -> None:
    """Raise `InputError` where Flower's config has no connection of this name."""
    home = Path(os.environ.get("FLWR_HOME") or Path.home() / ".flwr")
    path = home / "config.toml"
    try:
        known = tomllib.loads(path.read_text(encoding="utf-8")).get("superlink", {})
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"Flower's config '{path}' cannot be read: {error}.") from None
    names = [key for key, value in known.items() if isinstance(value, dict)]
    if name not in names:
        raise InputError(
            f"Flower's config '{path}' has no [superlink.{name}]. It has: "
            f"{', '.join(names) or 'none'}. Add one with its address, or name another with --on."
        )


def free_port() -> int:
    """A TCP port of this machine on which nothing listens.

    It is below 32768, as the system gives the ports above to outgoing connections, which might take
    this one before our process listens.
    """
    while True:
        port = secrets.choice(SERVER_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def wait_until_ready(process: Process, port: int, log: Path) -> None:
    """Wait until a SuperLink serves; raises `InputError` with the end of its log if it does not."""
    direct = build_opener(ProxyHandler({}))  # this machine is not reached by a proxy

    def is_ready() -> bool:
        try:
            with direct.open(f"http://127.0.0.1:{port}/health", timeout=1):
                return True
        except (URLError, OSError):
            return False

    wait_until(is_ready, process, "Flower's SuperLink", log)


def wait_until_listening(process: Process, port: int, name: str, log: Path) -> None:
    """Wait until something listens on a port.

    Raises `InputError` with the end of the log if nothing does.
    """

    def is_listening() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_until(is_listening, process, name, log)


def wait_until(
    is_ready: Callable[[], bool],
    process: Process,
    name: str,
    log: Path,
    timeout_s: float = START_TIMEOUT_S,
) -> None:
    """Wait until `is_ready`.

    Raises `InputError` with the end of the log if the process ends first, or if `timeout_s` pass.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and process.poll() is None:
        if is_ready():
            return
        time.sleep(0.1)
    raise failure(f"{name} did not start", log)


def failure(what: str, log: Path) -> InputError:
    """The error to raise where a process failed: what it failed at, and the end of its log."""
    return InputError(f"{what}. {end_of(log)}")


def end_of(log: Path) -> str:
    """The last five lines of a log, below a line that says so."""
    text = log.read_text(encoding="utf-8", errors="replace")
    return "\n".join(["The end of its log:", *text.rstrip().splitlines()[-5:]])


@contextmanager
def exit_at_sigterm() -> Iterator[None]:
    """Have SIGTERM raise `SystemExit` within the block.

    So a command that is terminated can end what it started.
    """
    previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def end_family(process: Process) -> None:
    """End a process and everything that it has started, which would outlive it otherwise."""
    if process.poll() is None:  # otherwise its number may be that of another process by now
        end_families([process.pid])
        process.wait()


def end_families(pids: Iterable[int]) -> None:
    """End several processes, and what they have started, at once; they need not be our children."""
    family = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(pid)
            family += [parent, *parent.children(recursive=True)]
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.terminate()
    _, alive = psutil.wait_procs(family, timeout=10)
    for member in alive:
        with suppress(psutil.NoSuchProcess):
            member.kill()


def run_module(
    app: Path, module: str, request: Mapping[str, object], log: RunLog | None = None
) -> int:
    """Run `python -m MODULE` of the app in this environment, and return its exit code.

    request: what the module reads from its argument, as JSON. log: takes what it prints; None to
    let it print to the terminal itself. Signals that would end this process
    are passed on to the module, which is then waited for, as it still keeps what it has.
    """
    command = [sys.executable, "-m", "sims.printed", module, json.dumps(request)]
    overrides = request.get("overrides")
    cache = str(overrides.get("cache-dir", "")) if isinstance(overrides, Mapping) else ""
    # In a session of its own: otherwise a terminal would send it Ctrl-C in addition to us.
    output = subprocess.PIPE if log else None
    process = subprocess.Popen(
        command, env=own_environment(cache), cwd=app, start_new_session=True,
        stdout=output, stderr=subprocess.STDOUT if log else None,
        encoding="utf-8", errors="replace",
    )  # fmt: skip
    reader = threading.Thread(target=_write_to, args=(log, process.stdout), daemon=True)
    reader.start()
    previous = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        while True:
            try:
                code = process.wait()
                reader.join(OUTPUT_S)  # what it started may keep the output open
                return code if code >= 0 else 128 - code  # as shells have it
            except KeyboardInterrupt:
                process.send_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGTERM, previous)


def _write_to(log: RunLog | None, output: IO[str] | None) -> None:
    """Pass all lines of a process to a log, if there is one."""
    if log and output:
        with output:
            for line in output:
                log.write(line)


@contextmanager
def flwr_arguments(
    app: Path, overrides: Mapping[str, Value], superlink: str, n_nodes: int | None = None
) -> Iterator[list[str]]:
    """The arguments of `flwr run` for the app; a file holds the settings during the block.

    n_nodes: how many nodes to simulate; None to run on the nodes of a deployment.
    """
    with tempfile.TemporaryDirectory(prefix="fed-ist-run-") as folder:
        settings = Path(folder, "run-config.toml")
        settings.write_text(write_toml(overrides), encoding="utf-8")
        arguments = ["run", str(app), superlink, "--stream", "--run-config", str(settings)]
        if n_nodes is not None:
            arguments += [
                "--federation-config",
                f"num-supernodes={n_nodes} client-resources-num-cpus=1",
            ]
        yield arguments
