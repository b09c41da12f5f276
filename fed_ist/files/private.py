"""Files for keys: for their owner alone, whole or not there, and never overwritten."""

import os
import pwd
import tempfile
from pathlib import Path

from fed_ist.errors import InputError


def make_private(folder: Path) -> None:
    """Make a folder that only its owner may enter; raises `InputError` for one that others may."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except OSError as error:
        raise InputError(f"'{folder}' cannot be a folder for keys: {error.strerror}.") from None
    if found.st_uid != os.geteuid():
        raise InputError(
            f"'{folder}' belongs to another user ({_user(found.st_uid)}), who may read and replace "
            "what is in it, and it is to hold private keys: choose a new folder."
        )
    mode = found.st_mode & 0o777
    if mode & 0o077:
        raise InputError(
            f"Others may enter '{folder}' (mode {mode:o}), which is to hold private keys: choose "
            f"a new folder, or run: chmod 700 '{folder}'"
        )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # a container need not know it
        return f"number {uid}"


def write_new(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a file that at no time has more permissions than `mode`.

    Raises `OSError`, in particular `FileExistsError` where there is a file already.
    """
    temporary = _temporary(path, data, mode)
    try:
        os.link(temporary, path)
    finally:
        temporary.unlink()


def replace_keeping(path: Path, kept: Path, data: bytes) -> None:
    """Replace the file at `path` by one that everybody may read, and keep the former as `kept`.

    There is a file at `path` at any moment. Raises `FileExistsError` where `kept` is another file.
    """
    if not (kept.exists() and kept.samefile(path)):  # they are one after a cut before the end
        os.link(path, kept)
    _temporary(path, data, 0o644).replace(path)


def _temporary(path: Path, data: bytes, mode: int) -> Path:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # of mode 600
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        os.fchmod(descriptor, mode)
        file.flush()
        os.fsync(descriptor)
    return Path(name)
