"""How much memory images may take while they are made: what one may, and all that are at once.

A few bytes of a file can stand for gigabytes of pixels, so what an image takes is looked up in its
header before any pixel is made. Small images are decoded in several threads at once, large ones one
at a time.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

MOST_BYTES = 150_000_000  # of one image: its file, its pixels, and what its decoder needs
SMALL_BYTES = 16_000_000  # images below it are decoded side by side

_large = threading.Lock()


class TooLargeError(Exception):
    """An image that takes more memory than one may: the message says how much."""


class _Taken(threading.local):
    """What this thread's image takes. depth: of nested rooms. is_large: it holds `_large`."""

    n_bytes = 0
    depth = 0
    is_large = False


_taken = _Taken()


@contextmanager
def room() -> Iterator[None]:
    """While one image is read and used; what it took is given back at the end of the outermost."""
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
    """Say, within a `room`, that so many bytes more are needed, and wait until they may be had.

    what: the subject of the sentence, such as "its file". Raises `TooLargeError` where the image
    would take more than `MOST_BYTES` in all.
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
