"""The images of a table, in a form in which each can be read without the others.

A single row of a parquet file cannot be read alone. So a table is unpacked once, to the cache or to
a temporary file, where the images follow each other; the whole table is never in memory.
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

# Bytes that a table may unpack to: FREE_BYTES, and MOST_TIMES its file, since images of few colours
# that the table compresses again take 1% of their size.
FREE_BYTES, MOST_TIMES = 100_000_000, 100


class Cells(Protocol):
    """The images in a column of a table, by row; `len` is the number of rows.

    absent: whether a row holds no image, bool (n,).
    """

    @property
    def absent(self) -> NDArray[np.bool_]: ...

    def __len__(self) -> int: ...

    def get(self, i: int) -> bytes | str | None:
        """The image file in row i, as bytes, or its path as text; None where there is neither."""


class ArrowCells:
    """`Cells` over an Arrow column, which its owner keeps in memory or mapped."""

    def __init__(self, column: "pa.ChunkedArray") -> None:
        self.column = column
        chunks = [_kinds(chunk) for chunk in column.chunks]
        kinds = np.concatenate(chunks) if chunks else np.zeros(0, dtype=np.uint8)
        self.absent: NDArray[np.bool_] = kinds == NOTHING

    def __len__(self) -> int:
        return len(self.column)

    def get(self, i: int) -> bytes | str | None:
        """The image file in row i, as bytes, or its path as text; None where there is neither."""
        return content(self.column[i].as_py())


def unpack(
    columns: "Callable[[], Iterable[pa.Array]]", file_bytes: int, path: Path | None
) -> Cells:
    """The cells of a column, unpacked to a file, which is written unless it exists.

    columns: gives the column a few rows at a time; called again if the file turns out damaged.
    file_bytes: the size of the files that the column comes from.
    path: of the unpacked file; None for a temporary one.
    Raises `InputError` where there is no space on the disk, or where the images unpack to more than
    those of any honest table.
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
    """(content, one of the codes BYTES, PATH and NOTHING) of each cell, without copying images."""
    import pyarrow as pa

    for column in columns:
        fields = {"bytes": column, "path": column}
        if pa.types.is_struct(column.type):
            names = [column.type.field(i).name for i in range(column.type.num_fields)]
            fields = dict(zip(names, column.flatten(), strict=True))
        for i in range(len(column)):
            yield _content(*(fields[name][i] for name in ("bytes", "path") if name in fields))


def _content(*cells: Any) -> Piece:
    """The content and code of the first of these scalars that holds anything."""
    import pyarrow as pa

    for cell in cells:
        if isinstance(cell, pa.BinaryScalar) and cell.is_valid:
            data = memoryview(cell.as_buffer())
            if len(data):
                return data, PATH if isinstance(cell, pa.StringScalar) else BYTES
    return b"", NOTHING


def content(cell: Any) -> bytes | str | None:
    """What a cell holds: an image file as bytes, its path as text, or None."""
    if isinstance(cell, dict):
        cell = cell.get("bytes") or cell.get("path")
    return cell if isinstance(cell, bytes | str) else None


def _kinds(column: "pa.Array") -> NDArray[np.uint8]:
    """The code BYTES for each cell that holds anything, NOTHING for the others: uint8 (n,)."""
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
