"""Data sets by name or path, and their train and test images.

A data set is `scenes`, a Hub name such as `uoft-cs/cifar10`, a parquet file, or a folder. A folder
holds `<class>/<image>`, or folders `train` and `test` with that inside, or parquet files, whose
names say their split. Where there is no test split, the content of each image decides whether it is
held out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fed_ist.datasets.folders import Opened, all_images, learnt_split
from fed_ist.datasets.hold_out import TEST_SHARE, hold_out
from fed_ist.datasets.left_out import UNUSED_SPLIT, LeftOut
from fed_ist.datasets.openings import is_there, local_path, open_name, open_tables
from fed_ist.datasets.scan import Scan, require_range, require_readable, scan
from fed_ist.datasets.splits import TEST, TRAIN, WHOLE, choose_test
from fed_ist.datasets.walk import walk
from fed_ist.errors import InputError
from fed_ist.images.source import ImageSource, Reading
from fed_ist.printable import printable


@dataclass(frozen=True)
class DataSet:
    """The two splits of a data set that a run needs, and what the user should know of it.

    kind: what the path or name turned out to be, in words.
    train, test: images that all have a class; train is None where all are for the test.
    notes: sentences for the user. left_out: counts of what is in neither split.
    scans: split -> its scan, where the test images were held out by content; else empty.
    """

    kind: str
    train: ImageSource | None
    test: ImageSource
    notes: tuple[str, ...]
    left_out: LeftOut
    scans: Mapping[str, Scan] = field(default_factory=dict)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, the same for both splits."""
        return self.test.class_names

    def images(self, split: str) -> ImageSource:
        """The images of "train" or "test"; raises `InputError` where there are none to train on."""
        if split == TEST:
            return self.test
        if self.train is None:
            raise InputError("All images of this data set are for the test, none for training.")
        return self.train


def open_data(
    dataset: str, test_dataset: str, reading: Reading, test_share: float | None = TEST_SHARE
) -> DataSet:
    """Open a data set, and choose which of its images are trained on and which are tested on.

    test_dataset: path or name of the test images; empty where `dataset` holds them.
    test_share: the share of each class that is held out where there are no test images otherwise;
        None for a server whose nodes have images of their own: then all images are for the test.
    Raises `InputError` where there is no such data set, or nothing in it to learn.
    """
    # The test images first: so a wrong path is reported before the Hub is asked for the others.
    tests = _open_test(test_dataset, reading) if test_dataset else None
    opened = open_name(dataset, reading)
    notes, left_out = list(opened.notes), LeftOut()
    left_out.update(opened.left_out)
    labelled = {split: _labelled(source) for split, source in opened.splits.items()}
    used = {TRAIN, WHOLE}
    scans: dict[str, Scan] = {}
    train: ImageSource | None
    if tests:
        train = _learnt(opened, labelled, dataset)
        test, more = tests
        notes += more.notes
        left_out.update(more.left_out)
        test = _relabelled(train, test, f"test-dataset = '{test_dataset}'")
    elif found := choose_test({split: len(source) for split, source in labelled.items()}):
        used.add(found)
        has_train = TRAIN in labelled or test_share is not None
        train = _learnt(opened, labelled, dataset) if has_train else None
        test = labelled[found]
        if TEST in opened.splits and found != TEST:
            notes.append(f"The test split of '{dataset}' has no labels: {found} is tested on.")
        if train is not None:
            test = _relabelled(train, test, f"The {found} split of '{dataset}'")
    elif test_share is None:
        train, test = None, _learnt(opened, labelled, dataset)
    else:
        whole = _learnt(opened, labelled, dataset)
        if TEST in opened.splits:
            notes.append(f"The test split of '{dataset}' has no labels: {TRAIN} gives some images.")
        _require_classes(whole, dataset)
        seen = scan(whole, reading.cache)
        rows = _hold_out_by_content(whole, seen, test_share, reading)
        train, test = (whole.subset(rows[split]) for split in (TRAIN, TEST))
        scans = {split: seen.subset(rows[split]) for split in (TRAIN, TEST)}
    for split, source in labelled.items():
        if split not in used:
            left_out.add(UNUSED_SPLIT, split, len(source))
    _require_classes(train or test, dataset)
    if train is not None:
        notes += _note_one_sided(train, test)
    return DataSet(opened.kind, train, test, tuple(notes), left_out, scans)


def open_dataset(
    dataset: str,
    test_dataset: str,
    split: str,
    reading: Reading | None = None,
    test_share: float = TEST_SHARE,
) -> ImageSource:
    """The images of one split, "train" or "test"; see `open_data`."""
    return open_data(dataset, test_dataset, reading or Reading(), test_share).images(split)


def open_all(
    path: str,
    reading: Reading | None = None,
    say: Callable[[str], None] = lambda _: None,
    no_class: int = 0,
) -> ImageSource:
    """All images of a table or below a folder, with or without classes.

    The images of a folder all get the same label, and images of a table without a class get the
    label `no_class`; -1 leaves them out of what needs classes. say: called with each sentence that
    the user should read. Raises `InputError` where there is no image.
    """
    reading = reading or Reading()
    root = local_path(path, "images")
    if not is_there(root):
        raise InputError(
            f"'{printable(path)}' does not exist. Give a folder of images or a parquet file."
        )
    found = walk(root, reading.cache, reading.run)
    if found.tables and not found.images:
        opened = open_tables(found, replace(reading, columns=()), are_split=False)
        source, left_out = opened.splits[WHOLE], opened.left_out
        labels = np.where(source.labels < 0, no_class, source.labels)
        source = replace(source, labels=labels)
    else:
        source, left_out = all_images(found, reading), found.left_out
    for note in [*left_out.sentences(), require_range(source, reading.value_range)]:
        if note:
            say(note)
    return source


def open_own(
    path: str, reading: Reading, say: Callable[[str], None] = lambda _: None
) -> ImageSource:
    """A device's own images: all that have a class, or where there are splits, the training split.

    say: called with each sentence that the device's owner should read. Raises `InputError` where
    there are no such images, or where images of 16 bits need a value-range.
    """
    opened = open_name(path, reading, "data-path")
    source = learnt_split(opened, printable(path))
    note = require_range(source, reading.value_range)
    for sentence in (*opened.notes, *opened.left_out.sentences(), note):
        if sentence:
            say(sentence)
    return source


def _learnt(opened: Opened, labelled: Mapping[str, ImageSource], name: str) -> ImageSource:
    learnt_split(opened, printable(name))  # says what is wrong where there is none
    source = labelled[WHOLE if WHOLE in labelled else TRAIN]
    if not len(source):
        raise InputError(
            f"No image of '{printable(name)}' has a class, so there is nothing to learn. Put "
            "images into folders named after their classes, or name a column with label-column."
        )
    return source


def _labelled(source: ImageSource) -> ImageSource:
    rows = np.flatnonzero(source.labels >= 0)
    return source if len(rows) == len(source) else source.subset(rows)


def _open_test(name: str, reading: Reading) -> tuple[ImageSource, Opened]:
    opened = open_name(name, replace(reading, columns=()), "test-dataset")
    labelled = {split: _labelled(source) for split, source in opened.splits.items()}
    counts = {split: len(source) for split, source in labelled.items()}
    split = WHOLE if counts.get(WHOLE) else choose_test(counts) or TRAIN
    if not counts.get(split):
        raise InputError(f"No image of test-dataset = '{printable(name)}' has a class.")
    return labelled[split], opened


def _relabelled(train: ImageSource, test: ImageSource, what: str) -> ImageSource:
    """The test images with labels that count the training images' classes.

    what: what messages call the test images. Raises `InputError` where they have other classes.
    """
    present = [test.class_names[label] for label in np.unique(test.labels)]
    unknown = [name for name in present if name not in train.class_names]
    if unknown:
        close = {name.casefold(): name for name in train.class_names}
        alike = [f"'{close[n.casefold()]}'" for n in unknown if n.casefold() in close]
        hint = f" Is it meant for {', '.join(alike)}?" if alike else ""
        if all(name.isdecimal() for name in unknown):
            hint = " They are numbers: does the test table lack the names of its classes?"
        raise InputError(
            f"{what} has classes that the training images have not: {', '.join(unknown)}.{hint} "
            "Rename them as in training, or leave them out."
        )
    return test.relabel(train.class_names)


def _hold_out_by_content(
    source: ImageSource, seen: Scan, test_share: float, reading: Reading
) -> dict[str, NDArray[np.int64]]:
    rows = hold_out(source.labels, seen.contents, test_share)
    require_readable(seen.headers)
    if not len(rows[TEST]):  # as each class keeps an image to train on
        require_range(source, reading.value_range)  # told first, as it may be the real cause
        raise InputError(
            "No class has more than one unlike image, so none can be held out for the test. Use "
            "more images, or name test images with test-dataset."
        )
    return rows


def _require_classes(source: ImageSource, name: str) -> None:
    present = np.unique(source.labels)
    if len(present) < 2:
        only = source.class_names[present[0]] if len(present) else ""
        has_folder = only and Path(name, only).is_dir()
        inner = f" If it holds folders of classes, give {name}/{only}." if has_folder else ""
        raise InputError(
            f"All images of '{printable(name)}' are of one class, '{only}', so there is nothing to "
            f"learn. Give a folder with a folder for each class, two or more.{inner}"
        )


def _note_one_sided(train: ImageSource, test: ImageSource) -> list[str]:
    sides = {
        "test": set(train.labels) - set(test.labels),
        "training": set(test.labels) - set(train.labels),
    }
    return [
        f"No {side} image is of the classes {_named(labels, train.class_names)}."
        for side, labels in sides.items()
        if labels
    ]


def _named(labels: Sequence[int] | set[Any], names: tuple[str, ...], most: int = 5) -> str:
    found = [names[label] for label in sorted(labels)]
    return ", ".join(found[:most]) + (f" and {len(found) - most} more" if len(found) > most else "")
