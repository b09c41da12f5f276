"""Which columns of a table hold the images and their classes, and what the classes are."""

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fed_ist.errors import InputError
from fed_ist.image_kinds import HEAD_BYTES, image_format
from fed_ist.left_out import NO_LABEL, OUT_OF_RANGE
from fed_ist.printable import class_name, printable

if TYPE_CHECKING:
    import pyarrow as pa

IMAGE_NAMES = ("image", "img", "picture", "jpg", "png")
LABEL_NAMES = ("label", "labels", "class", "class_name", "category", "target", "scene")


@dataclass(frozen=True)
class Columns:
    """image, label: the columns taken; label is empty where there is none. class_names: of the
    labels as the table declares them; None where it declares none. notes: what was chosen among
    several.
    """

    image: str
    label: str
    class_names: tuple[str, ...] | None
    notes: tuple[str, ...]


def choose_columns(
    schema: "pa.Schema",
    first: Callable[[str], object],
    name: str,
    image_column: str,
    label_column: str,
    is_label_needed: bool = True,
) -> Columns:
    """Choose by what was asked for, else by what the table says of itself, else by content.

    first: column -> its first value that is not null. name: what sentences call the table. Raises
    `InputError` where a column is not there, or where none can be told to hold images or classes.
    """
    if twice := [column for column, n in Counter(schema.names).items() if n > 1]:
        raise InputError(
            f"'{name}' has several columns called '{printable(twice[0])}'. Rename one."
        )
    declared = declared_features(schema)
    images = image_columns(schema, first)
    image = _pick("image-column", image_column, images, IMAGE_NAMES, schema.names, name)
    kinds = [c for c in schema.names if declared.get(c, {}).get("_type") == "ClassLabel"]
    usual = [c for c in schema.names if c.casefold() in LABEL_NAMES and c != image]
    labels = kinds or usual
    if not labels and not label_column and not is_label_needed:
        label = ""
    else:
        label = _pick("label-column", label_column, labels, LABEL_NAMES, schema.names, name)
    names = _names(declared[label]) if label in kinds else None
    notes = [
        f"{kind}s are in the column '{printable(taken)}' of '{name}', not in "
        f"{_quoted(found, taken)}: {key} chooses."
        for kind, key, taken, found, asked in (
            ("Image", "image-column", image, images, image_column),
            ("Label", "label-column", label, labels, label_column),
        )
        if len(found) > 1 and not asked and taken
    ]
    if names is not None and len({class_name(text) for text in names}) < len(names):
        notes.append(f"Several classes of '{name}' have the same name, and are one class.")
    return Columns(image, label, names, tuple(notes))


def _names(feature: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of classes; a class without one is called by its number."""
    names = feature.get("names") or ()
    if isinstance(names, dict):  # as other writers have it, by number
        names = [names[key] for key in sorted(names, key=int)]
    return tuple(str(i) if text is None else str(text) for i, text in enumerate(names))


def image_columns(schema: "pa.Schema", first: Callable[[str], object]) -> list[str]:
    """The columns that hold images, by what is declared or by content."""
    declared = declared_features(schema)
    return [c for c in schema.names if _is_image(declared.get(c), schema.field(c).type, c, first)]


def declared_features(schema: "pa.Schema") -> dict[str, dict[str, Any]]:
    """What the Hugging Face metadata of a table says of each column; empty where it has none."""
    try:
        text = (schema.metadata or {})[b"huggingface"]
        features = json.loads(text)["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    if not isinstance(features, dict):
        return {}
    return {name: found for name, found in features.items() if isinstance(found, dict)}


def _is_image(
    declared: dict[str, Any] | None, kind: Any, column: str, first: Callable[[str], object]
) -> bool:
    import pyarrow as pa

    if declared and declared.get("_type") == "Image":
        return True
    holds_bytes = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    if pa.types.is_struct(kind):
        holds_bytes = kind.get_field_index("bytes") >= 0
    if not holds_bytes:
        return False
    cell = first(column)
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    return isinstance(data, bytes) and bool(image_format(data[:HEAD_BYTES]))


def _pick(
    key: str,
    asked: str,
    found: Sequence[str],
    usual: Sequence[str],
    columns: Sequence[str],
    name: str,
) -> str:
    if asked:
        if asked not in columns:
            raise InputError(
                f"{key} = '{printable(asked)}' is no column of '{name}'. Choose from: "
                f"{_all(columns)}."
            )
        return asked
    if not found:
        what = "image" if key == "image-column" else "class"
        raise InputError(
            f"'{name}' has the columns {_all(columns) or 'none'}; none can be told to be the "
            f"{what} column. Name it with {key}."
        )
    return min(found, key=lambda c: _rank(c, usual))


def _all(columns: Sequence[str]) -> str:
    return ", ".join(printable(column) for column in columns)


def _rank(column: str, usual: Sequence[str]) -> int:
    name = column.casefold()
    return usual.index(name) if name in usual else len(usual)


def _quoted(columns: Sequence[str], taken: str) -> str:
    return ", ".join(f"'{printable(column)}'" for column in columns if column != taken)


@dataclass(frozen=True)
class Labels:
    """values: int64 (n,), -1 where there is none. left_out: reason -> rows."""

    class_names: tuple[str, ...]
    values: NDArray[np.int64]
    left_out: Mapping[str, Sequence[int]]


def read_labels(
    column: "pa.ChunkedArray", declared: tuple[str, ...] | None, name: str, key: str
) -> Labels:
    """The classes of a column of whole numbers, texts or truth values.

    declared: names of the classes 0, 1, ...; None where nothing says: then they are the values that
    occur, in order. Nothing, negative numbers and those beyond `declared` are no class. key: how
    sentences call the column. Raises `InputError` for what can be no class.
    """
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if is_text or pa.types.is_boolean(kind):
        return _texts([None if v is None or v == "" else str(v) for v in column.to_pylist()])
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise InputError(
            f"{key} of '{name}' holds {kind}, which is no class: each image needs one whole number "
            "or text. Choose another column with label-column."
        )
    cells = [v if v is not None and math.isfinite(v) else None for v in column.to_pylist()]
    if fractions := [v for v in cells if v is not None and v != int(v)]:
        raise InputError(
            f"{key} of '{name}' holds fractions such as {fractions[0]:g}, which are no classes. "
            "Choose another column with label-column."
        )
    numbered = [None if v is None or v < 0 else int(v) for v in cells]
    if declared is None:
        order = sorted({v for v in numbered if v is not None})
        position = {v: i for i, v in enumerate(order)}
        found = [-1 if v is None else position[v] for v in numbered]
        return _labels(tuple(str(v) for v in order), found, {})
    beyond = [i for i, v in enumerate(numbered) if v is not None and v >= len(declared)]
    values = [-1 if v is None or v >= len(declared) else v for v in numbered]
    canonical = [class_name(text) for text in declared]
    names = tuple(dict.fromkeys(canonical))
    place = np.array([names.index(text) for text in canonical], dtype=np.int64)
    found = [int(place[v]) if v >= 0 else -1 for v in values]
    return _labels(names, found, {OUT_OF_RANGE: beyond} if beyond else {})


def _texts(cells: Sequence[str | None]) -> Labels:
    named = [None if text is None else class_name(text) for text in cells]
    names = tuple(sorted(Counter(text for text in named if text is not None)))
    position = {text: i for i, text in enumerate(names)}
    return _labels(names, [-1 if text is None else position[text] for text in named], {})


def _labels(
    names: tuple[str, ...], found: Sequence[int], left_out: dict[str, Sequence[int]]
) -> Labels:
    values = np.array(found, dtype=np.int64)
    beyond = set(left_out.get(OUT_OF_RANGE, ()))
    unlabelled = [i for i in np.flatnonzero(values < 0).tolist() if i not in beyond]
    if unlabelled:
        left_out = left_out | {NO_LABEL: unlabelled}
    return Labels(names, values, left_out)
