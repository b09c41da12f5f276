"""CSV files that grow line by line while a run goes on, and go on growing when it is resumed."""

import csv
import io
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fed_ist.files.atomic import write_atomic
from fed_ist.files.seals import Seal, seal_of

Row = dict[str, str]
log = logging.getLogger(__name__)


class GrowingTable:
    """A CSV file to which rows are appended; each is handed to the system when it is added.

    seal: the length and checksum of all that was written.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._columns = list(columns)
        self._file = path.open("xb")
        self.seal = Seal()
        self._write([dict(zip(columns, columns, strict=True))])

    @classmethod
    def reopen(
        cls,
        path: Path,
        data: bytes,
        columns: Sequence[str],
        seal: Seal,
        is_kept: Callable[[Row], bool],
    ) -> tuple["GrowingTable", list[Row]]:
        """Go on with a file that an earlier process wrote.

        What `seal` covers stays. The rows after it stay up to the first that is not whole or that
        `is_kept` refuses; there the file is cut.

        data: what the file holds, which must begin with what `seal` covers.
        Returns the table and all rows that stay.
        """
        assert seal.fits(data)
        n_kept = seal.n_bytes
        for line in data[seal.n_bytes :].splitlines(keepends=True):
            found = _parse(line, columns)
            if not line.endswith(b"\n") or len(found) != 1 or not is_kept(found[0]):
                break
            n_kept += len(line)
        if n_cut := len(data) - n_kept:
            log.warning("%d bytes of %s were written after its last round", n_cut, path.name)
        kept = data[:n_kept]
        write_atomic(path, kept)
        table = cls.__new__(cls)
        table._columns, table._file, table.seal = list(columns), path.open("ab"), seal_of(kept)
        return table, _parse(kept, columns)[1:]

    def add(self, row: Mapping[str, object]) -> None:
        """Append one row: column -> value."""
        self._write([row])

    def _write(self, rows: Sequence[Mapping[str, object]]) -> None:
        text = io.StringIO(newline="")
        csv.DictWriter(text, self._columns).writerows(rows)
        data = text.getvalue().encode()
        self._file.write(data)
        self._file.flush()
        self.seal = self.seal.then(data)

    def settle(self) -> None:
        """Wait until all rows are on the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _parse(data: bytes, columns: Sequence[str]) -> list[Row]:
    """The rows of those lines that have one cell for each column."""
    lines = csv.reader(io.StringIO(data.decode(errors="replace"), newline=""))
    return [dict(zip(columns, cells, strict=True)) for cells in lines if len(cells) == len(columns)]
