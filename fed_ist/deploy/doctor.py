"""Checks whether a device can be a node, and says what to do about each check that fails."""

import json
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from tqdm import tqdm

from fed_ist.datasets.folders import Opened, learnt_split
from fed_ist.datasets.openings import open_name
from fed_ist.deploy.diagnosis import FAILURE, OK, WARNING, Diagnosis
from fed_ist.deploy.gate_requests import versions
from fed_ist.deploy.server_checks import check_authority, check_key, check_server
from fed_ist.errors import InputError
from fed_ist.files.paths import cache_dir, require_cache
from fed_ist.images.decoding import UnreadableImageError
from fed_ist.images.source import ImageSource, Reading
from fed_ist.prefetch import mapped

# An image of 64 px takes 12.3 kB packed with nothing dropped, and its embedding 0.8 kB.
CACHE_BYTES_PER_IMAGE = 15_000
STATE_BYTES = 100_000_000
# A SuperNode and its SuperExec took 97 and 90 MB; both wait while another process trains.
WAITING_BYTES = 200_000_000
NAMED = 5  # files that are named in one line
CGROUPS = Path("/sys/fs/cgroup/cgroup.controllers")


@dataclass(frozen=True)
class Checkup:
    """What to check on a device; what is None or empty is not checked.

    superlink: HOST:PORT. authority, key: files. classes: the names that the server knows.
    """

    data_path: Path | None = None
    superlink: str = ""
    authority: Path | None = None
    key: Path | None = None
    classes: tuple[str, ...] = ()


def examine(checkup: Checkup) -> Iterator[Diagnosis]:
    """Make all checks, one by one; reading the images shows a progress bar in a terminal."""
    yield check_python()
    yield from check_encoder()
    yield from check_limits()
    n_images = 0
    if checkup.data_path:
        with tqdm(desc="reading images", disable=None, leave=False) as bar:
            found, n_images = check_images(checkup.data_path, checkup.classes, bar.update)
        yield from found
    yield check_disk(n_images)
    if checkup.key:
        yield check_key(checkup.key)
    if checkup.authority:
        yield check_authority(checkup.authority)
    if checkup.superlink:
        yield from check_server(checkup.superlink, checkup.authority, checkup.key)


def check_python() -> Diagnosis:
    """The versions of Python, fed-ist and Flower that are installed; this check never fails."""
    found = f"Python {platform.python_version()} on {platform.machine()}"
    return Diagnosis("python", OK, f"{found}, {versions()}")


def check_encoder() -> Iterator[Diagnosis]:
    """Whether torch and the bundled encoder work here, and whether the memory is enough."""
    command = [sys.executable, "-m", "fed_ist.deploy.encoder_trial"]
    done = subprocess.run(command, capture_output=True, errors="replace", check=False)
    if done.returncode != 0:
        yield Diagnosis("encoder", FAILURE, _explain_crash(done.returncode, done.stderr))
        return
    found = json.loads(done.stdout)
    speed = f"torch {found['torch']} encodes {found['images_per_s']:.0f} images a second"
    yield Diagnosis("encoder", OK, speed)
    yield judge_memory(found["memory_bytes"], psutil.virtual_memory().available)


def _explain_crash(code: int, errors: str) -> str:
    last = errors.strip().splitlines()[-1] if errors.strip() else "it said nothing"
    if code == -signal.SIGILL:
        return (
            "torch uses instructions that this processor does not have. Install a torch that was "
            "built for this board."
        )
    if code == -signal.SIGKILL:
        return "it was killed: there is too little memory. Add swap, or end other programs."
    if "No module named" in last:
        return f"{last}. Install fed-ist again: pip install --force-reinstall fed-ist"
    return f"it ended with code {code}: {last}"


def judge_memory(needed_bytes: float, available_bytes: float) -> Diagnosis:
    """Whether the free memory is enough.

    needed_bytes: what the process that encodes or trains takes.
    """
    needed = needed_bytes + WAITING_BYTES
    text = f"{available_bytes / 1e6:.0f} MB are free, {needed / 1e6:.0f} MB are needed"
    if available_bytes < needed:
        return Diagnosis("memory", FAILURE, f"{text}. End other programs, or add swap.")
    return Diagnosis("memory", OK, text)


def check_limits(controllers: Path = CGROUPS) -> Iterator[Diagnosis]:
    """A warning where the kernel ignores a unit's MemoryMax, as that of a Raspberry Pi does.

    controllers: the file in which the kernel lists what it can limit.
    """
    if controllers.exists() and "memory" not in controllers.read_text(encoding="utf-8").split():
        text = (
            "this kernel does not limit a unit's memory. On a Raspberry Pi, append cgroup_enable="
            "memory to the line in /boot/firmware/cmdline.txt, and reboot."
        )
        yield Diagnosis("limits", WARNING, text)


def check_images(
    root: Path, classes: Sequence[str], on_image: Callable[[], object]
) -> tuple[list[Diagnosis], int]:
    """(diagnoses of the images in a folder or file, how many images there are); each is decoded.

    classes: the names that the server knows; empty if they are not known here. on_image: called
    after each image.
    """
    try:
        opened = open_name(str(root), Reading())
        source = learnt_split(opened, str(root))
    except (InputError, OSError) as error:
        return [Diagnosis("images", FAILURE, str(error))], 0
    unreadable = []
    for reason in mapped(lambda i: _unreadable(source, i), range(len(source))):
        on_image()
        if reason:
            unreadable.append(reason)
    found = [_judge_images(source, unreadable), *_judge_rest(opened)]
    if classes:
        found.append(_judge_classes(source, classes))
    return found, len(source)


def _unreadable(source: ImageSource, i: int) -> str:
    """Why an image cannot be decoded; "" if it can."""
    try:
        source.load(i, 64)
    except UnreadableImageError as reason:
        return str(reason)
    return ""


def _judge_images(source: ImageSource, unreadable: Sequence[str]) -> Diagnosis:
    n = len(source)
    counts = np.bincount(source.labels, minlength=len(source.class_names))
    listed = ", ".join(
        f"{name} {count}" for name, count in zip(source.class_names, counts, strict=True)
    )
    text = f"{n} images, all read: {listed}"
    if not unreadable:
        return Diagnosis("images", OK, text)
    named = "; ".join(unreadable[:NAMED]) + ("; ..." if len(unreadable) > NAMED else "")
    text = f"{len(unreadable)} of {n} images cannot be read, and are left out: {named}. "
    level = FAILURE if len(unreadable) == n else WARNING
    return Diagnosis("images", level, text + "Delete them, or copy them here again.")


def _judge_rest(opened: Opened) -> Iterator[Diagnosis]:
    """Diagnoses of files that are not learnt from, and of the folder itself."""
    if left := opened.left_out.counts:
        text = "; ".join(f"{n} {reason}" for reason, n in left.most_common())
        yield Diagnosis("left out", OK, text)
    for note in opened.notes:
        yield Diagnosis("images", WARNING, note)


def _judge_classes(source: ImageSource, classes: Sequence[str]) -> Diagnosis:
    unknown = [name for name in source.class_names if name not in classes]
    if not unknown:
        return Diagnosis("classes", OK, "the server knows each of them")
    text = f"the server does not know {', '.join(unknown)}: images of these are left out. "
    level = FAILURE if len(unknown) == len(source.class_names) else WARNING
    return Diagnosis("classes", level, text + f"Name folders as it does: {', '.join(classes)}.")


def check_disk(n_images: int) -> Diagnosis:
    """Whether the cache's disk has room for the embeddings of `n_images` and for Flower's state."""
    folder = cache_dir("")
    try:
        require_cache(folder, "the cache")
    except InputError as error:
        return Diagnosis("disk", FAILURE, str(error))
    free, needed = shutil.disk_usage(folder).free, n_images * CACHE_BYTES_PER_IMAGE + STATE_BYTES
    text = f"{free / 1e6:.0f} MB are free at '{folder}', {needed / 1e6:.0f} MB are needed"
    if free < needed:
        text += ". Delete files, or set XDG_CACHE_HOME to a folder on another disk."
        return Diagnosis("disk", FAILURE, text)
    return Diagnosis("disk", OK, text)
