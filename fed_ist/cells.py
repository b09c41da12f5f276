"""The images of a table, each where it can be read by itself: on the disk, one after another.

Parquet has no place for one row alone. So a table is unpacked once, to the cache or to a file that
is gone with the process, and never lies in memory.
"""

import hashlib
import os
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from fed_ist.durable import part_of, put_in_place
from fed_ist.errors import InputError, file_trouble

if TYPE_CHECKING:
    import pyarrow as pa

MARK = b"fed-ist cells 1\n"
NOTHING, BYTES, PATH = 0, 1, 2
ROW = np.dtype([("end", "<i8"), ("crc", "<u4"), ("kind", "u1")])
HEAD_BYTES = len(MARK) + 8 + 32  # then the number of rows, a digest of them, the rows, the cells
# What a file may unpack to: images of few colours, compressed again by the table, take 1% of it.
FREE_BYTES, MOST_TIMES = 100_000_000, 100


class Cells(Protocol):
    """absent: which rows hold no image, (n,)."""

    absent: NDArray[np.bool_]

    def __len__(self) -> int: ...

    def get(self, i: int) -> bytes | str | None:
        """The image of a row, or where it is."""


class ArrowCells:
    """A column that something else keeps in memory, or mapped."""

    def __init__(self, column: "pa.ChunkedArray") -> None:
        self.column = column
        chunks = [_kinds(chunk) for chunk in column.chunks]
        kinds = np.concatenate(chunks) if chunks else np.zeros(0, dtype=np.uint8)
        self.absent: NDArray[np.bool_] = kinds == NOTHING

    def __len__(self) -> int:
        return len(self.column)

    def get(self, i: int) -> bytes | str | None:
        return content(self.column[i].as_py())


class FileCells:
    """Cells in a file; raises `InputError` where it is damaged, after removing it."""

    def __init__(self, file: BinaryIO, path: Path | None) -> None:
        self.file, self.path = file, path
        head = os.pread(file.fileno(), HEAD_BYTES, 0)
        n_rows = int.from_bytes(head[len(MARK) : len(MARK) + 8], "little")
        size = os.fstat(file.fileno()).st_size
        if not head.startswith(MARK) or HEAD_BYTES + n_rows * ROW.itemsize > size:
            self._refuse()
        index = os.pread(file.fileno(), n_rows * ROW.itemsize, HEAD_BYTES)
        if hashlib.sha256(index).digest() != head[len(MARK) + 8 :]:
            self._refuse()
        self.rows = np.frombuffer(index, ROW)
        self.start = HEAD_BYTES + len(index)
        self.absent: NDArray[np.bool_] = self.rows["kind"] == NOTHING

    def __len__(self) -> int:
        return len(self.rows)

    def get(self, i: int) -> bytes | str | None:
        """Also raises `InputError` where the cell is not what was written."""
        row = self.rows[i]
        if row["kind"] == NOTHING:
            return None
        begin = int(self.rows[i - 1]["end"]) if i else 0
        data = os.pread(self.file.fileno(), int(row["end"]) - begin, self.start + begin)
        if zlib.crc32(data) != row["crc"]:
            self._refuse()
        return data if row["kind"] == BYTES else data.decode("utf-8", "surrogateescape")

    def _refuse(self) -> None:
        if self.path:
            self.path.unlink(missing_ok=True)
        raise InputError(
            f"'{self.path or 'A file of the system'}', where a table was unpacked, is damaged, and "
            "was removed. Do the same again."
        )


def unpack(columns: "Iterable[pa.Array]", n_rows: int, file_bytes: int, path: Path | None) -> Cells:
    """Write cells to a file, unless it is there, and open it.

    columns: a few rows at a time, `n_rows` in all. file_bytes: of the files that they come from.
    path: None for a file that nobody else sees. Raises `InputError` where there is no space, or
    where they unpack to more than any honest table does.
    """
    if path is not None and path.exists():
        return FileCells(path.open("rb"), path)
    most = FREE_BYTES + MOST_TIMES * file_bytes
    try:
        if path is None:
            file: Any = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as its cells
            _write(file, columns, n_rows, most)
            return FileCells(file, None)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = part_of(path)
        try:
            with part.open("wb") as file:
                _write(file, columns, n_rows, most)
            put_in_place(part, path)
        finally:
            part.unlink(missing_ok=True)
        return FileCells(path.open("rb"), path)
    except OSError as error:
        where = path.parent if path else tempfile.gettempdir()
        raise InputError(
            f"A table could not be unpacked to '{where}': {file_trouble(error)}. Make room there, "
            f"or choose another folder with {'cache-dir' if path else 'TMPDIR'}."
        ) from None


def _write(file: BinaryIO, columns: "Iterable[pa.Array]", n_rows: int, most: int) -> None:
    rows = np.zeros(n_rows, ROW)
    file.seek(HEAD_BYTES + rows.nbytes)
    n_done = end = 0
    for data, kind in _contents(columns):
        end += len(data)
        if end > most:
            raise InputError(
                f"The images of a table unpack to more than {most / 1e9:.1f} GB, far more than "
                "its files take. Give them as files in folders."
            )
        rows[n_done] = (end, zlib.crc32(data), kind)
        file.write(data)
        n_done += 1
    assert n_done == n_rows, (n_done, n_rows)
    file.seek(0)
    index = rows.tobytes()
    file.write(MARK + n_rows.to_bytes(8, "little") + hashlib.sha256(index).digest() + index)
    file.flush()


def _contents(columns: "Iterable[pa.Array]") -> Iterator[tuple[bytes | memoryview, int]]:
    """(what a cell holds, what that is), without a copy of images."""
    import pyarrow as pa

    for column in columns:
        parts = {"bytes": column, "path": column}
        if pa.types.is_struct(column.type):
            names = [column.type.field(i).name for i in range(column.type.num_fields)]
            parts = dict(zip(names, column.flatten(), strict=True))
        for i in range(len(column)):
            yield _content(*(parts[name][i] for name in ("bytes", "path") if name in parts))


def _content(*cells: Any) -> tuple[bytes | memoryview, int]:
    """The first of these that holds anything."""
    import pyarrow as pa

    for cell in cells:
        if isinstance(cell, pa.BinaryScalar) and cell.is_valid:
            data = memoryview(cell.as_buffer())
            if len(data):
                return data, PATH if isinstance(cell, pa.StringScalar) else BYTES
    return b"", NOTHING


def content(cell: Any) -> bytes | str | None:
    """What a cell holds: an image, where it is, or nothing."""
    if isinstance(cell, dict):
        cell = cell.get("bytes") or cell.get("path")
    return cell if isinstance(cell, bytes | str) else None


def _kinds(column: "pa.Array") -> NDArray[np.uint8]:
    """BYTES where a cell holds anything, else NOTHING: (n,)."""
    import pyarrow as pa
    from pyarrow import compute

    absent = compute.is_null(column)
    if pa.types.is_struct(column.type):
        names = {column.type.field(i).name for i in range(column.type.num_fields)}
        empty = [
            compute.is_null(compute.struct_field(column, name))
            for name in {"bytes", "path"} & names
        ]
        absent = compute.or_(absent, reduce(compute.and_, empty))
    found: NDArray[np.bool_] = np.asarray(absent.to_numpy(zero_copy_only=False), dtype=bool)
    return np.where(found, NOTHING, BYTES).astype(np.uint8)
