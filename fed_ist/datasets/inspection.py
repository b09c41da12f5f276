"""What a data set holds, shown before training on the terminal and later in the report."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fed_ist.datasets.data_set import DataSet
from fed_ist.datasets.left_out import UNREADABLE, LeftOut
from fed_ist.datasets.scan import DRAWN, RASTER, Header, Scan, require_range, scan
from fed_ist.datasets.splits import TEST, TRAIN
from fed_ist.errors import InputError
from fed_ist.images.decoding import UnreadableImageError
from fed_ist.images.source import ImageSource, Reading
from fed_ist.prefetch import mapped
from fed_ist.printable import printable

CHECK_PX = 64  # the side to which images may be reduced where all are decoded


@dataclass(frozen=True)
class Inspection:
    """What `fed-ist inspect` shows of a data set.

    kind: what the data set is, in words.
    counts: class -> split -> number of images.
    is_held_out: whether the test images were held out by their content.
    formats: format in words -> number of images.
    sizes: "smallest", "middle" and "largest" image by area -> width and height in pixels; empty
        where images are drawn.
    left_out: reason -> number of files, folders or rows.
    identical: kind of identical images in words -> number of images.
    examples: reason or kind -> one of these files, folders, rows or images.
    notes: sentences for the user.
    """

    kind: str
    counts: dict[str, dict[str, int]]
    is_held_out: bool
    formats: dict[str, int]
    sizes: dict[str, tuple[int, int]]
    left_out: dict[str, int]
    identical: dict[str, int]
    examples: dict[str, str]
    notes: tuple[str, ...]

    def total(self, split: str) -> int:
        """The number of images of a split."""
        return sum(row.get(split, 0) for row in self.counts.values())

    def to_json(self) -> dict[str, Any]:
        """The same as values for JSON, with the totals added."""
        totals = {split: self.total(split) for split in (TRAIN, TEST)}
        return {"images": totals, "num_classes": len(self.counts), **asdict(self)}

    def first_lines(self) -> list[str]:
        """The lines that a run prints at its start."""
        if n_train := self.total(TRAIN):
            how = "held out by content" if self.is_held_out else "to test on"
            n_all = n_train + self.total(TEST)
            text = f"{n_all} in {len(self.counts)} classes: {n_train} to train on, "
            text += f"{self.total(TEST)} {how}"
        else:
            text = f"{self.total(TEST)} in {len(self.counts)} classes, all to test on"
        lines = [f"images      {text} ({self.kind})"]
        lines += [f"left out    {_listed(self.left_out)}"] if self.left_out else []
        lines += [f"identical   {_listed(self.identical)}"] if self.identical else []
        lines += [f"note        {note}" for note in self.notes]
        return [printable(line) for line in lines]

    def lines(self) -> Iterator[str]:
        """All lines that `fed-ist inspect` prints."""
        yield from self.first_lines()
        for text, n in self.formats.items():
            yield f"format      {printable(text)}: {n}"
        if self.sizes:
            shown = (f"{name} {w} x {h}" for name, (w, h) in self.sizes.items())
            yield f"pixels      {', '.join(shown)}"
        for reason, example in self.examples.items():
            yield printable(f"example     {reason}: {example}")
        width = max(len(name) for name in ("class", *self.counts))
        yield ""
        yield f"{'class':{width}}  {TRAIN:>8}  {TEST:>8}"
        for name, row in self.counts.items():
            yield f"{printable(name):{width}}  {row[TRAIN]:8}  {row[TEST]:8}"


def inspect(
    data: DataSet, reading: Reading, on_image: Callable[[], object] | None = None
) -> Inspection:
    """Read the headers of all images of a data set, and sum up what it holds.

    on_image: called after each image is decoded; None to read headers only.
    Raises `InputError` where no image can be read, or where images of 16 bits need a value-range.
    """
    sources = {TRAIN: data.train, TEST: data.test}
    splits = {
        split: (source, data.scans.get(split) or scan(source, reading.cache))
        for split, source in sources.items()
        if source is not None
    }
    left_out = LeftOut()
    left_out.update(data.left_out)
    notes = list(data.notes)
    readable: dict[str, NDArray[np.int64]] = {}
    for split, (source, found) in splits.items():
        problems = _problems(source, found, reading, on_image)
        for problem in problems.values():
            left_out.add(UNREADABLE, problem)
        readable[split] = np.delete(source.labels, list(problems))
        note = require_range(source, reading.value_range, _deep(found))
        notes += [note] if note and note not in notes else []
    if not sum(len(labels) for labels in readable.values()):
        raise InputError(
            f"None of the images could be read. The first: {left_out.examples[UNREADABLE]}."
        )
    counts = _counts(readable, data.class_names)
    if unread := [name for name, row in counts.items() if not any(row.values())]:
        notes.append(f"No image can be read of the classes {', '.join(unread)}.")
    identical, examples = _identical(splits)
    return Inspection(
        kind=data.kind,
        counts=counts,
        is_held_out=bool(data.scans),
        formats=_formats([header for _, found in splits.values() for header in found.headers]),
        sizes=_sizes([header for _, found in splits.values() for header in found.headers]),
        left_out=dict(left_out.counts.most_common()),
        identical=identical,
        examples=left_out.examples | examples,
        notes=tuple(notes),
    )


def _counts(
    labels: dict[str, NDArray[np.int64]], names: tuple[str, ...]
) -> dict[str, dict[str, int]]:
    empty = np.zeros(0, dtype=np.int64)
    counts = {
        split: np.bincount(labels.get(split, empty), minlength=len(names)).tolist()
        for split in (TRAIN, TEST)
    }
    return {name: {split: counts[split][i] for split in counts} for i, name in enumerate(names)}


def _problems(
    source: ImageSource, found: Scan, reading: Reading, on_image: Callable[[], object] | None
) -> dict[int, str]:
    """The images that cannot be read: index -> what is wrong, in words."""
    told = {
        i: problem if ": " in problem else f"{source.name(i)}: {problem}"
        for i, header in enumerate(found.headers)
        if (problem := _problem(header, reading))
    }
    if on_image is None:
        return told

    def try_it(i: int) -> str:
        try:
            source.load(i, CHECK_PX)
        except UnreadableImageError as problem:
            return str(problem)
        return ""

    for i, problem in enumerate(mapped(try_it, range(len(source)))):
        on_image()
        if problem:
            told[i] = problem
    return told


def _problem(header: Header, reading: Reading) -> str:
    needs_bands = header.format == RASTER or (header.format == "TIFF" and header.bits > 8)
    if reading.bands is None and needs_bands and not header.problem:
        return "it is a GeoTIFF of more than RGB in 8 bits. Set bands, for example bands = '4,3,2'"
    return header.problem


def _deep(found: Scan) -> NDArray[np.int64]:
    """The indices of images for which `deep.is_deep` holds: int64 (k,)."""
    undeclared = ("PNG", "JPEG2000")
    deep = [i for i, h in enumerate(found.headers) if h.format in undeclared and h.bits == 16]
    return np.array(deep, dtype=np.int64)


def _formats(headers: list[Header]) -> dict[str, int]:
    known = [h for h in headers if h.format and not h.problem]
    words = (
        h.format if h.format == DRAWN else f"{h.format}, {_channels(h)} of {h.bits} bits"
        for h in known
    )
    return dict(Counter(words).most_common())


def _channels(header: Header) -> str:
    return "one channel" if header.channels == 1 else f"{header.channels} channels"


def _sizes(headers: list[Header]) -> dict[str, tuple[int, int]]:
    shapes = [(h.width, h.height) for h in headers if h.width]
    sizes = sorted(shapes, key=lambda shape: (shape[0] * shape[1], shape))
    if not sizes:
        return {}
    return {"smallest": sizes[0], "middle": sizes[len(sizes) // 2], "largest": sizes[-1]}


def _identical(
    splits: dict[str, tuple[ImageSource, Scan]],
) -> tuple[dict[str, int], dict[str, str]]:
    """Kinds of identical images: (kind -> number of images, kind -> an example)."""
    rows = [
        (content.tobytes(), split, int(source.labels[i]), i)
        for split, (source, found) in splits.items()
        for i, content in enumerate(found.contents)
        if content.any()
    ]
    counts: Counter[str] = Counter()
    examples: dict[str, str] = {}

    def add(kind: str, n: int, same: list[tuple[bytes, str, int, int]]) -> None:
        if n > 0:
            counts[kind] += n
            names = [splits[split][0].name(i) for _, split, _, i in same[:2]]
            examples.setdefault(kind, " and ".join(names))

    for _, group in groupby(sorted(rows), key=lambda row: row[0]):
        same = list(group)
        tested = [row for row in same if row[1] == TEST]
        add("copies in the same class and split", len(same) - len({r[1:3] for r in same}), same)
        if len(tested) < len(same):
            add("test images that are also trained on", len(tested), [same[-1], *same])
        if len({label for _, _, label, _ in same}) > 1:
            add("images that are in several classes", len(same), same)
    return dict(counts), examples


def _listed(counts: dict[str, int]) -> str:
    return "; ".join(f"{n} {reason}" for reason, n in counts.items())
