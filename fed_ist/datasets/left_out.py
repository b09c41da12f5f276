"""What is left out of a data set, counted by reason, with an example of each."""

from collections import Counter
from dataclasses import dataclass, field

from fed_ist.printable import printable

HIDDEN = "hidden"
SYSTEM_FOLDER = "in a folder of the system, such as thumbnails"
LINK_LOOP = "link to a folder that is read already"
UNREADABLE_FOLDER = "folder that cannot be read"
NO_FILE = "neither file nor folder"
NO_CLASS = "beside the class folders, so without a class"
NO_LABEL = "no label"
OUT_OF_RANGE = "label out of range"
NO_IMAGE = "no image in the row"
UNREADABLE = "unreadable image"
OUTSIDE_SPLITS = "beside the splits"
OTHER_ENDING = "no image, with another ending"
LONGEST_ENDING, MOST_REASONS = 12, 40  # a folder may hold a million endings
UNUSED_SPLIT = "in a split that is not used"


def no_image(suffix: str) -> str:
    """The reason to leave out a file whose content is no image, which names its ending."""
    if len(suffix) > LONGEST_ENDING:
        return OTHER_ENDING
    return f"no image, ending {printable(suffix)}" if suffix else "no image, without an ending"


@dataclass
class LeftOut:
    """What was left out, counted by reason.

    counts: reason -> number of files, folders or rows.
    examples: reason -> the first of them, a path or row, printable.
    """

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, example: object, n: int = 1) -> None:
        """Count `n` more for a reason; the first example of it is kept."""
        if reason not in self.counts and len(self.counts) >= MOST_REASONS:
            reason = OTHER_ENDING
        if n:
            self.counts[reason] += n
            self.examples.setdefault(reason, printable(example))

    def sentences(self) -> list[str]:
        """A sentence for each reason, with its count and example."""
        return [
            f"Left out: {n} {reason}, such as '{self.examples[reason]}'."
            for reason, n in self.counts.most_common()
        ]

    def update(self, other: "LeftOut") -> None:
        """Add all counts and examples of another one."""
        for reason, n in other.counts.items():
            self.add(reason, other.examples[reason], n)
