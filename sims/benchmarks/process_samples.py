"""What processes and disk take while a run goes on: memory, threads, open files, bytes, rows."""

import sqlite3
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from sims.benchmarks.loopback import Loopback

# Processes that last, by the command that they run; a ClientApp lives for one message.
LASTING = {
    "flower-superlink": "SuperLink",
    "flower-supernode": "SuperNode",
    "flower-superexec": "SuperExec",
    "flwr-serverapp": "ServerApp",
}


@dataclass(frozen=True)
class Usage:
    """What a process takes.

    resident_bytes: of memory. own_bytes: of memory that no other process shares. threads: how many.
    handles: open files and sockets.
    """

    resident_bytes: int
    own_bytes: int
    threads: int
    handles: int


@dataclass(frozen=True)
class Sample:
    """What everything took after a round of the run.

    at_s: seconds since the run was started. processes: by role. zombies: processes that have ended
    and that nobody has waited for. disk_bytes: by what they are for. rows: by table of Flower's
    database.
    """

    round: int
    at_s: float
    processes: dict[str, Usage]
    zombies: int
    disk_bytes: dict[str, int]
    rows: dict[str, int]


def take_sample(round_: int, at_s: float, hosts: Loopback, results: Path) -> Sample:
    """Look at all processes and files now."""
    processes: dict[str, Usage] = {}
    zombies = 0
    families = {"server": hosts.server, **{f"node {i}": n for i, n in enumerate(hosts.nodes)}}
    for place, process in families.items():
        for member in family(process):
            with suppress(psutil.NoSuchProcess):  # it ended while we looked
                if member.status() == psutil.STATUS_ZOMBIE:
                    zombies += 1
                elif role := role_of(member):
                    processes[f"{place}: {role}"] = _usage(member)
    return Sample(
        round_,
        at_s,
        processes,
        zombies,
        {
            "Flower's database": sum(count_bytes(p) for p in _database_files(hosts.database)),
            "Flower's home": count_bytes(hosts.flower_home),
            "the run's results": count_bytes(results),
            "the nodes' caches": count_bytes(hosts.cache),
            "logs": count_bytes(hosts.logs),
        },
        count_rows(hosts.database),
    )


def family(process: "subprocess.Popen[bytes]") -> Iterator[psutil.Process]:
    """A process and everything that it has started."""
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process.pid)
        yield from [parent, *parent.children(recursive=True)]


def lasting_cpu_s(process: psutil.Process) -> float:
    """CPU seconds of a SuperNode and its SuperExec, without those of ClientApps."""
    try:
        members = [process, *process.children()]
        return sum(sum(member.cpu_times()[:2]) for member in members)
    except psutil.NoSuchProcess:
        return 0.0


def role_of(process: psutil.Process) -> str:
    """What a process is to Flower; "" for one that does not last."""
    names = [Path(word).name for word in process.cmdline()[:2]]  # a script's is after Python's
    return next((LASTING[name] for name in names if name in LASTING), "")


def _usage(process: psutil.Process) -> Usage:
    memory = process.memory_full_info()
    return Usage(memory.rss, memory.uss, process.num_threads(), process.num_fds())


def _database_files(database: Path) -> Sequence[Path]:
    return [database, *database.parent.glob(f"{database.name}-*")]  # with what SQLite writes ahead


def count_bytes(path: Path) -> int:
    """What a file, or all files below a folder, take on the disk; 0 where there is nothing."""
    files = [path] if path.is_file() else path.rglob("*")
    found = 0
    for file in files:
        with suppress(FileNotFoundError):  # files come and go
            found += 512 * file.lstat().st_blocks
    return found


def count_rows(database: Path) -> dict[str, int]:
    """The number of rows by table of a SQLite database that is in use, without empty tables."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        counts = {
            name: connection.execute(f'SELECT COUNT(*) FROM "{name}"').fetchone()[0]
            for (name,) in names.fetchall()
        }
    return {name: count for name, count in counts.items() if count}
