"""Arrays as safetensors with a checksum of the whole file in its metadata.

The checksum is computed while zeros stand in its place, and then replaces them. Any reader of
safetensors can open the file, and equal content gives equal bytes.
"""

import json
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fed_ist.files.seals import KEY, NOT_AS_WRITTEN, DamagedError, in_words

METADATA = "fed-ist"
PLACE = in_words(0).encode()
FOUND = re.compile(rb"crc32:[0-9a-f]{8}")
MOST_HEADER_BYTES = 100_000_000  # safetensors' own limit
LENGTH_BYTES = 8  # at the beginning of a file: the number of bytes of its header


def with_checksum(data: bytes) -> bytes:
    """The bytes of a safetensors file with its checksum in the place of `PLACE`.

    data: the same file, whose metadata holds `PLACE`.
    """
    start = data.index(PLACE, LENGTH_BYTES, LENGTH_BYTES + _header_bytes(data))
    checksum = in_words(zlib.crc32(data)).encode()
    return data[:start] + checksum + data[start + len(PLACE) :]


def is_sealed(data: bytes) -> bool:
    """Whether the header of a file has a checksum, or the key of one that is damaged."""
    header = data[LENGTH_BYTES : LENGTH_BYTES + _header_bytes(data)]
    return bool(FOUND.search(header)) or KEY.encode() in header


def require_unharmed(path: Path) -> None:
    """Raise `DamagedError` for a file whose checksum does not fit its content.

    A file without a checksum, as other programs write it, passes.
    """
    with path.open("rb") as file:
        start = file.read(LENGTH_BYTES)
        header = file.read(min(_header_bytes(start), MOST_HEADER_BYTES))
        if FOUND.search(header) and not is_whole(start + header + file.read()):
            raise DamagedError(f"'{path}' is damaged: {NOT_AS_WRITTEN}. Restore it from a copy.")


def is_whole(data: bytes) -> bool:
    """Whether the bytes of a file have a checksum, and it fits."""
    found = FOUND.search(data, LENGTH_BYTES, min(len(data), LENGTH_BYTES + _header_bytes(data)))
    if not found:
        return False
    crc = zlib.crc32(memoryview(data)[: found.start()])
    crc = zlib.crc32(memoryview(data)[found.end() :], zlib.crc32(PLACE, crc))
    return found[0] == in_words(crc).encode()


def save_sealed(arrays: Mapping[str, NDArray[Any]], head: Mapping[str, Any]) -> bytes:
    """The bytes of a file with these arrays, of any shapes and dtypes, and a checksum.

    head: further values, which JSON must be able to hold.
    """
    # One entry: safetensors writes several in random order.
    text = json.dumps({KEY: PLACE.decode(), **head})
    return with_checksum(save(dict(arrays), metadata={METADATA: text}))


def load_sealed(
    path: Path, what: str, *, is_old_read: bool = False
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """(arrays, head) as `save_sealed` was given them: name -> array of its own shape and dtype.

    what: the end of the sentence "'file' is cut short or ..." of `DamagedError`, which is raised
    where the file cannot be read.
    is_old_read: whether a file without a checksum, of an earlier version, is read too.
    """
    try:
        data = path.read_bytes()
        if not (is_whole(data) or (is_old_read and not is_sealed(data))):
            raise ValueError(NOT_AS_WRITTEN)
        header = json.loads(data[LENGTH_BYTES : LENGTH_BYTES + _header_bytes(data)])
        head = json.loads(header["__metadata__"][METADATA])
        arrays = load(data)
        head.pop(KEY, None)
    except (SafetensorError, OSError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise DamagedError(f"'{path}' is cut short or {what} ({error}).") from None
    return arrays, head


def _header_bytes(data: bytes) -> int:
    return int.from_bytes(data[:LENGTH_BYTES], "little")
