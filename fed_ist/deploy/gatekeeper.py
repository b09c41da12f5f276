"""Runs the gate: nginx, the verifier that nginx asks, the relay, and logs that stay small.

One process starts nginx and the relay and ends with either, so that systemd starts all again.
"""

import asyncio
import json
import os
import pwd
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from fed_ist.deploy.certificates import find_server_files
from fed_ist.deploy.gate_places import Places, Ports
from fed_ist.deploy.nginx import configuration
from fed_ist.deploy.node_signatures import Doorkeeper
from fed_ist.deploy.registered_keys import RegisteredKeys
from fed_ist.deploy.verifier import serve
from fed_ist.errors import InputError

# The size at which a log is put away, once it is seen; one that was put away before is kept too.
MAX_LOG_BYTES = 10_000_000
LOOK_S = 5.0
REFUSED = 2  # the exit code of a program of ours that has said in a sentence why it does not run
INSTALL = "Install it: sudo apt install nginx libnginx-mod-stream"


def keep_gate(keys: Path, ports: Ports, database: Path, places: Places) -> int:
    """Let registered nodes through to the SuperLink until told to stop; returns the exit code.

    keys: the folder that `fed-ist keys` has made. database: the SuperLink's, which may appear
    later. places: absolute paths, made if need be. Raises `InputError` where the gate cannot start.
    """
    files = find_server_files(keys)
    require_free(ports.port)
    for folder in (places.runtime, places.bodies):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in places.bodies.iterdir():
        if path.name.isdecimal():  # what nginx had not passed on when power was cut
            path.unlink()
    places.logs.mkdir(parents=True, exist_ok=True)
    for left_over in (places.inside, places.crowd, places.way_to_crowd, places.relay):
        left_over.unlink(missing_ok=True)
    nginx, modules = find_nginx()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # nginx's too
    user = pwd.getpwuid(0).pw_name if os.getuid() == 0 else ""
    written = places.runtime / "nginx.conf"
    written.write_text(configuration(files, ports, places, modules, user), encoding="utf-8")
    relay = {
        "place": str(places.relay),
        "database": str(database.absolute()),
        "superlink": f"https://127.0.0.1:{ports.superlink}",
        "authority": str(files.authority.absolute()),
    }
    commands = (
        [nginx, "-c", str(written), "-p", str(places.runtime), "-e", str(places.errors)],
        [sys.executable, "-P", "-m", "sims.relay.serving", json.dumps(relay)],
    )
    return asyncio.run(_keep(commands, places, RegisteredKeys(database)))


def require_free(port: int) -> None:
    """Raise `InputError` where something else listens on a port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise InputError(
                f"Port {port} cannot be listened on: {error.strerror}. If an earlier gate is "
                "there, remove /etc/nginx/conf.d/fed-ist.conf and run: sudo systemctl reload nginx"
            ) from None


def find_nginx() -> tuple[str, tuple[Path, ...]]:
    """(nginx's path, modules that it must load); raises `InputError` where one is missing."""
    folders = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin"
    nginx = shutil.which("nginx", path=folders)
    if not nginx:
        raise InputError(f"nginx is missing. {INSTALL}")
    told = subprocess.run([nginx, "-V"], capture_output=True, text=True, check=False).stderr
    options = set(re.findall(r"--\S+", told))
    for needed in ("http_ssl", "http_auth_request", "http_realip"):
        if f"--with-{needed}_module" not in options:
            raise InputError(f"'{nginx}' was built without its module {needed}. {INSTALL}")
    if "--with-stream" in options:
        return nginx, ()
    found = re.search(r"--modules-path=(\S+)", told)
    module = Path(found[1] if found else "/usr/lib/nginx/modules", "ngx_stream_module.so")
    if not module.exists():
        raise InputError(f"'{module}' is missing. {INSTALL}")
    return nginx, (module,)


async def _keep(
    commands: Sequence[Sequence[str]], places: Places, registered: RegisteredKeys
) -> int:
    """Run nginx and the relay until one ends; returns its exit code."""
    server = await serve(Doorkeeper(registered.knows, time.time, time.monotonic), places.verifier)
    programs = [await asyncio.create_subprocess_exec(*command) for command in commands]
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _tell_all, programs)
    loop.add_signal_handler(signal.SIGHUP, _tell, programs[0], signal.SIGHUP)
    looking = asyncio.create_task(_bound_logs(programs[0], places))
    ends = [asyncio.create_task(program.wait()) for program in programs]
    try:
        done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if ends[1] in done and ends[1].result() == REFUSED:
            # It was not tried with this Flower. Devices do without it as they did before.
            done, _ = await asyncio.wait(ends[:1])
        _tell_all(programs)
        await asyncio.wait(ends)
        return max(abs(end.result()) for end in done)
    finally:
        looking.cancel()
        server.close()
        registered.close()


def _tell_all(programs: Sequence[asyncio.subprocess.Process]) -> None:
    for program in programs:
        _tell(program, signal.SIGTERM)


def _tell(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        process.send_signal(number)


async def _bound_logs(process: asyncio.subprocess.Process, places: Places) -> None:
    while True:
        await asyncio.sleep(LOOK_S)
        turned = [bound_log(path, MAX_LOG_BYTES) for path in (places.log, places.errors)]
        if any(turned):
            _tell(process, signal.SIGUSR1)  # nginx opens its logs anew


def bound_log(path: Path, most_bytes: int) -> bool:
    """Put a log that has grown too large in the place of the one before; returns whether it did."""
    try:
        if path.stat().st_size <= most_bytes:
            return False
        path.replace(path.with_name(f"{path.name}.1"))
    except OSError:  # a full disk, say: the next time, then
        return False
    return True
