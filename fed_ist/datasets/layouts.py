"""What the folders of images mean: classes, splits, or one folder around them all.

Everything here is told by the paths alone, which are tuples of names below the root.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fed_ist.datasets.splits import TRAIN, WHOLE, split_of_folder
from fed_ist.errors import InputError
from fed_ist.printable import class_name, printable

Parts = tuple[str, ...]
NAMED = 5  # folders, in one line


@dataclass(frozen=True)
class Layout:
    """Where each image belongs.

    prefix: folders that hold nothing but one other folder, which were entered. part: of each image
    "train", "validation", "test" or "all"; empty where it lies beside the splits. label_names: of
    each image its class, None where it has none. empty: classes whose folder has no image. notes:
    sentences.
    """

    prefix: Parts
    part: tuple[str, ...]
    label_names: tuple[str | None, ...]
    empty: tuple[str, ...]
    notes: tuple[str, ...]


def arrange(images: Sequence[Parts], folders: Sequence[Parts], root: str) -> Layout:
    """Tell classes from splits.

    A folder named like a split is one if it holds folders of classes, and if it has another split
    beside it or is the only thing there; otherwise `train` is a class like any other.
    root: what sentences call the folder. Raises `InputError` for splits without classes, or inside
    of the classes.
    """
    prefix = _enter(images)
    depth = len(prefix)
    inner = [parts[depth:] for parts in images]
    place = printable("/".join((root, *prefix)))
    tops = {parts[0] for parts in inner if len(parts) > 1}
    named = {top: split_of_folder(top) for top in tops if split_of_folder(top)}
    holding = {parts[0] for parts in inner if len(parts) > 2}  # folders
    splits = {named[top] for top in named if top in holding}
    others = tops - set(named)
    notes = [f"The images are in '{place}', the only folder in '{root}'."] if prefix else []
    if named and not others and not splits:
        first = printable(min(named))
        raise InputError(
            f"'{place}' holds images in {_listed(named)}, named like splits, and these hold no "
            f"folders of classes. Move each image into a folder named after its class: "
            f"{place}/{first}/<class>/<image>."
        )
    if splits and (not others or (TRAIN in splits and len(splits) > 1)):
        found = [_in_split(parts, named) for parts in inner]
        empty = _empty(folders, images, prefix, tuple(named))
    else:
        _refuse_inner_splits(inner, place)
        _refuse_split_beside(inner, named, others, place)
        notes += _note_inner_classes(inner)
        found = [(WHOLE, class_name(parts[0]) if len(parts) > 1 else None) for parts in inner]
        empty = _empty(folders, images, prefix, ())
    return Layout(
        prefix,
        tuple(part for part, _ in found),
        tuple(name for _, name in found),
        empty,
        tuple(notes),
    )


def _enter(images: Sequence[Parts]) -> Parts:
    """The folders around everything: each the only one with images, and holding folders alone."""
    prefix: Parts = ()
    while images:
        inner = [parts[len(prefix) :] for parts in images]
        if min(len(parts) for parts in inner) < 3 or len({parts[0] for parts in inner}) > 1:
            break
        prefix += (inner[0][0],)
    return prefix


def _in_split(parts: Parts, named: dict[str, str]) -> tuple[str, str | None]:
    if len(parts) < 2 or parts[0] not in named:
        return "", None
    return named[parts[0]], class_name(parts[1]) if len(parts) > 2 else None


def _empty(
    folders: Sequence[Parts], images: Sequence[Parts], prefix: Parts, splits: tuple[str, ...]
) -> tuple[str, ...]:
    """Folders where classes are expected that have no image anywhere below."""
    level = len(prefix) + (2 if splits else 1)
    used = {parts[:level] for parts in images}
    return tuple(
        printable("/".join(parts[len(prefix) :]))
        for parts in folders
        if len(parts) == level
        and parts[: len(prefix)] == prefix
        and parts not in used
        and (not splits or parts[level - 2] in splits)
    )


def _refuse_inner_splits(inner: Sequence[Parts], place: str) -> None:
    below = {split_of_folder(parts[1]): parts[1] for parts in inner if len(parts) > 2}
    if len(below.keys() - {""}) > 1:
        example = printable(next(parts[0] for parts in inner if len(parts) > 2))
        split = below.get(TRAIN) or min(name for word, name in below.items() if word)
        raise InputError(
            f"The folders of '{place}' hold splits, such as '{example}/{split}'. Put the splits "
            f"outside: {place}/{split}/{example}/<image>."
        )


def _refuse_split_beside(
    inner: Sequence[Parts], named: dict[str, str], others: set[str], place: str
) -> None:
    """A folder that is named like a split and holds folders alone may be one, or may be a class."""
    flat = {parts[0] for parts in inner if len(parts) == 2}
    for top in sorted(set(named) - flat):
        shown = printable(top)
        raise InputError(
            f"'{place}' holds '{shown}', which is named like a split and holds folders, beside "
            f"{_listed(others)}. To learn from the folders in it, give {place}/{shown} or move the "
            f"others away; if it is a class, put its images into {place}/{shown} itself."
        )


def _note_inner_classes(inner: Sequence[Parts]) -> list[str]:
    """What may be a level too much: folders that all hold folders of the same names."""
    below: dict[str, set[str]] = {}
    for parts in inner:
        below.setdefault(parts[0], set()).update(parts[1:2] if len(parts) > 2 else ())
    common = set.intersection(*below.values()) if below else set()
    if len(below) < 2 or len(common) < 2:
        return []
    return [
        f"The classes are {_listed(below)}, and each of them holds the folders {_listed(common)}. "
        "If those are the classes, put them on top."
    ]


def _listed(names: object) -> str:
    assert isinstance(names, dict | set)
    shown = [printable(name) for name in sorted(names)]
    return ", ".join(shown[:NAMED]) + (", ..." if len(shown) > NAMED else "")
