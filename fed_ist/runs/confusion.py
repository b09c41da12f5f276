"""How often a model is right, and what it takes for what."""

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from fed_ist.words import csv_text

COLUMNS = ("class", "taken_for", "images")


class Confusion:
    """Counts of images by what they are and what a model takes them for."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, truth: str, found: str, n_images: int = 1) -> None:
        """Count images of the class `truth` that were taken for one of `found`."""
        self._counts[truth, found] += n_images

    @property
    def n_images(self) -> int:
        """How many images were counted."""
        return self._counts.total()

    @property
    def accuracy(self) -> float:
        """The share of the images that were taken for what they are, in [0, 1]; at least one."""
        return (
            sum(n for (truth, found), n in self._counts.items() if truth == found) / self.n_images
        )

    def counts(self) -> Iterator[tuple[str, str, int]]:
        """(class, what it is taken for, images) wherever there are any, by class."""
        for (truth, found), n_images in sorted(self._counts.items()):
            yield truth, found, n_images

    def rows(self, n_most: int = 3) -> list[tuple[str, int, float, str]]:
        """(class, its images, the share that is right, what the others are mostly taken for).

        By class. n_most: how many wrong classes are named, with their number of images.
        """
        found = []
        for truth in sorted({truth for truth, _ in self._counts}):
            own = Counter({taken: n for (is_, taken), n in self._counts.items() if is_ == truth})
            n_images, n_right = own.total(), own.pop(truth, 0)
            wrong = sorted(own.items(), key=lambda pair: (-pair[1], pair[0]))[:n_most]
            named = ", ".join(f"{name} {n}" for name, n in wrong)
            found.append((truth, n_images, n_right / n_images, named))
        return found


def confusion_of(
    class_names: Sequence[str], labels: NDArray[np.int64], found: NDArray[np.int64]
) -> Confusion:
    """The confusion of a model on images of known classes.

    labels, found: int64 (n,), what each image is and what it is taken for, by its place in
    `class_names`.
    """
    confusion = Confusion()
    pairs, counts = np.unique(np.stack([labels, found]), axis=1, return_counts=True)
    for (truth, taken), n_images in zip(pairs.T, counts, strict=True):
        confusion.add(class_names[truth], class_names[taken], int(n_images))
    return confusion


def confusion_csv(confusion: Confusion) -> str:
    """The text of confusion.csv: a line for each class and what it is taken for, with images."""
    rows = (dict(zip(COLUMNS, row, strict=True)) for row in confusion.counts())
    return csv_text(COLUMNS, rows)


def parse_confusion(text: str) -> Confusion:
    """The confusion that `confusion_csv` was given; raises `ValueError` for any other text."""
    confusion = Confusion()
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        if tuple(next(lines, ())) != COLUMNS:
            raise ValueError(f"its first line is not {','.join(COLUMNS)}")
        for truth, found, images in lines:
            if not images.isdecimal() or not 0 < int(images) < 2**63:
                raise ValueError(f"'{images}' is no number of images")
            confusion.add(truth, found, int(images))
    except csv.Error as error:
        raise ValueError(str(error)) from None
    return confusion
