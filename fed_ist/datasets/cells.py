"""The images of a table, each where it can be read by itself: on the disk, one after another.

Parquet has no place for one row alone. So a table is unpacked once, to the cache or to a file that
is gone with the process, and never lies in memory.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fed_ist.datasets.kept_column import BYTES, NOTHING, PATH, KeptColumn, Piece
from fed_ist.errors import InputError, file_trouble

if TYPE_CHECKING:
    import pyarrow as pa

# What a file may unpack to: images of few colours, compressed again by the table, take 1% of it.
FREE_BYTES, MOST_TIMES = 100_000_000, 100


class Cells(Protocol):
    """absent: which rows hold no image, (n,)."""

    @property
    def absent(self) -> NDArray[np.bool_]: ...

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


def unpack(
    columns: "Callable[[], Iterable[pa.Array]]", file_bytes: int, path: Path | None
) -> Cells:
    """Write cells to a file, unless it is there, and open it.

    columns: a few rows at a time; called again where the file shows to be damaged. file_bytes: of
    the files that they come from. path: None for a file that nobody else sees. Raises `InputError`
    where there is no space, or where they unpack to more than any honest table does.
    """

    def cells() -> Iterator[Piece]:
        most, total = FREE_BYTES + MOST_TIMES * file_bytes, 0
        for data, kind in _contents(columns()):
            total += len(data)
            if total > most:
                raise InputError(
                    f"The images of a table unpack to more than {most / 1e9:.1f} GB, far more than "
                    "its files take. Give them as files in folders."
                )
            yield data, kind

    try:
        return KeptColumn(path, cells)
    except OSError as error:
        where = path.parent if path else tempfile.gettempdir()
        raise InputError(
            f"A table could not be unpacked to '{where}': {file_trouble(error)}. Make room there, "
            f"or choose another folder with {'cache-dir' if path else 'TMPDIR'}."
        ) from None


def _contents(columns: "Iterable[pa.Array]") -> Iterator[Piece]:
    """(what a cell holds, what that is), without a copy of images."""
    import pyarrow as pa

    for column in columns:
        parts = {"bytes": column, "path": column}
        if pa.types.is_struct(column.type):
            names = [column.type.field(i).name for i in range(column.type.num_fields)]
            parts = dict(zip(names, column.flatten(), strict=True))
        for i in range(len(column)):
            yield _content(*(parts[name][i] for name in ("bytes", "path") if name in parts))


def _content(*cells: Any) -> Piece:
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
