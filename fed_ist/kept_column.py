"""The images of a large table, uncompressed in one file of the cache, read row by row."""

import threading
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fed_ist.cache_files import tell_damaged
from fed_ist.chunks import ChunkFile, writing_chunks
from fed_ist.durable import clear
from fed_ist.paths import make_cache
from fed_ist.seals import DamagedError

Cell = bytes | str | None
BYTES, PATH, NOTHING = 0, 1, 2  # what a row holds: the first byte of its piece


class KeptColumn:
    """Cells of a column: an image file's bytes, the path of one, or None.

    cells: gives them all, in order; asked where there is no file of them at `path`, and again where
    that is damaged, which may show at any row.
    """

    def __init__(self, path: Path, cells: Callable[[], Iterable[Cell]]) -> None:
        self._path, self._cells, self._lock = path, cells, threading.Lock()
        self._file = self._open()

    def __len__(self) -> int:
        """The number of rows."""
        return len(self._file) - 1

    def get(self, i: int) -> Cell:
        """The cell of a row."""
        piece = self._read(i)
        kind, content = piece[0], piece[1:]
        if kind == PATH:
            return content.decode("utf-8", "surrogateescape")
        return content if kind == BYTES else None

    @cached_property
    def absent(self) -> NDArray[np.bool_]:
        """Which rows hold nothing: (n,)."""
        kinds = np.frombuffer(self._read(len(self)), np.uint8)
        return np.equal(kinds, NOTHING)

    def _read(self, i: int) -> bytes:
        file = self._file
        try:
            return file.read(i)
        except DamagedError as error:
            with self._lock:
                if self._file is file:  # else another thread has made it again
                    tell_damaged(self._path, str(error))
                    self._file = self._make()
            return self._file.read(i)

    def _open(self) -> ChunkFile:
        try:
            file = ChunkFile(self._path, "table of images", "Delete it.")
            if file.head.get("name") == self._path.name:
                return file
            tell_damaged(self._path, "it is another one's.")
        except FileNotFoundError:
            pass
        except DamagedError as error:
            tell_damaged(self._path, str(error))
        return self._make()

    def _make(self) -> ChunkFile:
        make_cache(self._path.parent)
        if self._path.is_dir():
            clear(self._path)
        with writing_chunks(self._path) as chunks:
            kinds = bytearray()
            for cell in self._cells():
                piece, kind = _piece(cell)
                chunks.add(piece)
                kinds.append(kind)
            chunks.add(bytes(kinds))
            chunks.head["name"] = self._path.name
        return ChunkFile(self._path, "table of images", "Delete it.")


def _piece(cell: Cell) -> tuple[bytes, int]:
    if cell is None:
        return bytes([NOTHING]), NOTHING
    if isinstance(cell, str):
        return bytes([PATH]) + cell.encode("utf-8", "surrogateescape"), PATH
    return bytes([BYTES]) + cell, BYTES
