"""Checksums of what is kept on a disk, so that damage shows before anything is made of it.

CRC-32, as it is quick on the smallest device, can be gone on with where a file grows, and misses
one change in four billion. It tells what disks, cables and editors have done. It is no defence
against those who may write into our folders: they can write checksums too.
"""

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from fed_ist.errors import InputError

BLOCK_BYTES = 1 << 20
KEY, MARK = "checksum", "crc32:"
TRAILER = b"\nfed-ist "  # and the checksum in words, a line
NOT_AS_WRITTEN = "it is not as it was written: cut short, changed or edited"


class DamagedError(InputError):
    """A file of ours is not as it was written: the message names it and says what to do."""


@dataclass(frozen=True)
class Seal:
    """The first `n_bytes` of a file, by their CRC-32."""

    n_bytes: int = 0
    crc32: int = 0

    def then(self, data: bytes | memoryview) -> "Seal":
        """The seal of what was sealed and of `data` after it."""
        return Seal(self.n_bytes + len(data), zlib.crc32(data, self.crc32))

    def fits(self, data: bytes, *, to_the_end: bool = False) -> bool:
        """Whether `data` begins with what was sealed, or is it `to_the_end`."""
        if len(data) < self.n_bytes or (to_the_end and len(data) > self.n_bytes):
            return False
        return Seal().then(memoryview(data)[: self.n_bytes]) == self


def seal_of(data: bytes) -> Seal:
    """The seal of all of it."""
    return Seal().then(data)


def seal_file(file: BinaryIO) -> Seal:
    """The seal of a whole file that is open at its beginning, read a block at a time."""
    seal = Seal()
    while block := file.read(BLOCK_BYTES):
        seal = seal.then(block)
    return seal


def in_words(crc32: int) -> str:
    """A checksum as our files hold it: `crc32:0badcafe`."""
    return f"{MARK}{crc32:08x}"


def with_trailer(name: str, data: bytes) -> bytes:
    """`data` for a file of our own, called `name`, that nobody else reads."""
    return data + _trailer(name, data)


def without_trailer(name: str, data: bytes) -> bytes | None:
    """The inverse of `with_trailer`; None where it is damaged, or another file's."""
    n_trailer = len(_trailer("", b""))
    if len(data) < n_trailer:
        return None
    kept = data[:-n_trailer]
    return kept if data[-n_trailer:] == _trailer(name, kept) else None


def _trailer(name: str, data: bytes) -> bytes:
    return TRAILER + in_words(zlib.crc32(data, zlib.crc32(name.encode()))).encode() + b"\n"


def sealed_json(values: Mapping[str, Any], indent: int | None = None) -> bytes:
    """A JSON object with its checksum as the last key: text for people, a line less is no JSON."""
    return (json.dumps({**values, KEY: _checksum(values)}, indent=indent) + "\n").encode()


def read_sealed_json(path: Path, what_to_do: str, *, is_old_read: bool = True) -> dict[str, Any]:
    """What `sealed_json` was given, from a file that is there.

    is_old_read: whether a file of an earlier version, which has no checksum, is read as it is.
    Raises `DamagedError`, which ends with `what_to_do`, for any other.
    """
    try:
        return parse_sealed_json(path.read_bytes(), is_old_read=is_old_read)
    except OSError as error:
        raise DamagedError(f"'{path}' cannot be read: {error.strerror}. {what_to_do}") from None
    except ValueError as error:
        raise DamagedError(f"'{path}' is damaged: {error}. {what_to_do}") from None


def parse_sealed_json(data: bytes, *, is_old_read: bool = True) -> dict[str, Any]:
    """The same of a file's bytes; raises `ValueError` with the reason."""
    try:
        values = json.loads(data.decode())
    except RecursionError:
        raise ValueError(NOT_AS_WRITTEN) from None
    if not isinstance(values, dict):
        raise ValueError("it is no JSON object")
    if f'"{KEY}"'.encode() not in data and MARK.encode() not in data:
        if is_old_read:
            return values
        raise ValueError("it has no checksum, as of an earlier version")
    found = values.pop(KEY, None)
    if found != _checksum(values):
        raise ValueError(NOT_AS_WRITTEN)
    return values


def _checksum(values: Mapping[str, Any]) -> str:
    """Of the values, however they are laid out."""
    try:
        return in_words(zlib.crc32(json.dumps(dict(values)).encode()))
    except RecursionError:
        return ""
