"""Holds processes to a share of a processor core, by Linux' control groups, as slow devices are."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fed_ist.errors import InputError

GROUPS = Path("/sys/fs/cgroup")
PERIOD_US = 20_000  # short, so that a process is slow and not halted for long
LEAST_QUOTA_US = 1000  # Linux allows no less


@contextmanager
def cpu_limit(cores: float, groups: Path = GROUPS) -> Iterator[Path]:
    """A control group whose processes together get `cores` of a core.

    Yields the file to which the number of a process is written to put it into the group, with what
    it starts from then on. At the end, processes in the group are put back. Raises `InputError`
    where groups cannot be made.
    """
    unified = (groups / "cgroup.controllers").is_file()
    home = groups if unified else groups / "cpu"
    group = None
    try:
        group = Path(tempfile.mkdtemp(prefix="fed-ist-", dir=home))
        if unified:
            # If the controller is on already, as under systemd, this changes nothing.
            with suppress(OSError):
                (home / "cgroup.subtree_control").write_text("+cpu")
        for name, text in limits(cores, unified=unified).items():
            (group / name).write_text(text)
    except OSError as error:
        if group:
            group.rmdir()
        raise InputError(
            f"A slow processor cannot be imitated here: a control group in '{home}' cannot be "
            f"made ({error.strerror}). Run this as root on Linux, outside of containers."
        ) from None
    try:
        yield group / "cgroup.procs"
    finally:
        _remove(group, home)


def limits(cores: float, *, unified: bool) -> dict[str, str]:
    """The files that limit a group, with their text. unified: whether it is of cgroup v2."""
    period_us = max(PERIOD_US, round(LEAST_QUOTA_US / cores))
    quota_us = round(period_us * cores)
    if unified:
        return {"cpu.max": f"{quota_us} {period_us}"}
    return {"cpu.cfs_period_us": str(period_us), "cpu.cfs_quota_us": str(quota_us)}


def _remove(group: Path, home: Path) -> None:
    for process in (group / "cgroup.procs").read_text(encoding="utf-8").split():
        with suppress(OSError):  # it ended
            (home / "cgroup.procs").write_text(process)
    group.rmdir()
