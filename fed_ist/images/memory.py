"""Limits to the memory that images take while they are decoded.

A few bytes of a file can stand for gigabytes of pixels. So the need of an image is computed from
its header before any pixel is decoded, and announced by `take` within a `room`. Small images are
decoded in several threads at once, large ones one at a time.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

MOST_BYTES = 150_000_000  # of one image: its file, its pixels, and what its decoder needs
SMALL_BYTES = 16_000_000  # images that take less are decoded at the same time

_large = threading.Lock()


class TooLargeError(Exception):
    """An image would take more memory than one may; the message says how much."""


class _Taken(threading.local):
    """What the image of this thread takes, in bytes.

    depth: the number of nested rooms. is_large: whether this thread holds the lock `_large`.
    """

    n_bytes = 0
    depth = 0
    is_large = False


_taken = _Taken()


@contextmanager
def room() -> Iterator[None]:
    """A context for reading and using one image; rooms may be nested.

    The memory that `take` counted is given back when the outermost room ends.
    """
    _taken.depth += 1
    try:
        yield
    finally:
        _taken.depth -= 1
        if not _taken.depth:
            _taken.n_bytes = 0
            if _taken.is_large:
                _taken.is_large = False
                _large.release()


def take(n_bytes: int, what: str) -> None:
    """Count `n_bytes` more for the image of this room; wait while another large image is decoded.

    what: the subject of the message's sentence, such as "its file". Raises `TooLargeError` where
    the image would take more than `MOST_BYTES` in all.
    """
    assert _taken.depth, "outside of a room"
    total = _taken.n_bytes + n_bytes
    if total > MOST_BYTES:
        raise TooLargeError(
            f"{what} would take {total / 1e6:.0f} MB of memory, and one image may take "
            f"{MOST_BYTES / 1e6:.0f} MB. Save it smaller"
        )
    _taken.n_bytes = total
    if total > SMALL_BYTES and not _taken.is_large:
        _large.acquire()
        _taken.is_large = True
