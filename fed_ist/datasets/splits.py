"""The splits of a data set, told by the names of its folders or tables."""

import re
from collections.abc import Mapping

from fed_ist.errors import InputError
from fed_ist.printable import printable

TRAIN, VALIDATION, TEST = "train", "validation", "test"
WHOLE = "all"  # the only split of a data set that is not split
WORDS = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("test", "testing"), TEST),
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval"), VALIDATION),
}


def split_of_folder(name: str) -> str:
    """The split that a folder's whole name stands for, in upper or lower case; empty for none."""
    return WORDS.get(name.strip().casefold(), "")


def split_of_table(names: tuple[str, ...]) -> str:
    """The split of a table by the words of its name; empty where no word names one.

    names: those of the folders it lies in, which are searched from the innermost on if the table's
    own name has no such word, and the table's own. Only whole words count: `latest-train.parquet`
    is for training. Raises `InputError` for a name with words of two splits.
    """
    *folders, name = names
    for text in (name, *reversed(folders)):
        found = {WORDS[w] for w in re.findall(r"[^\W\d_]+", text.casefold()) if w in WORDS}
        if len(found) > 1:
            raise InputError(
                f"'{printable('/'.join(names))}' names {len(found)} splits, "
                f"{' and '.join(sorted(found))}. Rename it after one of them."
            )
        if found:
            return found.pop()
    return ""


def choose_test(labelled: Mapping[str, int]) -> str:
    """The split to test on: "test" if it has labelled images, else "validation", else empty.

    labelled: split -> number of labelled images. Competitions have test splits without labels.
    """
    return next((name for name in (TEST, VALIDATION) if labelled.get(name, 0) > 0), "")
