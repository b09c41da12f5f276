"""The images of a table, uncompressed in one file, read row by row."""

import tempfile
import threading
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fed_ist.files.atomic import clear
from fed_ist.files.cache import tell_damaged
from fed_ist.files.chunks import ChunkFile, ChunkWriter, writing_chunks
from fed_ist.files.paths import make_cache
from fed_ist.files.seals import DamagedError

Cell = bytes | str | None
BYTES, PATH, NOTHING = 0, 1, 2  # codes for what a row holds: the first byte of its piece
Piece = tuple[bytes | memoryview, int]  # the content of a row, and its code
WHAT, WHAT_TO_DO = "table of images", "Delete it."


class KeptColumn:
    """The cells of a column, kept in one file: an image file's bytes, its path, or None.

    path: of the file in the cache; None for a temporary file.
    cells: gives all cells in order. It is called where there is no file at `path`, and again where
    the file is damaged, which may be noticed at any row.
    """

    def __init__(self, path: Path | None, cells: Callable[[], Iterable[Piece]]) -> None:
        self._path, self._cells, self._lock = path, cells, threading.Lock()
        self._file = self._open(path) if path else self._unpack()

    def __len__(self) -> int:
        """The number of rows."""
        return len(self._file) - 1

    def get(self, i: int) -> Cell:
        """The cell of row i."""
        piece = self._read(i)
        kind, content = piece[0], piece[1:]
        if kind == PATH:
            return content.decode("utf-8", "surrogateescape")
        return content if kind == BYTES else None

    @cached_property
    def absent(self) -> NDArray[np.bool_]:
        """Whether a row holds nothing: bool (n,)."""
        kinds = np.frombuffer(self._read(len(self)), np.uint8)
        return np.equal(kinds, NOTHING)

    def _read(self, i: int) -> bytes:
        file = self._file
        try:
            return file.read(i)
        except DamagedError as error:
            with self._lock:
                if self._file is file:  # else another thread has made it again
                    tell_damaged(file.path, str(error))
                    self._file = self._make(self._path) if self._path else self._unpack()
            return self._file.read(i)

    def _open(self, path: Path) -> ChunkFile:
        try:
            file = ChunkFile(path, WHAT, WHAT_TO_DO)
            if file.head.get("name") == path.name:
                return file
            tell_damaged(path, "it is another one's.")
        except FileNotFoundError:
            pass
        except DamagedError as error:
            tell_damaged(path, str(error))
        return self._make(path)

    def _make(self, path: Path) -> ChunkFile:
        make_cache(path.parent)
        if path.is_dir():
            clear(path)
        with writing_chunks(path) as chunks:
            self._write(chunks)
            chunks.head["name"] = path.name
        return ChunkFile(path, WHAT, WHAT_TO_DO)

    def _unpack(self) -> ChunkFile:
        file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as this
        chunks = ChunkWriter(file)
        self._write(chunks)
        chunks.finish()
        file.flush()
        file.seek(0)
        return ChunkFile(Path(), WHAT, WHAT_TO_DO, file)

    def _write(self, chunks: ChunkWriter) -> None:
        kinds = bytearray()
        for content, kind in self._cells():
            chunks.add(bytes([kind]) + content)
            kinds.append(kind)
        chunks.add(bytes(kinds))
