"""Names from the disk as text that can be shown, sent and compared.

A file system keeps names as bytes: some are no UTF-8, and the same accent has several spellings
(a Mac writes "é" as two characters, others as one). Python reads bytes that are no UTF-8 as lone
surrogates, which no message, table or terminal takes.
"""

import unicodedata


def printable(name: object) -> str:
    r"""A name or path with what cannot be shown escaped: a byte E9 as `\xe9`, a newline as `\n`."""
    text = str(name).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in ("Cc", "Cs") else c
        for c in text
    )


def class_name(name: str) -> str:
    """The one spelling of a class's name: printable, and accents composed (Unicode's NFC)."""
    return unicodedata.normalize("NFC", printable(name))
