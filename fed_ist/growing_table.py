"""CSV files that grow line by line while a run goes on, and go on growing when it is resumed."""

import csv
import io
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fed_ist.durable import write_atomic

Row = dict[str, str]


class GrowingTable:
    """Appends rows to a new CSV file; each is handed to the system when it is added."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._open(path, columns, "x")
        self._writer.writeheader()

    @classmethod
    def reopen(
        cls, path: Path, columns: Sequence[str], is_kept: Callable[[Row], bool]
    ) -> tuple["GrowingTable", list[Row]]:
        """Go on with a file, after dropping a cut line and the rows that are not kept.

        Returns the table, and the rows that it begins with.
        """
        table = cls.__new__(cls)
        text = path.read_bytes().decode(errors="replace")
        whole = text[: text.rfind("\n") + 1]
        rows = [
            row
            for row in csv.DictReader(io.StringIO(whole, newline=""))
            if None not in row and None not in row.values() and is_kept(row)
        ]
        kept = io.StringIO(newline="")
        writer = csv.DictWriter(kept, columns)
        writer.writeheader()
        writer.writerows(rows)
        write_atomic(path, kept.getvalue().encode())
        table._open(path, columns, "a")
        return table, rows

    def _open(self, path: Path, columns: Sequence[str], mode: str) -> None:
        self._file = path.open(mode, newline="", encoding="utf-8")
        self._writer = csv.DictWriter(self._file, columns)

    def add(self, row: Mapping[str, object]) -> None:
        self._writer.writerow(row)
        self._file.flush()

    def settle(self) -> None:
        """Wait until all rows are on the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()
