"""Whether the process that writes a run is still there, so that a watcher sees that it has died.

A run that is killed, or loses its power, has no time to say so in its folder.
"""

import json
import os
import socket
from contextlib import suppress
from pathlib import Path

import psutil

from fed_ist.files.atomic import write_atomic

PROCESS = "process.json"  # there as long as the run goes on
BOOT = Path("/proc/sys/kernel/random/boot_id")


def mark_alive(run: Path) -> None:
    """Write into a run's folder which process writes the run: this one."""
    here = {"pid": os.getpid(), "host": socket.gethostname(), "boot": _boot()}
    write_atomic(run / PROCESS, json.dumps(here).encode())


def forget_alive(run: Path) -> None:
    """Remove what `mark_alive` wrote, as the run has ended and said how."""
    with suppress(OSError):
        (run / PROCESS).unlink(missing_ok=True)


def has_died(run: Path) -> bool:
    """Whether the process that wrote a run is gone; False where that cannot be told from here."""
    try:
        found = json.loads((run / PROCESS).read_bytes())
        pid, host, boot = int(found["pid"]), found["host"], found["boot"]
    except (OSError, ValueError, LookupError, TypeError):
        return False
    if host != socket.gethostname():
        return False
    if boot != _boot():
        return True
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False


def _boot() -> str:
    """What tells this start of the machine from others; "" where the system does not say."""
    try:
        return BOOT.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
