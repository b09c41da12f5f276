"""Arrays as safetensors with a checksum of the whole file in its metadata.

The checksum stands where zeros stood when it was computed. Any reader of safetensors can open the
file, and equal content gives equal bytes.
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
MOST_HEADER_BYTES = 100_000_000  # which is safetensors' own limit
LENGTH_BYTES = 8  # of the header's length, with which the file begins


def with_checksum(data: bytes) -> bytes:
    """A safetensors file whose metadata holds `PLACE`, with the checksum in that place."""
    start = data.index(PLACE, LENGTH_BYTES, LENGTH_BYTES + _header_bytes(data))
    checksum = in_words(zlib.crc32(data)).encode()
    return data[:start] + checksum + data[start + len(PLACE) :]


def is_sealed(data: bytes) -> bool:
    """Whether a file has a checksum, or looks as if it had one once."""
    header = data[LENGTH_BYTES : LENGTH_BYTES + _header_bytes(data)]
    return bool(FOUND.search(header)) or KEY.encode() in header


def require_unharmed(path: Path) -> None:
    """Raise `DamagedError` for a file with a checksum that is not as it was written.

    A file without one, as others write them, is not looked at further.
    """
    with path.open("rb") as file:
        start = file.read(LENGTH_BYTES)
        header = file.read(min(_header_bytes(start), MOST_HEADER_BYTES))
        if FOUND.search(header) and not is_whole(start + header + file.read()):
            raise DamagedError(f"'{path}' is damaged: {NOT_AS_WRITTEN}. Restore it from a copy.")


def is_whole(data: bytes) -> bool:
    """Whether a file is as `with_checksum` made it."""
    found = FOUND.search(data, LENGTH_BYTES, min(len(data), LENGTH_BYTES + _header_bytes(data)))
    if not found:
        return False
    crc = zlib.crc32(memoryview(data)[: found.start()])
    crc = zlib.crc32(memoryview(data)[found.end() :], zlib.crc32(PLACE, crc))
    return found[0] == in_words(crc).encode()


def save_sealed(arrays: Mapping[str, NDArray[Any]], head: Mapping[str, Any]) -> bytes:
    """A file of arrays; `head`: what JSON can hold."""
    # One entry: safetensors writes several in random order.
    text = json.dumps({KEY: PLACE.decode(), **head})
    return with_checksum(save(dict(arrays), metadata={METADATA: text}))


def load_sealed(
    path: Path, what: str, *, is_old_read: bool = False
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """(arrays, head) of a file that is there.

    what: it is to be, for the sentence of `DamagedError`. is_old_read: whether a file without a
    checksum is read as it is.
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
