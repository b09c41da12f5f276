"""What the two relays say to each other: one binary message of a WebSocket is one frame.

A frame is a byte that says what it is, and parts, each after its length in four bytes.
"""

from collections.abc import Sequence
from enum import IntEnum

# The most bytes of a frame: a message or a reply whole. One object may have 64 MiB, as at the gate.
MAX_FRAME = 65 * 2**20
MAX_PARTS = 8192  # an object takes two
LENGTH_BYTES = 4


class Kind(IntEnum):
    """What a frame is, and which parts it has.

    From a device: SIGN (time, signature), ENTER (runs, then bundles that it holds), LEAVE, GOT (the
    message's id), REPLY (the request that announces it, then an id and an object for each object).
    From the server: WELCOME (the node's number), ASK (for SIGN), MESSAGE (its list, the run or
    nothing, the bundle's hash and the bundle or nothing, then an id and an object for each object),
    STORED (the reply's id, an HTTP status in decimal digits).
    """

    SIGN = 1
    ENTER = 2
    LEAVE = 3
    GOT = 4
    REPLY = 5
    WELCOME = 16
    ASK = 17
    MESSAGE = 18
    STORED = 19


class UnreadableFrameError(ValueError):
    """A frame that is not what its sender may send; its connection is to be closed."""


def pack(kind: Kind, parts: Sequence[bytes] = ()) -> bytes:
    """A frame; raises `UnreadableFrameError` where nobody would take it."""
    frame = b"".join(
        [
            bytes([kind]),
            *(part for own in parts for part in (len(own).to_bytes(LENGTH_BYTES, "big"), own)),
        ]
    )
    if len(frame) > MAX_FRAME or len(parts) > MAX_PARTS:
        raise UnreadableFrameError(
            f"{kind.name} would have {len(parts)} parts and {len(frame)} bytes; {MAX_PARTS} and "
            f"{MAX_FRAME} are allowed"
        )
    return frame


def unpack(frame: bytes | str) -> tuple[Kind, list[bytes]]:
    """(what a frame is, its parts); raises `UnreadableFrameError` for anything that is no frame."""
    if isinstance(frame, str) or not frame:
        raise UnreadableFrameError("text, or nothing at all")
    try:
        kind = Kind(frame[0])
    except ValueError:
        raise UnreadableFrameError(f"a frame of the unknown kind {frame[0]}") from None
    parts: list[bytes] = []
    at = 1
    while at < len(frame):
        start = at + LENGTH_BYTES
        end = start + int.from_bytes(frame[at:start], "big")
        if end > len(frame) or start > len(frame) or len(parts) == MAX_PARTS:
            raise UnreadableFrameError(f"{kind.name} with parts that are not there")
        parts.append(frame[start:end])
        at = end
    return kind, parts


def pairs(parts: Sequence[bytes], kind: Kind) -> list[tuple[str, bytes]]:
    """(id, object) of each object among the last parts of a frame of this kind."""
    if len(parts) % 2:
        raise UnreadableFrameError(f"{kind.name} with an object without its content")
    return [(text(name), content) for name, content in zip(parts[::2], parts[1::2], strict=True)]


def text(part: bytes) -> str:
    """A part that is an id; raises `UnreadableFrameError` where it is none."""
    if not 0 < len(part) <= 128 or not part.isalnum():
        raise UnreadableFrameError("an id with other characters than letters and digits")
    return part.decode("ascii")


def number(part: bytes) -> int:
    """A part that is a whole number in decimal digits; raises `UnreadableFrameError` if not."""
    if not 0 < len(part) <= 20 or not part.isdigit():
        raise UnreadableFrameError("no whole number where one should be")
    return int(part)
