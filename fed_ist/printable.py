"""Text from outside as text that can be shown, sent and compared.

A file system keeps names as bytes: some are no UTF-8, and the same accent has several spellings
(a Mac writes "é" as two characters, others as one). Python reads bytes that are no UTF-8 as lone
surrogates, which no message, table or terminal takes. And a terminal obeys some characters: with
them, a name can erase lines, set the title, or turn the order of what follows it.
"""

import logging
import os
import re
import sys
import unicodedata
from numbers import Number
from pathlib import Path
from typing import Any, TextIO

# Controls, those that only format (zero width, direction), halves of pairs, ends of lines.
OBEYED = ("Cc", "Cf", "Cs", "Zl", "Zp")
JOINERS = "\u200c\u200d"  # scripts and emoji need them; after a letter of ASCII they only hide
COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # Flower's log has them
HOME = Path(__file__).parent.parent
OURS = tuple(f"{HOME / name}{os.sep}" for name in ("fed_ist", "strategies", "clients", "sims"))


def printable(name: object) -> str:
    r"""A name or path with what cannot be shown escaped: a byte E9 as `\xe9`, a newline as `\n`."""
    return _escaped(str(name), "")


def shown(text: str) -> str:
    """Text of several lines that a terminal shows and never obeys; colours are left out.

    A return to the start of the line, as progress bars have it, stays at either end.
    """
    text = COLOURS.sub("", text)
    core = text.strip("\r") if text.strip("\r\n ") else ""
    if not core:
        return text
    return text.replace(core, _escaped(core, "\n\t"), 1)


def indented(text: str) -> str:
    """Text of several lines as one paragraph: all lines but the first begin with four spaces.

    So no line of it can be taken for a message of its own.
    """
    return "\n    ".join(shown(text).splitlines())


def class_name(name: str) -> str:
    """A class's name in its one spelling: printable, with accents composed (Unicode's NFC)."""
    return unicodedata.normalize("NFC", printable(name))


def _escaped(text: str, kept: str) -> str:
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(
        c.encode("unicode_escape").decode() if _is_obeyed(c, before) and c not in kept else c
        for before, c in zip(" " + text, text, strict=False)
    )


def _is_obeyed(c: str, before: str) -> bool:
    if c in JOINERS:
        return before.isascii()
    return unicodedata.category(c) in OBEYED


class Terminal:
    """A stream of text that passes all that is written through `shown`.

    All other attributes are those of the stream inside.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text and return its length."""
        self._stream.write(shown(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        if name in ("buffer", "detach"):  # text written through these would not pass `shown`
            raise AttributeError(name)
        return getattr(self._stream, name)


def guard_terminal() -> None:
    """Let everything that this process prints from now on pass through `shown`."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, Terminal):
            if hasattr(stream, "reconfigure"):  # a letter that it cannot show must not raise
                stream.reconfigure(errors="backslashreplace")
            setattr(sys, name, Terminal(stream))


class _Lines(logging.Filter):
    """Log records of one line each, whatever a node or a file put into them."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.pathname.startswith(OURS) and isinstance(record.args, tuple):
            record.msg = shown(str(record.msg))
            record.args = tuple(
                arg if isinstance(arg, Number) else printable(arg) for arg in record.args
            )
        return True


def guard_log(name: str) -> None:
    """Escape what a terminal would obey in the records that our packages write to a log."""
    log = logging.getLogger(name)
    if not any(isinstance(found, _Lines) for found in log.filters):
        log.addFilter(_Lines())
