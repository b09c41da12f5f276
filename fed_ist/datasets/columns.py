"""Which columns of a table hold the images and their classes, and what the classes are."""

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fed_ist.datasets.left_out import NO_LABEL, OUT_OF_RANGE
from fed_ist.errors import InputError
from fed_ist.images.kinds import HEAD_BYTES, image_format
from fed_ist.printable import class_name, printable

if TYPE_CHECKING:
    import pyarrow as pa

IMAGE_NAMES = ("image", "img", "picture", "jpg", "png")
MOST_CLASSES, MOST_OF_NAMES = 100_000, 10_000_000  # the latter: bytes of all their names
NOTHING, BEYOND = -1, -2  # labels of rows without a class, and with one beyond those declared
LABEL_NAMES = ("label", "labels", "class", "class_name", "category", "target", "scene")


@dataclass(frozen=True)
class Columns:
    """The columns of a table that are read.

    image, label: their names; label is empty where there is none.
    class_names: of the labels, as the table declares them; None where it declares none.
    notes: sentences for the user on what was chosen among several.
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
    """The columns of images and classes: those asked for, else as declared, else by content.

    first: column -> its first value that is not null. name: what messages call the table.
    image_column, label_column: those asked for; empty to find them. is_label_needed: whether a
    table without classes is refused.
    Raises `InputError` where a column that was asked for does not exist, where several have the
    same name, or where none is found to hold images or classes.
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
    """The names of classes; a class without a name is called by its number."""
    names = feature.get("names") or ()
    if isinstance(names, dict):  # some writers have a dict: number -> name
        names = [names[key] for key in sorted(names, key=int)]
    return tuple(str(i) if text is None else str(text) for i, text in enumerate(names))


def image_columns(schema: "pa.Schema", first: Callable[[str], object]) -> list[str]:
    """The columns that hold images, by what the table declares or by their content.

    first: column -> its first value that is not null.
    """
    declared = declared_features(schema)
    return [c for c in schema.names if _is_image(declared.get(c), schema.field(c).type, c, first)]


def declared_features(schema: "pa.Schema") -> dict[str, dict[str, Any]]:
    """The Hugging Face metadata of a table, column -> its feature; empty where it has none."""
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
    """The classes of the rows of a table.

    values: int64 (n,), indices into `class_names`; -1 for a row without a class.
    left_out: reason -> the rows that it applies to, int64 (k,).
    """

    class_names: tuple[str, ...]
    values: NDArray[np.int64]
    left_out: Mapping[str, NDArray[np.int64]]


def read_labels(
    column: "pa.ChunkedArray", declared: tuple[str, ...] | None, name: str, key: str
) -> Labels:
    """The classes of a column of whole numbers, texts or truth values.

    declared: the names of the classes 0, 1, ...; None for classes that are the values that occur,
    in order. Nulls, negative numbers and numbers beyond `declared` are no class.
    name, key: what messages call the table and the column.
    Raises `InputError` for a column whose values cannot be classes.
    """
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    if not (is_text or is_number or pa.types.is_boolean(kind)):
        raise InputError(
            f"{key} of '{name}' holds {kind}, which is no class: each image needs one whole number "
            "or text. Choose another column with label-column."
        )
    found, codes = _coded(column, name, key)
    if not is_number:
        texts = [None if v is None or v == "" else class_name(str(v)) for v in found]
        return _ordered(texts, codes)
    cells = [v if v is not None and math.isfinite(v) else None for v in found]
    if fractions := [v for v in cells if v is not None and v != int(v)]:
        raise InputError(
            f"{key} of '{name}' holds fractions such as {fractions[0]:g}, which are no classes. "
            "Choose another column with label-column."
        )
    numbered = [None if v is None or v < 0 else int(v) for v in cells]
    if declared is None:
        return _ordered(numbered, codes)
    canonical = [class_name(text) for text in declared]
    names = tuple(dict.fromkeys(canonical))
    position = {text: i for i, text in enumerate(names)}
    place = [
        NOTHING if v is None else position[canonical[v]] if v < len(canonical) else BEYOND
        for v in numbered
    ]
    values = _placed(place, codes)
    beyond = np.flatnonzero(values == BEYOND)
    return _labels(names, values, {OUT_OF_RANGE: beyond} if len(beyond) else {})


def _coded(column: "pa.ChunkedArray", name: str, key: str) -> tuple[list[Any], NDArray[np.int64]]:
    """(the different values, the index of its value for each row, int64 (n,), -1 for a null)."""
    import pyarrow as pa

    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    column = column.unify_dictionaries()
    if not column.num_chunks:
        return [], np.zeros(0, dtype=np.int64)
    found = column.chunk(0).dictionary
    if len(found) > MOST_CLASSES or found.nbytes > MOST_OF_NAMES:
        raise InputError(
            f"{key} of '{name}' holds {len(found)} different values, too many for classes. Choose "
            "another column with label-column."
        )
    codes = [chunk.indices.fill_null(-1).to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return found.to_pylist(), np.concatenate(codes).astype(np.int64)


def _placed(place: Sequence[int], codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The label of each row, int64 (n,), where `place` has the label of each code."""
    return np.array([*place, NOTHING], dtype=np.int64)[codes]  # code -1 picks the last


def _ordered(found: Sequence[Any], codes: NDArray[np.int64]) -> Labels:
    """Labels whose classes are the values that occur, in order."""
    used = {found[i] for i in np.unique(codes) if i >= 0}
    order = sorted(value for value in used if value is not None)
    position = {value: i for i, value in enumerate(order)}
    place = [position.get(value, NOTHING) for value in found]
    return _labels(tuple(str(value) for value in order), _placed(place, codes), {})


def _labels(
    names: tuple[str, ...], values: NDArray[np.int64], left_out: dict[str, NDArray[np.int64]]
) -> Labels:
    unlabelled = np.flatnonzero(values == NOTHING)
    if len(unlabelled):
        left_out = left_out | {NO_LABEL: unlabelled}
    return Labels(names, np.maximum(values, -1), left_out)
