"""Many pieces of bytes in one file, each with a checksum that is compared when it is read.

The pieces come first, then an index with their sizes and checksums, and last the place of the
index. So a file that was cut short is recognised at once, and opening a large one costs no more
than reading its index. Nothing is mapped into memory: bytes that a damaged disk gives are refused.
"""

import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fed_ist.files.atomic import put_in_place, temporary_path
from fed_ist.files.seals import NOT_AS_WRITTEN, DamagedError

MAGIC = b"fed-ist chunks 1"
END = struct.Struct("<QQQL16s")  # index: where, its bytes, those of its JSON, checksum; MAGIC
SIZE, CRC = np.dtype("<u8"), np.dtype("<u4")


class ChunkWriter:
    """Writes pieces one after the other, and at the end their index.

    head: values for JSON, filled by the caller before `finish`; `ChunkFile.head` gives them back.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.head: dict[str, Any] = {}
        self._file = file
        self._sizes: list[int] = []
        self._crcs: list[int] = []
        file.write(MAGIC)

    def __len__(self) -> int:
        return len(self._sizes)

    def add(self, data: bytes | memoryview) -> None:
        """Write one more piece: bytes, or anything contiguous that can be viewed as bytes."""
        view = memoryview(data).cast("B")
        self._file.write(view)
        self._sizes.append(len(view))
        self._crcs.append(zlib.crc32(view))

    def finish(self) -> None:
        """Write the index, after the last piece."""
        head = json.dumps(self.head).encode()
        index = head + np.array(self._sizes, SIZE).tobytes() + np.array(self._crcs, CRC).tobytes()
        place = (len(MAGIC) + sum(self._sizes), len(index), len(head))
        self._file.write(index + END.pack(*place, zlib.crc32(index), MAGIC))


@contextmanager
def writing_chunks(path: Path) -> Iterator[ChunkWriter]:
    """A `ChunkWriter` whose file is put at `path` when the block ends, whole or not at all."""
    draft = temporary_path(path)
    try:
        with draft.open("wb") as file:
            writer = ChunkWriter(file)
            yield writer
            writer.finish()
        put_in_place(draft, path)
    finally:
        draft.unlink(missing_ok=True)


class ChunkFile:
    """A file of pieces, opened for reading.

    head: the values that the writer gave in its own `head`.
    what, what_to_do: the kind of file and the advice in the sentence of `DamagedError`.
    file: an open file without a path, at its beginning; `path` is then not opened.
    Raises `FileNotFoundError` where there is no file, and `DamagedError` where it is cut short,
    damaged or of another kind.
    """

    def __init__(
        self, path: Path, what: str, what_to_do: str, file: BinaryIO | None = None
    ) -> None:
        self.path, self._what, self._what_to_do = path, what, what_to_do
        try:
            self._file = file or path.open("rb")
            self.head, sizes, self._crcs = self._read_index()
        except FileNotFoundError:
            raise
        except (OSError, ValueError, struct.error) as error:
            raise self.damaged(str(error)) from None
        self._ends = np.cumsum(sizes) + len(MAGIC)
        self._starts = self._ends - sizes

    def __len__(self) -> int:
        """The number of pieces."""
        return len(self._ends)

    def read(self, i: int) -> bytes:
        """A piece; raises `DamagedError` where it is not as it was written."""
        start, end = int(self._starts[i]), int(self._ends[i])
        try:
            data = os.pread(self._file.fileno(), end - start, start)
        except OSError as error:
            raise self.damaged(str(error)) from None
        if len(data) != end - start or zlib.crc32(data) != int(self._crcs[i]):
            raise self.damaged(NOT_AS_WRITTEN)
        return data

    def damaged(self, why: str) -> DamagedError:
        """The error to raise where the file cannot be used, with the reason `why`."""
        return DamagedError(
            f"'{self.path}' is cut short or is no {self._what} ({why}). {self._what_to_do}"
        )

    def _read_index(self) -> tuple[Mapping[str, Any], NDArray[Any], NDArray[Any]]:
        file, size = self._file, os.fstat(self._file.fileno()).st_size
        if file.read(len(MAGIC)) != MAGIC or size < len(MAGIC) + END.size:
            raise ValueError("it does not begin as such files do")
        file.seek(size - END.size)
        start, n_index, n_head, crc, magic = END.unpack(file.read(END.size))
        if magic != MAGIC or start + n_index + END.size != size or n_head > n_index:
            raise ValueError("it does not end as such files do")
        file.seek(start)
        index = file.read(n_index)
        n_chunks, rest = divmod(n_index - n_head, SIZE.itemsize + CRC.itemsize)
        if zlib.crc32(index) != crc or rest:
            raise ValueError(NOT_AS_WRITTEN)
        sizes = np.frombuffer(index, SIZE, n_chunks, n_head)
        crcs = np.frombuffer(index, CRC, n_chunks, n_head + sizes.nbytes)
        if len(MAGIC) + int(sizes.sum()) != start:
            raise ValueError(NOT_AS_WRITTEN)
        return json.loads(index[:n_head]), sizes.astype(np.int64), crcs
