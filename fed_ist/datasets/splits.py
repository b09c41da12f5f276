"""Names of the parts of a data set: which folder or table is for training, which for the test."""

import re
from collections.abc import Mapping

from fed_ist.errors import InputError
from fed_ist.printable import printable

TRAIN, VALIDATION, TEST = "train", "validation", "test"
WHOLE = "all"  # the one part of a data set that has no splits
WORDS = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("test", "testing"), TEST),
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval"), VALIDATION),
}


def split_of_folder(name: str) -> str:
    """The split that a folder's whole name says, in any case; empty for none."""
    return WORDS.get(name.strip().casefold(), "")


def split_of_table(parts: tuple[str, ...]) -> str:
    """The split of a table by the words of its name, or else of the folders it lies in, from the
    innermost on; empty for none.

    `latest-train.parquet` is for training: words count whole. Raises `InputError` for a name with
    words of two splits.
    """
    *folders, name = parts
    for text in (name, *reversed(folders)):
        found = {WORDS[w] for w in re.findall(r"[^\W\d_]+", text.casefold()) if w in WORDS}
        if len(found) > 1:
            raise InputError(
                f"'{printable('/'.join(parts))}' names {len(found)} splits, "
                f"{' and '.join(sorted(found))}. Rename it after one of them."
            )
        if found:
            return found.pop()
    return ""


def choose_test(labelled: Mapping[str, int]) -> str:
    """Which part is tested on, by the number of labelled images of each; empty where none has any.

    A test part without labels, as competitions have it, gives way to the validation part.
    """
    return next((name for name in (TEST, VALIDATION) if labelled.get(name, 0) > 0), "")
