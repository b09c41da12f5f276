"""Folders of images as sources: one image a file, its class the folder it lies in."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fed_ist.datasets.layouts import Layout, arrange
from fed_ist.datasets.left_out import NO_CLASS, NO_LABEL, OUTSIDE_SPLITS, LeftOut
from fed_ist.datasets.splits import TRAIN, WHOLE
from fed_ist.datasets.walk import Parts, Walk, walk
from fed_ist.errors import InputError
from fed_ist.images.bands import check_first
from fed_ist.images.decoding import Picture, load_file, read_file
from fed_ist.images.source import ImageSource, Reading
from fed_ist.printable import printable

Files = Sequence[Parts]


@dataclass(frozen=True)
class Opened:
    """What a path or a name turned out to be.

    kind: in words. parts: "train", "validation" and "test", or "all", each with its own classes.
    notes: sentences that the user is told. left_out: what is in none of the parts.
    """

    kind: str
    parts: dict[str, ImageSource]
    notes: tuple[str, ...]
    left_out: LeftOut


def open_folder(found: Walk, reading: Reading) -> Opened:
    """A folder of classes or of splits; classes in alphabetical order.

    Raises `InputError` where there is no image in a class, or none with the bands of `reading`.
    """
    root = found.root
    if not found.images:
        raise InputError(_no_images(found))
    layout = arrange(found.images, found.folders, printable(root))
    left_out = LeftOut()
    left_out.update(found.left_out)
    parts: dict[str, ImageSource] = {}
    for part in dict.fromkeys(name for name in layout.part if name):
        rows = [i for i, name in enumerate(layout.part) if name == part]
        labelled = [i for i in rows if layout.label_names[i] is not None]
        for i in rows:
            if layout.label_names[i] is None:
                why = NO_CLASS if labelled and part == WHOLE else NO_LABEL
                left_out.add(why, _path(found, i))
        if labelled:
            parts[part] = _labelled(found, labelled, layout, reading)
    for i, name in enumerate(layout.part):
        if not name:
            left_out.add(OUTSIDE_SPLITS, _path(found, i))
    if not parts:
        raise InputError(
            f"Images lie directly in '{printable(root)}', so they have no class. Move each into a "
            f"folder named after its class: {printable(root)}/<class>/<image>."
        )
    notes = [*layout.notes]
    if layout.empty:
        notes.append(f"No image is in the folders {', '.join(layout.empty)}.")
    kind = "folder of classes" if WHOLE in parts else "folder of splits"
    return Opened(kind, parts, tuple(notes), left_out)


def folder_source(root: Path, reading: Reading | None = None) -> ImageSource:
    """The images to learn from of a folder: all that have a class, or those of its training part.

    Raises `InputError` as `open_folder` does, and where there are splits but none for training.
    """
    reading = reading or Reading()
    opened = open_folder(walk(root, reading.cache, reading.run), reading)
    return learnt_part(opened, printable(root))


def learnt_part(opened: Opened, name: str) -> ImageSource:
    """The part to learn from; raises `InputError` where there is none."""
    for part in (WHOLE, TRAIN):
        if part in opened.parts:
            return opened.parts[part]
    raise InputError(
        f"'{name}' has {' and '.join(sorted(opened.parts))} images with classes, but none to train "
        f"on. Put some into {name}/train/<class>/<image>, or into a table with train in its name."
    )


def all_images(found: Walk, reading: Reading) -> ImageSource:
    """Every image under a folder, or the one that is given, whatever its class; all get one label.

    Raises `InputError` where there is none.
    """
    if not found.images:
        raise InputError(_no_images(found))
    labels = np.zeros(len(found.images), dtype=np.int64)
    return _source(found, found.images, ("image",), labels, reading)


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
    paths = [found.root.joinpath(*parts) for parts in files]
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
    """The signature of images that are read so."""
    if reading.bands is None and reading.value_range is None:
        return signature
    how = f"{signature} {reading.bands!r} {reading.value_range}"
    return hashlib.sha256(how.encode()).hexdigest()


def _path(found: Walk, i: int) -> Path:
    return found.root.joinpath(*found.images[i])
