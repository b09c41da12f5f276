"""Tables of images as sources: one or several parquet files, or a table from the Hub.

Only the columns of images and classes are read, and others that were asked for. Images stay on the
disk, see `cells`.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fed_ist.datasets.cells import ArrowCells, Cells, unpack
from fed_ist.datasets.columns import (
    Columns,
    choose_columns,
    declared_features,
    image_columns,
    read_labels,
)
from fed_ist.datasets.folders import reading_signature
from fed_ist.datasets.left_out import NO_IMAGE, LeftOut
from fed_ist.datasets.parquet import batches, look_at, whole_column
from fed_ist.errors import InputError
from fed_ist.files.cache import digest
from fed_ist.images.bands import check_first
from fed_ist.images.decoding import (
    Picture,
    UnreadableImageError,
    decode,
    decode_bands,
    load_file,
    read_file,
)
from fed_ist.images.memory import TooLargeError, room, take
from fed_ist.images.source import ImageSource, Reading
from fed_ist.printable import printable

if TYPE_CHECKING:
    import pyarrow as pa

SMALL_TABLE = 32_000_000  # bytes: smaller tables are unpacked to a temporary file each time
LONGEST_NAME = 100  # letters of a value of partition-column
SHARD = re.compile(r"-(\d+)-of-(\d+)")


@dataclass(frozen=True)
class Table:
    """A table of parquet files, or of columns in memory.

    name: what messages call it, printable.
    folder: to which image paths in the table are relative.
    signature: a text that changes whenever the rows do.
    paths: of its files. columns: name -> column in memory; None for a table of files.
    """

    name: str
    schema: "pa.Schema"
    folder: Path
    signature: str
    paths: tuple[Path, ...] = ()
    columns: "Mapping[str, pa.ChunkedArray] | None" = None

    @property
    def n_rows(self) -> int:
        """The number of rows of all files."""
        if self.columns is not None:
            return max((len(column) for column in self.columns.values()), default=0)
        return sum(look_at(path, lambda found: int(found.metadata.num_rows)) for path in self.paths)

    @property
    def image_columns(self) -> list[str]:
        """The columns that hold images; raises `InputError` where a file cannot be read."""
        return image_columns(self.schema, self.first)

    @property
    def holds_paths(self) -> bool:
        """Whether the table holds paths of images, rather than the images themselves."""
        cells = [self.first(column) for column in self.image_columns]
        return any(isinstance(cell, dict) and cell.get("bytes") is None for cell in cells)

    def column(self, name: str) -> "pa.ChunkedArray":
        """A column in memory; raises `InputError` where the files disagree or cannot be read."""
        if self.columns is not None:
            return self.columns[name]
        return whole_column(self.paths, self.name, name)

    def cells(self, name: str, cache: Path | None) -> Cells:
        """The images in a column, unpacked to the cache or, of a small table, to a temporary file.

        cache: None to use a temporary file always.
        """
        if self.columns is not None:
            return ArrowCells(self.columns[name])
        n_bytes = sum(path.stat().st_size for path in self.paths)
        is_kept = cache is not None and n_bytes > SMALL_TABLE
        place = (
            cache / f"table-{digest(self.signature, name)}.images" if cache and is_kept else None
        )
        if place:
            place.with_suffix(".arrow").unlink(missing_ok=True)  # of earlier versions
        return unpack(
            lambda: (column for path in self.paths for column in batches(path, name)),
            n_bytes,
            place,
        )

    def first(self, column: str) -> object:
        """The first value of a column that is not null; None where all are."""
        if self.columns is not None:
            return _first(self.columns[column])
        found = (_first(batch) for path in self.paths for batch in batches(path, column, 16))
        return next((value for value in found if value is not None), None)


def open_files(paths: Sequence[Path], name: str, signature: str) -> Table:
    """A table of parquet files with the same columns.

    name: what messages call it. Raises `InputError` where a file is not parquet, or where their
    columns or classes differ.
    """
    schemas = [look_at(path, lambda found: found.schema_arrow) for path in paths]
    for path, schema in zip(paths, schemas, strict=True):
        if set(schema.names) != set(schemas[0].names):
            raise InputError(
                f"'{printable(path)}' has the columns {printable(', '.join(schema.names))}, and "
                f"'{printable(paths[0])}' {printable(', '.join(schemas[0].names))}: they are no "
                "files of one table. Keep them in folders of their own."
            )
        if _class_names(schema) != _class_names(schemas[0]):
            raise InputError(
                f"'{printable(path)}' names other classes than '{printable(paths[0])}'. Keep them "
                "in folders of their own, or write both with the same class names."
            )
    return Table(name, schemas[0], paths[0].parent, signature, tuple(paths))


def _class_names(schema: "pa.Schema") -> dict[str, Any]:
    return {name: found.get("names") for name, found in declared_features(schema).items()}


def missing_shards(paths: Sequence[Path]) -> str:
    """A sentence on missing files of a table (`-00001-of-00003`); empty where none is missing."""
    found = [match for path in paths if (match := SHARD.search(path.name))]
    total = max((int(match[2]) for match in found), default=0)
    lacking = sorted(set(range(total)) - {int(match[1]) for match in found})
    if not lacking:
        return ""
    first = paths[0].name
    return (
        f"{len(lacking)} of {total} tables like '{printable(first)}' are missing, the first is "
        f"number {lacking[0]}."
    )


def table_source(
    table: Table, reading: Reading, *, is_label_needed: bool = True
) -> tuple[ImageSource, tuple[str, ...], LeftOut]:
    """(the rows as images, notes on the choice of columns, counts of rows without image or class).

    Such rows stay in the source with the label -1. is_label_needed: False to give all rows the same
    label where the table has no classes. Raises `InputError` where a column is missing or holds
    something else.
    """
    if not table.n_rows:
        raise InputError(f"'{table.name}' holds no rows.")
    how = choose_columns(
        table.schema,
        table.first,
        table.name,
        reading.image_column,
        reading.label_column,
        is_label_needed,
    )
    left_out = LeftOut()
    cells = table.cells(how.image, reading.cache)
    absent = cells.absent
    if how.label:
        key = f"The column '{how.label}'"
        found = read_labels(table.column(how.label), how.class_names, table.name, key)
        class_names, labels = found.class_names, found.values
        for reason, rows in found.left_out.items():
            here = rows[~absent[rows]]
            if len(here):
                left_out.add(reason, f"{table.name}, row {here[0]}", len(here))
    else:
        class_names, labels = ("image",), np.zeros(len(cells), dtype=np.int64)
    if absent.any():
        left_out.add(NO_IMAGE, f"{table.name}, row {absent.argmax()}", int(absent.sum()))
        labels = np.where(absent, -1, labels)
    return _Rows(table, how, cells, reading).source(class_names, labels), how.notes, left_out


class _Rows:
    """The images of a table, by row."""

    def __init__(self, table: Table, how: Columns, cells: Cells, reading: Reading) -> None:
        self.table, self.how, self.cells, self.reading = table, how, cells, reading

    def source(self, class_names: tuple[str, ...], labels: Any) -> ImageSource:
        if self.reading.bands is not None:
            some = ((self.name(i), self._file(i)) for i in range(len(self.cells)))
            check_first(some, self.table.name, self.reading.bands)
        columns = {name: self._further(name) for name in self.reading.columns}
        key = f"{self.table.signature} {self.how.image} {self.how.label}"
        signature = hashlib.sha256(key.encode()).hexdigest()
        return ImageSource(
            class_names=class_names,
            labels=labels,
            load=self.load,
            signature=reading_signature(signature, self.reading),
            read=self.read,
            name=self.name,
            columns=columns,
            channels=self.reading.n_channels,
        )

    def name(self, i: int) -> str:
        return f"{self.table.name}, row {i}"

    def _file(self, i: int) -> Path | bytes:
        """The image of a row: the bytes of its file, or the file's path."""
        cell = self.cells.get(i)
        if isinstance(cell, str):
            path = Path(cell)
            return path if path.is_absolute() else self.table.folder / path
        if cell is None:
            raise UnreadableImageError(f"{self.name(i)}: it holds no image")
        return cell

    def read(self, i: int, n_bytes: int = -1) -> bytes:
        file = self._file(i)
        if isinstance(file, Path):
            return read_file(file, n_bytes)
        with room():
            _take(file, self.name(i))
        return file if n_bytes < 0 else file[:n_bytes]

    def load(self, i: int, min_px: int | None = None) -> tuple[Picture, int]:
        file, bands, span = self._file(i), self.reading.bands, self.reading.value_range
        if isinstance(file, Path):
            return load_file(file, min_px, bands, span)
        with room():
            _take(file, self.name(i))
            if bands is not None:
                return decode_bands(file, self.name(i), bands), len(file)
            return decode(file, self.name(i), min_px, span), len(file)

    def _further(self, name: str) -> Any:
        import pyarrow as pa
        from pyarrow import compute

        if name not in self.table.schema.names:
            raise InputError(
                f"partition-column = '{name}' is not there. Columns of '{self.table.name}': "
                f"{printable(', '.join(self.table.schema.names))}."
            )
        column = self.table.column(name)
        if pa.types.is_dictionary(column.type):
            texts = [chunk.dictionary for chunk in column.chunks[:1]]
            if any((compute.binary_length(text).to_numpy() > LONGEST_NAME).any() for text in texts):
                raise InputError(
                    f"partition-column = '{printable(name)}' of '{self.table.name}' holds values "
                    f"of more than {LONGEST_NAME} letters, which name no place. Choose another."
                )
        return np.array(column.to_pylist())


def _take(file: bytes, name: str) -> None:
    try:
        take(len(file), "the image")
    except TooLargeError as error:
        raise UnreadableImageError(f"{name}: {error}") from error


def _first(column: Any) -> object:
    return next((value.as_py() for value in column if value.is_valid), None)
