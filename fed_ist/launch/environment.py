"""The environment variables of the processes that we start, so that they work wherever we do."""

import os
import sysconfig
import tempfile
from collections.abc import Mapping
from pathlib import Path

from fed_ist.errors import InputError
from fed_ist.files.paths import cache_dir, is_writable
from fed_ist.launch.addresses import LOOPBACK

FLOWER_SETTINGS = {
    # Without it, each run would install torch anew.
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    # Flower would report each process to its makers: some links are paid by the byte.
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
}
# The longest path of a socket below Ray's folder, and the most bytes that Linux allows for a path.
LONGEST_SOCKET = "ray/session_2026-11-30_04-18-33_123456_1234567/sockets/plasma_store"
SOCKET_PATH_BYTES = 107
SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")


def own_environment(configured_cache: str = "") -> dict[str, str]:
    """The environment of this process, with what Flower and its libraries need.

    Commands of this Python are found first, text is in UTF-8, and this machine is reached without a
    proxy. configured_cache: the run's cache-dir, where libraries keep files if HOME cannot be
    written to.
    """
    scripts = sysconfig.get_path("scripts")
    return {
        **os.environ,
        **FLOWER_SETTINGS,
        **direct_loopback(os.environ),
        **_library_folders(configured_cache),
        "PATH": os.pathsep.join([scripts, os.environ.get("PATH", "")]),
        "PYTHONUTF8": "1",
    }


def direct_loopback(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that name hosts to be reached without a proxy, with this machine added to them.

    Some programs read the name in lower case, some in upper case, and gRPC reads a variable of its
    own where that is set.
    """
    written = ",".join(environment.get(key, "") for key in ("no_proxy", "NO_PROXY"))
    known = [host.strip() for host in written.split(",") if host.strip()]
    hosts = "*" if "*" in known else ",".join(dict.fromkeys([*known, *LOOPBACK]))
    found = {"no_proxy": hosts, "NO_PROXY": hosts}
    if "no_grpc_proxy" in environment:
        found["no_grpc_proxy"] = ",".join([environment["no_grpc_proxy"], *LOOPBACK])
    return found


def _library_folders(configured_cache: str) -> dict[str, str]:
    """Folders for files of matplotlib and the Hub's libraries where HOME cannot be written to."""
    home = os.environ.get("HOME")
    if home and is_writable(Path(home)):
        return {}
    cache = cache_dir(configured_cache)
    ours = {"MPLCONFIGDIR": cache / "matplotlib", "HF_HOME": cache / "huggingface"}
    return {key: str(folder) for key, folder in ours.items() if key not in os.environ}


def ray_folder(environment: Mapping[str, str]) -> dict[str, str]:
    """RAY_TMPDIR, where Ray's usual folder makes the paths of its sockets too long.

    It is empty where that folder is short enough.

    Raises `InputError` where the user chose that folder, and where no short folder can be written
    to.
    """
    chosen = environment.get("RAY_TMPDIR", "")
    folder = chosen or environment.get("TMPDIR") or tempfile.gettempdir()
    most = SOCKET_PATH_BYTES - len(LONGEST_SOCKET) - 1
    if len(os.fsencode(folder)) <= most:
        return {}
    if chosen:
        raise InputError(
            f"RAY_TMPDIR = '{folder}' is too long for the paths of Ray's sockets: give a folder of "
            f"at most {most} bytes, or unset it."
        )
    for short in (*SHORT_FOLDERS, environment.get("XDG_RUNTIME_DIR", "")):
        if short and len(os.fsencode(short)) <= most and is_writable(Path(short)):
            return {"RAY_TMPDIR": short}
    raise InputError(
        f"TMPDIR = '{folder}' is too long for the paths of Ray's sockets, and none of "
        f"{', '.join(SHORT_FOLDERS)} can be written to: set RAY_TMPDIR to a folder of at most "
        f"{most} bytes, or use --engine inline."
    )
