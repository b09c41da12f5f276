"""The sizes of the pages of a parquet file, read from their headers before any is decompressed.

Nothing checks the totals that the footer states: a page of a few bytes may unpack to two gigabytes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

HEADER_BYTES = 1 << 17  # the longest header that is read: it may hold the page's extreme values
MOST_DEEP = 8
STOP, TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(13)


@dataclass(frozen=True)
class Pages:
    """The bytes of a column's pages when unpacked: of the largest, and of all together."""

    largest: int
    total: int


def column_pages(file: BinaryIO, metadata: Any, column: str) -> Pages:
    """The pages of a column, including its nested columns.

    metadata: pyarrow's, of the same file. Raises `ValueError` where their headers are damaged.
    """
    largest = total = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for i in range(group.num_columns):
            chunk = group.column(i)
            if chunk.path_in_schema.split(".")[0] != column:
                continue
            for n_bytes in _pages(file, chunk):
                largest = max(largest, n_bytes)
                total += n_bytes
    return Pages(largest, total)


def _pages(file: BinaryIO, chunk: Any) -> Iterator[int]:
    """The bytes of each page of a column chunk when unpacked."""
    at = chunk.data_page_offset
    if chunk.dictionary_page_offset:
        at = min(at, chunk.dictionary_page_offset)
    end = at + chunk.total_compressed_size
    while at < end:
        file.seek(at)
        header = _Header(file.read(HEADER_BYTES if end - at > HEADER_BYTES else end - at))
        fields = header.struct(0)
        unpacked, packed = fields.get(2, -1), fields.get(3, -1)
        if packed < 0 or unpacked < 0:
            raise ValueError("a page without a size")
        yield unpacked
        at += header.at + packed


class _Header:
    """A reader of Thrift's compact protocol, as far as page headers use it."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def struct(self, depth: int) -> dict[int, int]:
        """The whole numbers of a struct by their field; other fields are skipped."""
        if depth > MOST_DEEP:
            raise ValueError("a page header without an end")
        found: dict[int, int] = {}
        field = 0
        while kind := (byte := self._byte()) & 15:
            field = field + (byte >> 4) if byte >> 4 else self._number()
            if kind in (I16, I32, I64):
                found[field] = self._number()
            else:
                self._skip(kind, depth)
        return found

    def _byte(self) -> int:
        if self.at >= len(self.data):
            raise ValueError("a page header that is cut")
        self.at += 1
        return self.data[self.at - 1]

    def _varint(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 0x80:
            value |= (byte & 0x7F) << shift
            shift += 7
            if shift > 63:
                raise ValueError("a number without an end")
        return value | byte << shift

    def _number(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _skip(self, kind: int, depth: int) -> None:
        if kind in (TRUE, FALSE):
            return
        if kind == BYTE:
            self.at += 1
        elif kind in (I16, I32, I64):
            self._varint()
        elif kind == DOUBLE:
            self.at += 8
        elif kind == BINARY:
            length = self._varint()
            self.at += length
        elif kind in (LIST, SET):
            head = self._byte()
            n = head >> 4 if head >> 4 < 15 else self._varint()
            for _ in range(min(n, len(self.data))):
                self._skip(BYTE if head & 15 in (TRUE, FALSE) else head & 15, depth + 1)
        elif kind == STRUCT:
            self.struct(depth + 1)
        else:
            raise ValueError("an unknown kind of field")
