"""Parquet files, read so that none can fill the memory with a page or column of gigabytes.

The sizes of all pages are checked first, and then one batch of rows at a time is in memory. Only
columns of classes and the like are held whole, with each different text once.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from fed_ist.datasets.parquet_pages import Pages, column_pages
from fed_ist.errors import InputError
from fed_ist.files.regular import open_regular
from fed_ist.printable import printable

if TYPE_CHECKING:
    import pyarrow as pa

# Bytes of an unpacked page. In memory at once are also the page as it is in the file and, at worst,
# a copy of its only value.
MOST_OF_A_PAGE = 95_000_000
MOST_OF_A_BATCH = 32_000_000
MOST_OF_A_FOOTER = 16_000_000
MOST_SAID = 4_000_000  # bytes of the columns' metadata
ROWS_AT_A_TIME = 64
ROWS_OF_LABELS = 65536
# Rows take memory too, and a file of a few bytes can claim billions.
FREE_ROWS, BYTES_OF_A_ROW = 2_000_000, 32
END = b"PAR1"

A = TypeVar("A")


def look_at(path: Path, how: Callable[[Any], A]) -> A:
    """The result of `how` on pyarrow's `ParquetFile`; raises `InputError` where it is damaged."""
    with opened(path) as (found, _):
        return how(found)


@contextmanager
def opened(path: Path) -> Iterator[tuple[Any, BinaryIO]]:
    """A context with (pyarrow's `ParquetFile`, the open file).

    Errors of either inside the block become an `InputError`.
    """
    import pyarrow as pa
    from pyarrow import parquet

    pa.set_memory_pool(pa.system_memory_pool())  # others do not give a large page's memory back
    try:
        with open_regular(path) as file:
            _require_end(file)
            # By its descriptor: the name may belong to another file by now.
            place = f"/dev/fd/{file.fileno()}"
            found = parquet.ParquetFile(
                place if os.path.exists(place) else path,  # noqa: PTH110 - not everywhere
                buffer_size=1 << 16,
                pre_buffer=False,
            )
            _require_rows(found.metadata, file)
            yield found, file
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        if isinstance(error, InputError):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"'{printable(path)}' cannot be read as parquet: {printable(reason)}"
        ) from None


def _require_end(file: BinaryIO) -> None:
    size = os.fstat(file.fileno()).st_size
    file.seek(max(0, size - 8))
    end = file.read(8)
    if end[4:] != END:
        raise ValueError("it does not end as such a file does; was it copied whole?")
    if int.from_bytes(end[:4], "little") > MOST_OF_A_FOOTER:
        raise ValueError(f"its footer is larger than {MOST_OF_A_FOOTER // 1_000_000} MB")


def _require_rows(metadata: Any, file: BinaryIO) -> None:
    size = os.fstat(file.fileno()).st_size
    if metadata.num_rows > FREE_ROWS + size // BYTES_OF_A_ROW:
        raise ValueError(f"it claims {metadata.num_rows} rows, and has {size} bytes")
    said = sum(len(key) + len(value) for key, value in (metadata.metadata or {}).items())
    if said > MOST_SAID:
        raise ValueError(f"what it says of its columns is larger than {MOST_SAID // 1_000_000} MB")


def batches(path: Path, column: str, most_rows: int = ROWS_AT_A_TIME) -> "Iterator[pa.Array]":
    """A column of a file, at most `most_rows` rows at a time.

    Raises `InputError` where the file is damaged or a page is too large.
    """
    with opened(path) as (found, file):
        pages = _checked(file, found.metadata, column)
        n_rows = max(1, min(most_rows, MOST_OF_A_BATCH // max(1, pages.largest)))
        for batch in found.iter_batches(n_rows, columns=[column], use_threads=False):
            yield batch.column(0)


def whole_column(paths: Sequence[Path], name: str, column: str) -> "pa.ChunkedArray":
    """A column of all files in memory, in which each different text is held once.

    name: what messages call the files together. Raises `InputError` where the files disagree on the
    column's type, or where it holds more than numbers or short texts.
    """
    import pyarrow as pa

    found = [_coded(path, column) for path in paths]
    kinds = [chunk.type for chunk in found if not pa.types.is_null(chunk.type)]
    try:
        tables = [
            pa.table(
                {"x": pa.nulls(len(chunk), kinds[0]) if pa.types.is_null(chunk.type) else chunk}
            )
            for chunk in (found if kinds else [])
        ]
        whole = pa.concat_tables(
            tables or [pa.table({"x": chunk}) for chunk in found], promote_options="permissive"
        ).column("x")
        return whole.unify_dictionaries()
    except pa.ArrowException as error:
        raise InputError(
            f"The tables of '{name}' disagree on their column '{printable(column)}': "
            f"{printable(error)}."
        ) from None


def _coded(path: Path, column: str) -> "pa.ChunkedArray":
    import pyarrow as pa
    from pyarrow import parquet

    with opened(path) as (found, file):
        kind = found.schema_arrow.field(column).type
        _checked(file, found.metadata, column)
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if pa.types.is_nested(kind):
            raise InputError(
                f"The column '{printable(column)}' of '{printable(path)}' holds {kind}, which is "
                "no class or name: each image needs one whole number or text. Choose another."
            )
        holds_bytes = str(kind).removeprefix("large_") in ("string", "binary")
        place = f"/dev/fd/{file.fileno()}"
        again = parquet.ParquetFile(
            place if os.path.exists(place) else path,  # noqa: PTH110 - not everywhere
            buffer_size=1 << 16,
            pre_buffer=False,
            read_dictionary=[column] if holds_bytes else None,
        )
        rows = again.iter_batches(ROWS_OF_LABELS, columns=[column], use_threads=False)
        chunks = [batch.column(0) for batch in rows]
        kind = chunks[0].type if chunks else kind
        return pa.chunked_array(chunks, type=kind).unify_dictionaries()


def _checked(file: BinaryIO, metadata: Any, column: str) -> Pages:
    pages = column_pages(file, metadata, column)
    if pages.largest > MOST_OF_A_PAGE:
        raise InputError(
            f"'{printable(file.name)}' has pages of {pages.largest / 1e6:.0f} MB in its column "
            f"'{printable(column)}', and {MOST_OF_A_PAGE / 1e6:.0f} MB are the most that is "
            "unpacked at once. Write it again with fewer rows in a group, for example with "
            "row_group_size=100."
        )
    return pages
