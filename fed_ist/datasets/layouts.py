"""What the folders of images mean: classes, splits, or a single folder around all of them.

The paths alone decide; they are tuples of the names below the root (`walk.PathNames`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fed_ist.datasets.splits import TRAIN, WHOLE, split_of_folder
from fed_ist.datasets.walk import PathNames
from fed_ist.errors import InputError
from fed_ist.printable import class_name, printable

NAMED = 5  # folders that one sentence lists, at most


@dataclass(frozen=True)
class Layout:
    """The split and the class of each image.

    prefix: outer folders that each hold one other folder and nothing else.
    split_names: of each image "train", "validation", "test" or "all"; empty where it is in none of
        the splits.
    label_names: of each image the name of its class; None where it has none.
    empty: classes whose folder has no image. notes: sentences for the user.
    """

    prefix: PathNames
    split_names: tuple[str, ...]
    label_names: tuple[str | None, ...]
    empty: tuple[str, ...]
    notes: tuple[str, ...]


def arrange(images: Sequence[PathNames], folders: Sequence[PathNames], root: str) -> Layout:
    """Decide which folders are splits and which are classes.

    A folder with the name of a split is one if it holds folders of classes, and if there is another
    split next to it or nothing else; otherwise `train` is a class like any other.
    images, folders: paths below the root. root: what messages call the root.
    Raises `InputError` for splits without classes, and for splits inside of classes.
    """
    prefix = _enter(images)
    depth = len(prefix)
    inner = [names[depth:] for names in images]
    place = printable("/".join((root, *prefix)))
    tops = {names[0] for names in inner if len(names) > 1}
    named = {top: split_of_folder(top) for top in tops if split_of_folder(top)}
    holding = {names[0] for names in inner if len(names) > 2}  # folders
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
        found = [_in_split(names, named) for names in inner]
        empty = _empty(folders, images, prefix, tuple(named))
    else:
        _refuse_inner_splits(inner, place)
        _refuse_split_beside(inner, named, others, place)
        notes += _note_inner_classes(inner)
        found = [(WHOLE, class_name(names[0]) if len(names) > 1 else None) for names in inner]
        empty = _empty(folders, images, prefix, ())
    return Layout(
        prefix,
        tuple(split for split, _ in found),
        tuple(name for _, name in found),
        empty,
        tuple(notes),
    )


def _enter(images: Sequence[PathNames]) -> PathNames:
    """The outer folders that all images lie in, each of which holds folders only."""
    prefix: PathNames = ()
    while images:
        inner = [names[len(prefix) :] for names in images]
        if min(len(names) for names in inner) < 3 or len({names[0] for names in inner}) > 1:
            break
        prefix += (inner[0][0],)
    return prefix


def _in_split(names: PathNames, named: dict[str, str]) -> tuple[str, str | None]:
    if len(names) < 2 or names[0] not in named:
        return "", None
    return named[names[0]], class_name(names[1]) if len(names) > 2 else None


def _empty(
    folders: Sequence[PathNames],
    images: Sequence[PathNames],
    prefix: PathNames,
    splits: tuple[str, ...],
) -> tuple[str, ...]:
    """The folders in the place of classes that have no image anywhere below."""
    level = len(prefix) + (2 if splits else 1)
    used = {names[:level] for names in images}
    return tuple(
        printable("/".join(names[len(prefix) :]))
        for names in folders
        if len(names) == level
        and names[: len(prefix)] == prefix
        and names not in used
        and (not splits or names[level - 2] in splits)
    )


def _refuse_inner_splits(inner: Sequence[PathNames], place: str) -> None:
    below = {split_of_folder(names[1]): names[1] for names in inner if len(names) > 2}
    if len(below.keys() - {""}) > 1:
        example = printable(next(names[0] for names in inner if len(names) > 2))
        split = below.get(TRAIN) or min(name for word, name in below.items() if word)
        raise InputError(
            f"The folders of '{place}' hold splits, such as '{example}/{split}'. Put the splits "
            f"outside: {place}/{split}/{example}/<image>."
        )


def _refuse_split_beside(
    inner: Sequence[PathNames], named: dict[str, str], others: set[str], place: str
) -> None:
    """Raise `InputError` for a folder that is named like a split and holds only folders.

    It may be meant as a split or as a class.
    """
    flat = {names[0] for names in inner if len(names) == 2}
    for top in sorted(set(named) - flat):
        shown = printable(top)
        raise InputError(
            f"'{place}' holds '{shown}', which is named like a split and holds folders, beside "
            f"{_listed(others)}. To learn from the folders in it, give {place}/{shown} or move the "
            f"others away; if it is a class, put its images into {place}/{shown} itself."
        )


def _note_inner_classes(inner: Sequence[PathNames]) -> list[str]:
    """A note where all classes hold folders of the same names, which may be the real classes."""
    below: dict[str, set[str]] = {}
    for names in inner:
        below.setdefault(names[0], set()).update(names[1:2] if len(names) > 2 else ())
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
