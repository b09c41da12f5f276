"""Folders of images as sources: each file is an image, and its folder is its class."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fed_ist.datasets.layouts import Layout, arrange
from fed_ist.datasets.left_out import NO_CLASS, NO_LABEL, OUTSIDE_SPLITS, LeftOut
from fed_ist.datasets.splits import TRAIN, WHOLE
from fed_ist.datasets.walk import PathNames, Walk, walk
from fed_ist.errors import InputError
from fed_ist.images.bands import check_first
from fed_ist.images.decoding import Picture, load_file, read_file
from fed_ist.images.source import NO_CLASSES, ImageSource, Reading
from fed_ist.printable import printable

Files = Sequence[PathNames]


@dataclass(frozen=True)
class Opened:
    """What a path or a name turned out to be.

    kind: in words. splits: "train", "validation" and "test", or "all", each with its own classes.
    notes: sentences for the user. left_out: counts of what is in none of the splits.
    """

    kind: str
    splits: dict[str, ImageSource]
    notes: tuple[str, ...]
    left_out: LeftOut


def open_folder(found: Walk, reading: Reading) -> Opened:
    """The images of a folder of classes or of splits, with classes in alphabetical order.

    Raises `InputError` where no image has a class, or where none has the bands of `reading`.
    """
    root = found.root
    if not found.images:
        raise InputError(_no_images(found))
    layout = arrange(found.images, found.folders, printable(root))
    left_out = LeftOut()
    left_out.update(found.left_out)
    splits: dict[str, ImageSource] = {}
    for split in dict.fromkeys(name for name in layout.split_names if name):
        rows = [i for i, name in enumerate(layout.split_names) if name == split]
        labelled = [i for i in rows if layout.label_names[i] is not None]
        for i in rows:
            if layout.label_names[i] is None:
                why = NO_CLASS if labelled and split == WHOLE else NO_LABEL
                left_out.add(why, _path(found, i))
        if labelled:
            splits[split] = _labelled(found, labelled, layout, reading)
    for i, name in enumerate(layout.split_names):
        if not name:
            left_out.add(OUTSIDE_SPLITS, _path(found, i))
    if not splits:
        raise InputError(
            f"Images lie directly in '{printable(root)}', so they have no class. Move each into a "
            f"folder named after its class: {printable(root)}/<class>/<image>."
        )
    notes = [*layout.notes]
    if layout.empty:
        notes.append(f"No image is in the folders {', '.join(layout.empty)}.")
    kind = "folder of classes" if WHOLE in splits else "folder of splits"
    return Opened(kind, splits, tuple(notes), left_out)


def folder_source(root: Path, reading: Reading | None = None) -> ImageSource:
    """The images of a folder to train on: all that have a class, or those of its training split.

    Raises `InputError` as `open_folder` does, and where there are splits but none for training.
    """
    reading = reading or Reading()
    opened = open_folder(walk(root, reading.cache, reading.run), reading)
    return learnt_split(opened, printable(root))


def learnt_split(opened: Opened, name: str) -> ImageSource:
    """The images to train on: all, or the training split.

    name: what messages call the data set. Raises `InputError` where there is none to train on.
    """
    for split in (WHOLE, TRAIN):
        if split in opened.splits:
            return opened.splits[split]
    raise InputError(
        f"'{name}' has {' and '.join(sorted(opened.splits))} images with classes, but none to "
        f"train on. Put some into {name}/train/<class>/<image>, or into a table with train in its "
        "name."
    )


def all_images(found: Walk, reading: Reading) -> ImageSource:
    """All images below a folder, or the one file that was given, all with the same label.

    Raises `InputError` where there is none.
    """
    if not found.images:
        raise InputError(_no_images(found))
    labels = np.zeros(len(found.images), dtype=np.int64)
    return _source(found, found.images, NO_CLASSES, labels, reading)


def _no_images(found: Walk) -> str:
    root = printable(found.root)
    left = found.left_out
    seen = "; ".join(f"{n} {reason}" for reason, n in left.counts.most_common(3))
    seen = f" What is there: {seen}." if seen else ""
    return f"No images in '{root}'. Expected {root}/<class>/<image>.{seen}"


def _labelled(found: Walk, rows: list[int], layout: Layout, reading: Reading) -> ImageSource:
    names = [name for i in rows if (name := layout.label_names[i]) is not None]
    class_names = tuple(sorted(set(names)))
    position = {name: i for i, name in enumerate(class_names)}
    labels = np.array([position[name] for name in names], dtype=np.int64)
    return _source(found, [found.images[i] for i in rows], class_names, labels, reading)


def _source(
    found: Walk,
    files: Files,
    class_names: tuple[str, ...],
    labels: NDArray[np.int64],
    reading: Reading,
) -> ImageSource:
    paths = [found.root.joinpath(*names) for names in files]
    if reading.bands is not None:
        named = ((printable(path), path) for path in paths)
        check_first(named, printable(found.root), reading.bands)

    def load(i: int, min_px: int | None = None) -> tuple[Picture, int]:
        return load_file(paths[i], min_px, reading.bands, reading.value_range)

    signature = reading_signature(found.signature(tuple(files)), reading)
    return ImageSource(
        class_names=class_names,
        labels=labels,
        load=load,
        signature=signature,
        read=lambda i, n_bytes=-1: read_file(paths[i], n_bytes),
        name=lambda i: printable(paths[i]),
        channels=reading.n_channels,
    )


def reading_signature(signature: str, reading: Reading) -> str:
    """The signature of images with this signature when they are read in this way."""
    if reading.bands is None and reading.value_range is None:
        return signature
    how = f"{signature} {reading.bands!r} {reading.value_range}"
    return hashlib.sha256(how.encode()).hexdigest()


def _path(found: Walk, i: int) -> Path:
    return found.root.joinpath(*found.images[i])
