"""Start `flwr run` so that it just works: a SuperLink of its own for each simulation.

A local SuperLink that Flower starts by itself outlives the run, keeps the environment and the
Python of its first start, and installs the app's dependencies (torch again) for each run. Ours
lives as long as the run, in this very environment, on a free port.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import psutil

from fed_ist.bundled import checkout
from fed_ist.config import Value, read_defaults, write_toml
from fed_ist.errors import InputError

START_TIMEOUT_S = 60.0
FLOWER_SETTINGS = {
    # Without it, each run would install torch anew.
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    # Flower would report each process to its makers: some links are paid by the byte.
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
}


def find_app(given: Path | None) -> Path:
    """The folder that `flwr run` bundles: as given, the current one, or the installed checkout."""
    for folder in [given] if given else [Path.cwd(), checkout()]:
        if folder and _is_app(folder):
            return folder.resolve()
    raise InputError(
        f"'{given or Path.cwd()}' is not the fed-ist app. Run this in a checkout of fed-ist, or "
        "name one with --app."
    )


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
        known = tomllib.loads(path.read_text()).get("superlink", {})
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"Flower's config '{path}' cannot be read: {error}.") from None
    names = [key for key, value in known.items() if isinstance(value, dict)]
    if name not in names:
        raise InputError(
            f"Flower's config '{path}' has no [superlink.{name}]. It has: "
            f"{', '.join(names) or 'none'}. Add one with its address, or name another with --on."
        )


def own_environment() -> dict[str, str]:
    """This process's environment, with Flower as it should be, and the commands of its own Python
    found first.
    """
    scripts = sysconfig.get_path("scripts")
    path = os.pathsep.join([scripts, os.environ.get("PATH", "")])
    return {**os.environ, **FLOWER_SETTINGS, "PATH": path}


@contextmanager
def simulation_superlink() -> Iterator[dict[str, str]]:
    """A private simulation SuperLink; yields the environment in which `flwr` finds it."""
    with tempfile.TemporaryDirectory(prefix="fed-ist-flwr-") as home:
        port = free_port()
        environment = {
            **own_environment(),
            "FLWR_HOME": home,
            # Ray would hide the accelerators from a node that asks for none, and warns of it.
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        }
        Path(home, "config.toml").write_text(
            '[superlink]\ndefault = "local"\n'
            f'[superlink.local]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
        )
        log = Path(home, "superlink.log")
        command = ["flower-superlink", "--insecure", "--simulation", "--isolation", "subprocess"]
        command += ["--host", "127.0.0.1", "--port", str(port)]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, env=environment, stdout=output, stderr=output, start_new_session=True
            )
        # Without this, a terminated command would leave its SuperLink behind.
        previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        try:
            wait_until_ready(process, port, log)
            yield environment
        finally:
            end_family(process)
            signal.signal(signal.SIGTERM, previous)


def free_port() -> int:
    """A TCP port of this machine on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_ready(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    """Wait for a SuperLink; raises `InputError` with the end of its log if it does not start."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                return
        except (URLError, OSError):
            time.sleep(0.2)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
    raise InputError(f"Flower's SuperLink did not start. The end of its log:\n{tail}")


def end_family(process: "subprocess.Popen[Any]") -> None:
    """End a process and all that it has started: apps, simulation and Ray would outlive it."""
    try:
        family = [parent := psutil.Process(process.pid), *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.terminate()
    _, alive = psutil.wait_procs(family, timeout=10)
    for member in alive:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()


def run_experiment(app: Path, module: str, request: Mapping[str, object]) -> int:
    """`python -m MODULE` of the app, in this environment; returns its exit code.

    Signals that end this process are passed on, and the experiment waited for: it ends once what it
    has is kept.
    """
    command = [sys.executable, "-m", module, json.dumps(request)]
    # In a session of its own, or a terminal would tell it of Ctrl-C beside us.
    process = subprocess.Popen(command, env=own_environment(), cwd=app, start_new_session=True)
    previous = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        while True:
            try:
                code = process.wait()
                return code if code >= 0 else 128 - code  # as shells have it
            except KeyboardInterrupt:
                process.send_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGTERM, previous)


def flwr_run(
    app: Path,
    overrides: Mapping[str, Value],
    environment: Mapping[str, str],
    *,
    superlink: str,
    n_nodes: int | None,
) -> int:
    """`flwr run APP SUPERLINK --stream` with overrides of the run config; returns its exit code."""
    with tempfile.TemporaryDirectory(prefix="fed-ist-run-") as folder:
        settings = Path(folder, "run-config.toml")
        settings.write_text(write_toml(overrides))
        command = ["flwr", "run", str(app), superlink, "--stream", "--run-config", str(settings)]
        if n_nodes is not None:
            command += [
                "--federation-config",
                f"num-supernodes={n_nodes} client-resources-num-cpus=1",
            ]
        return subprocess.run(command, env=environment, check=False).returncode
