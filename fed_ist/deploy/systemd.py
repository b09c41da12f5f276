"""Writes units for systemd, which start Flower at boot and again whenever it ends.

A unit runs as the user who made it. It may write to folders that systemd makes for it, and read
what the user may read.
"""

import os
import pwd
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from fed_ist.deploy.certificates import find_server_files, read_certificate
from fed_ist.deploy.node_keys import require_name, require_private
from fed_ist.errors import InputError
from fed_ist.files.paths import require_writable, server_results_dir
from fed_ist.launch.addresses import split_address
from fed_ist.launch.environment import FLOWER_SETTINGS, direct_loopback
from fed_ist.traffic.links import find_link

# Folders that systemd makes.
STATE, CACHE, LOGS = "/var/lib/fed-ist", "/var/cache/fed-ist", "/var/log/fed-ist"
RUNTIME = "/run/fed-ist-gate"
DATABASE = f"{STATE}/superlink.db"
FIRST_FREE_PORT = 1024  # ports below it are for programs of root
ENVIRONMENT = {
    "FLWR_HOME": f"{STATE}/flwr",
    "XDG_CACHE_HOME": CACHE,
    "MPLCONFIGDIR": f"{CACHE}/matplotlib",
    "PYTHONUNBUFFERED": "1",
    **FLOWER_SETTINGS,
}
HARDENING = """\
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
CapabilityBoundingSet=
SystemCallArchitectures=native
UMask=0077
"""


def superlink_unit(keys: Path, port: int) -> str:
    """The unit of the SuperLink, which only its own host can reach.

    It has TLS, takes nodes with registered keys, and keeps its state on disk. keys: the folder that
    `fed-ist keys` has made. Raises `InputError` where a file is missing, and where runs could not
    write their results.
    """
    files = find_server_files(keys)
    results = server_results_dir("").absolute()
    require_writable(results, "results-dir")
    command = [
        _program("flower-superlink"),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--ssl-ca-certfile", str(files.authority)),
        *("--ssl-certfile", str(files.server)),
        *("--ssl-keyfile", str(files.key)),
        "--enable-supernode-auth",
        *("--database", DATABASE),
        *("--log-file", f"{LOGS}/superlink.log"),
        *("--log-rotation-interval-hours", "24", "--log-rotation-backup-count", "14"),
    ]
    more = [f"ReadWritePaths={_word(str(results))}", "LogsDirectory=fed-ist", "LimitNOFILE=65536"]
    return _unit("Flower SuperLink of fed-ist", command, more)


def gate_unit(keys: Path, port: int, superlink_port: int) -> str:
    """The unit of the gate: nginx and the verifier, as the SuperLink's user, with its database.

    keys: the folder that `fed-ist keys` has made. Raises `InputError` where a file is missing.
    """
    find_server_files(keys)
    command = [
        _program("fed-ist"),
        *("gate", "--keys", str(keys.absolute())),
        *("--port", str(port), "--superlink-port", str(superlink_port)),
        *("--database", DATABASE),
        *("--runtime", RUNTIME, "--bodies", f"{CACHE}/bodies", "--logs", LOGS),
    ]
    more = [
        f"RuntimeDirectory={Path(RUNTIME).name}",
        "RuntimeDirectoryMode=0700",
        "LogsDirectory=fed-ist",
        "LimitNOFILE=65536",
    ]
    text = _unit("Gate of fed-ist", command, more)
    if port < FIRST_FREE_PORT:
        allowed = "CapabilityBoundingSet=CAP_NET_BIND_SERVICE"
        text = text.replace(
            "CapabilityBoundingSet=\n", f"{allowed}\nAmbientCapabilities=CAP_NET_BIND_SERVICE\n"
        )
    return text


def supernode_unit(superlink: str, authority: Path, key: Path, data_path: Path, link: str) -> str:
    """The unit of a device, which knows the server by its authority and is known by its key.

    Its SuperNode speaks to the server by one lasting connection. superlink: HOST:PORT. key: a file
    that has the node's name. link: one of `fed-ist links`, or "".
    Raises `InputError` for settings that cannot work, and for a key that others may read.
    """
    split_address(superlink)
    read_certificate(authority)
    require_private(key)
    require_name(key.name)
    data_path = data_path.absolute()
    if not data_path.is_dir() or not os.access(data_path, os.R_OK | os.X_OK):
        raise InputError(
            f"--data-path '{data_path}' is not a folder that you may read. Give that of the "
            "images, which has a folder for each class."
        )
    if "'" in str(data_path):
        raise InputError(f'--data-path "{data_path}" has an apostrophe: rename the folder.')
    if link:
        find_link(link)
    settings = {"data-path": str(data_path), "name": key.name, "link": link}
    command = [
        _program("fed-ist"),
        *("supernode", "--superlink", superlink),
        *("--root-certificates", str(authority.absolute())),
        *("--auth-supernode-private-key", str(key.absolute())),
        "--node-config",
        " ".join(f"{key}='{value}'" for key, value in settings.items() if value),
    ]
    # A slice's matrices are small, so that several threads are slower than one, and many times
    # slower where other programs run. Encoding uses a thread for each core nevertheless.
    return _unit("Flower SuperNode of fed-ist", command, ['Environment="OMP_NUM_THREADS=1"'])


def _program(name: str) -> str:
    path = Path(sysconfig.get_path("scripts"), name)
    if not path.exists():
        raise InputError(f"'{path}' is missing: Flower is not installed with fed-ist.")
    return str(path)


def _unit(what: str, command: Sequence[str], more: Sequence[str]) -> str:
    programs = f"{sysconfig.get_path('scripts')}:/usr/local/bin:/usr/bin:/bin"
    # A device may reach its server by a proxy, but never its own programs.
    variables = {"PATH": programs, **ENVIRONMENT, **direct_loopback(os.environ)}
    environment = "\n".join(
        f'Environment="{key}={_escaped(value)}"' for key, value in variables.items()
    )
    further = "\n".join(more)
    start = " ".join(_word(word).replace("$", "$$") for word in command)
    return f"""\
[Unit]
Description={what}
Wants=network-online.target
After=network-online.target time-sync.target
StartLimitIntervalSec=0

[Service]
User={pwd.getpwuid(os.getuid()).pw_name}
{environment}
ExecStart={start}
WorkingDirectory={STATE}
StateDirectory=fed-ist
CacheDirectory=fed-ist
{further}
Restart=always
RestartSec=30
TimeoutStopSec=30
MemoryMax=80%
TasksMax=1024
{HARDENING}
[Install]
WantedBy=multi-user.target
"""


def _word(text: str) -> str:
    escaped = _escaped(text)
    return f'"{escaped}"' if any(mark in escaped for mark in " '\"\\;") else escaped


def _escaped(text: str) -> str:
    if not text.isprintable():
        raise InputError(f"systemd cannot read {text!r}: rename it to what can be printed.")
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
