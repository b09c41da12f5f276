"""Checksums of files, so that damage is noticed before their content is used.

The checksum is CRC-32: it is quick on the smallest device, can be continued when a file grows, and
misses one change in four billion. It finds what disks, cables and editors do to files. It is no
defence against somebody who may write into our folders and can write checksums too.
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
TRAILER = b"\nfed-ist "  # the checksum in words and a newline follow
NOT_AS_WRITTEN = "it is not as it was written: cut short, changed or edited"


class DamagedError(InputError):
    """A file of ours is not as it was written: the message names it and says what to do."""


@dataclass(frozen=True)
class Seal:
    """What identifies the beginning of a file: its first `n_bytes`, and their CRC-32."""

    n_bytes: int = 0
    crc32: int = 0

    def then(self, data: bytes | memoryview) -> "Seal":
        """The seal of the same bytes with `data` after them."""
        return Seal(self.n_bytes + len(data), zlib.crc32(data, self.crc32))

    def fits(self, data: bytes, *, to_the_end: bool = False) -> bool:
        """Whether `data` begins with what was sealed; with `to_the_end`, whether it equals that."""
        if len(data) < self.n_bytes or (to_the_end and len(data) > self.n_bytes):
            return False
        return Seal().then(memoryview(data)[: self.n_bytes]) == self


def seal_of(data: bytes) -> Seal:
    """The seal of all of `data`."""
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
    """`data` and its checksum after it, for a file called `name` that only fed-ist reads."""
    return data + _trailer(name, data)


def without_trailer(name: str, data: bytes) -> bytes | None:
    """The data that `with_trailer` was given; None where it is damaged or has another name."""
    n_trailer = len(_trailer("", b""))
    if len(data) < n_trailer:
        return None
    kept = data[:-n_trailer]
    return kept if data[-n_trailer:] == _trailer(name, kept) else None


def _trailer(name: str, data: bytes) -> bytes:
    return TRAILER + in_words(zlib.crc32(data, zlib.crc32(name.encode()))).encode() + b"\n"


def sealed_json(values: Mapping[str, Any], indent: int | None = None) -> bytes:
    """A JSON object whose last key is the checksum of the others.

    People can read it; a file that was cut short is not valid JSON.
    """
    return (json.dumps({**values, KEY: _checksum(values)}, indent=indent) + "\n").encode()


def read_sealed_json(path: Path, what_to_do: str, *, is_old_read: bool = True) -> dict[str, Any]:
    """The values that `sealed_json` was given, from a file.

    is_old_read: whether a file without a checksum, of an earlier version, is read too.
    what_to_do: the last sentence of `DamagedError`, which is raised where the file is missing,
    cannot be read or is not as it was written.
    """
    try:
        return parse_sealed_json(path.read_bytes(), is_old_read=is_old_read)
    except OSError as error:
        raise DamagedError(f"'{path}' cannot be read: {error.strerror}. {what_to_do}") from None
    except ValueError as error:
        raise DamagedError(f"'{path}' is damaged: {error}. {what_to_do}") from None


def parse_sealed_json(data: bytes, *, is_old_read: bool = True) -> dict[str, Any]:
    """The values that `sealed_json` was given, from the bytes of a file.

    is_old_read: as in `read_sealed_json`. Raises `ValueError`, whose text is the reason, where they
    are not as they were written.
    """
    try:
        values = json.loads(data.decode())
    except RecursionError:
        raise ValueError(NOT_AS_WRITTEN) from None
    if not isinstance(values, dict):
        raise ValueError("it is no JSON object")
    if f'"{KEY}"'.encode() not in data and MARK.encode() not in data:
        if is_old_read:
            return values
        raise ValueError("it has no checksum, as files of an earlier version")
    found = values.pop(KEY, None)
    if found != _checksum(values):
        raise ValueError(NOT_AS_WRITTEN)
    return values


def _checksum(values: Mapping[str, Any]) -> str:
    """The checksum of the values, whatever the indentation of the file."""
    try:
        return in_words(zlib.crc32(json.dumps(dict(values)).encode()))
    except RecursionError:
        return ""
