"""Figures and lists as words, the same in every table, page and message."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

TERMINAL = 100  # letters in a line of a terminal, which tables fit


def readable_bytes(n_bytes: float) -> str:
    """A number of bytes with a decimal prefix, as links and quotas are sold: `1.23 MB`."""
    for symbol in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000 or symbol == "GB":
            return f"{n_bytes:.0f} B" if symbol == "B" else f"{n_bytes:.2f} {symbol}"
        n_bytes /= 1000
    raise AssertionError


def readable_seconds(seconds: float) -> str:
    """A time in the unit in which people tell it, to two digits: `3.2 s`, `14 min`, `5 h`."""
    if seconds < 59.5:
        return f"{_two_digits(seconds)} s"
    for most, unit, unit_s in ((59.5 * 60, "min", 60), (47.5 * 3600, "h", 3600)):
        if seconds < most:
            return f"{_two_digits(max(1.0, seconds / unit_s))} {unit}"
    return f"{_two_digits(seconds / 86_400)} days"


def _two_digits(value: float) -> str:
    return f"{value:.2g}" if abs(value) < 9.95 else f"{value:,.0f}"


def many(n: object, noun: str) -> str:
    """A whole number with its noun, which gets an s unless the number is 1: `2 clients`."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def percent(share: float) -> str:
    """A share in percent: 0.25 becomes `25%`."""
    return f"{100 * share:g}%"


def table_line(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    escaped = (cell.replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; cells are shown as `str` has them."""
    lines = [header, ["---"] * len(header), *([str(cell) for cell in row] for row in rows)]
    return "\n".join(table_line(cells) for cells in lines)


def plain_table(header: Sequence[str], rows: Iterable[Sequence[str]], width: int = TERMINAL) -> str:
    """A table for a terminal, its columns as wide as their cells; all but the first align right.

    width: of a line at most. Where more would be needed, the widest cells lose their middle.
    """
    lines = [tuple(header), *map(tuple, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    gaps = 2 * (len(widths) - 1)
    while sum(widths) + gaps > width and max(widths) > 1:
        widths[widths.index(max(widths))] -= 1
    return "\n".join(
        "  ".join(
            shorten(cell, size).ljust(size) if i == 0 else shorten(cell, size).rjust(size)
            for i, (cell, size) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()
        for cells in lines
    )


def shorten(text: str, most: int) -> str:
    """Text with its middle left out where it has more than `most` letters."""
    half = most // 2
    return text if len(text) <= most else f"{text[: most - half - 1]}…{text[len(text) - half :]}"


def bullets(sentences: Iterable[str]) -> str:
    """A Markdown list."""
    return "\n".join(f"- {sentence}" for sentence in sentences)


def csv_text(columns: Iterable[str], rows: Iterable[Mapping[str, object]]) -> str:
    """A CSV file with a header; a row may lack columns, but has no others."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
