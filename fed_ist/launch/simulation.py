"""A run on simulated nodes: `flwr run` with a SuperLink and a Ray of its own.

The local SuperLink that Flower starts by itself outlives the run, keeps the environment and the
Python of its first start, and installs the app's dependencies (torch again) for each run. Ours
lives as long as the run, in this environment, on a free port. Ray, which simulates the nodes, takes
the longest to start, and Flower would start it last. We start it at the same time as the SuperLink.
"""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from fed_ist.config.toml import Value
from fed_ist.errors import InputError
from fed_ist.launch.environment import own_environment, ray_folder
from fed_ist.launch.flower_run import Ended, run_and_tell, why_ended
from fed_ist.launch.processes import (
    Process,
    end_family,
    end_of,
    exit_at_sigterm,
    flwr_arguments,
    free_port,
    wait_until_listening,
    wait_until_ready,
)
from fed_ist.launch.run_log import RunLog

CLUSTER = "RAY_ADDRESS"  # the variable with the address of a Ray that runs already
SETTINGS = {
    # How often Flower looks for a run to start: its own value is once a second.
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.05",
    # Otherwise Ray hides the accelerators from a node that asks for none, and warns of that.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Flower asks for workers with their own environment, so it uses none that Ray starts ahead.
    "RAY_prestart_worker_first_driver": "0",
}
ANSWER_S, RAY_END_S = 5.0, 10.0


def simulate(
    app: Path,
    overrides: Mapping[str, Value],
    n_nodes: int,
    is_told: Callable[[], bool],
    run_log: RunLog | None = None,
) -> Ended:
    """Run the app on simulated nodes, and wait until the run ends.

    is_told: whether the run's folder says how it ended. run_log: takes Flower's log; None to print
    it. The nodes run on the Ray that the
    environment names, or on a Ray of this run. Raises `InputError` where the named Ray does not
    answer, and, with the end of a log, where Ray or the SuperLink does not start; `SystemExit` at
    SIGTERM.
    """
    with (
        exit_at_sigterm(),
        tempfile.TemporaryDirectory(prefix="fed-ist-flwr-") as home,
        flwr_arguments(app, overrides, superlink="local", n_nodes=n_nodes) as arguments,
    ):
        cache = str(overrides.get("cache-dir", ""))
        return _run(arguments, Path(home), own_environment(cache), is_told, run_log)


def _run(
    arguments: list[str],
    home: Path,
    usual: Mapping[str, str],
    is_told: Callable[[], bool],
    run_log: RunLog | None,
) -> Ended:
    """Start Ray and the SuperLink at the same time, then `flwr`; end them all after it."""
    port, ray_port = free_port(), free_port()
    (home / "config.toml").write_text(
        '[superlink]\ndefault = "local"\n'
        f'[superlink.local]\naddress = "127.0.0.1:{port}"\ninsecure = true\n',
        encoding="utf-8",
    )
    log, ray_log = home / "superlink.log", home / "ray.log"
    environment = {**usual, **SETTINGS, "FLWR_HOME": str(home)}
    with ExitStack() as stack:
        ray = None
        if address := os.environ.get(CLUSTER):
            _require_cluster(address)
        else:
            environment |= ray_folder(environment)
            ray = stack.enter_context(_ray(ray_port, environment, ray_log))
            environment[CLUSTER] = f"127.0.0.1:{ray_port}"
        command = ["flower-superlink", "--insecure", "--simulation", "--isolation", "subprocess"]
        command += ["--host", "127.0.0.1", "--port", str(port)]
        with log.open("wb") as output:
            superlink = subprocess.Popen(
                command, env=environment, stdout=output, stderr=output, start_new_session=True
            )
        stack.callback(end_family, superlink)
        wait_until_ready(superlink, port, log)
        if ray:
            wait_until_listening(ray, ray_port, "Ray", ray_log)
        told = run_and_tell(arguments, environment, run_log)
        is_explained = told.is_name_taken or is_told()
        reason = "" if is_explained else _why_ended(superlink, log, told.run_id, environment)
        if ray:
            _close_input(ray)  # it takes as long to end as the SuperLink, which is next
        return Ended(told.code, reason, told.is_name_taken)


def _why_ended(superlink: Process, log: Path, run_id: str, environment: Mapping[str, str]) -> str:
    if superlink.poll() is None:
        return why_ended(run_id, "local", environment)
    return f"Flower's SuperLink ended with code {superlink.returncode}. {end_of(log)}"


def _require_cluster(address: str) -> None:
    """Raise `InputError` where nothing answers at Ray's address, as Flower would wait for ever."""
    try:
        place = urlsplit(f"//{address.removeprefix('ray://')}")
        if not place.port:
            return  # one of Ray's words, such as auto
        with socket.create_connection((place.hostname, place.port), timeout=ANSWER_S):
            return
    except (OSError, ValueError):
        raise InputError(
            f"No Ray answers at {CLUSTER} '{address}'. Start it there with 'ray start --head "
            f"--port PORT', or unset {CLUSTER} for a Ray of this run's own."
        ) from None


@contextmanager
def _ray(port: int, environment: Mapping[str, str], log: Path) -> Iterator[Process]:
    """A Ray that starts while the caller goes on; it ends when its standard input is closed."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            # -P: the installed module, even if the current folder has one of the same name.
            [sys.executable, "-P", "-m", "sims.ray_head"],
            env={**environment, "RAY_GCS_SERVER_PORT": str(port)},
            stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        # A signal would also end processes of Ray for which Ray then waits.
        _close_input(process)
        with suppress(subprocess.TimeoutExpired):
            process.wait(RAY_END_S)
        end_family(process)


def _close_input(process: Process) -> None:
    if process.stdin:
        process.stdin.close()
