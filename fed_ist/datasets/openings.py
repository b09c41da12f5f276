"""Opens a data set by its path or name: a folder of images, tables, a Hub name, or `scenes`."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fed_ist.datasets.folders import Opened, open_folder
from fed_ist.datasets.left_out import NO_LABEL, LeftOut
from fed_ist.datasets.scenes import scenes_source
from fed_ist.datasets.splits import TEST, TRAIN, WHOLE, split_of_table
from fed_ist.datasets.tables import Table, missing_shards, open_files, table_source
from fed_ist.datasets.walk import Walk, walk
from fed_ist.errors import InputError
from fed_ist.files.hub import FetchError, asking
from fed_ist.images.source import ImageSource, Reading
from fed_ist.printable import printable

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
PARQUET = ".parquet"


def open_name(dataset: str, reading: Reading, key: str = "dataset") -> Opened:
    """The data set of a path or name, with all its splits.

    key: what messages call the setting. Raises `InputError` where there is no such data set, or
    where it has no images.
    """
    if dataset == "scenes":
        return _scenes(reading, key)
    path = local_path(dataset, key)
    if not is_there(path):
        _require_hub_name(dataset, path, key)
        return _hub(dataset, reading)
    found = walk(path, reading.cache, reading.run)
    if found.tables and _are_meant(found):
        return open_tables(found, reading)
    if not path.is_dir():
        raise InputError(
            f"{key} = '{printable(dataset)}' is a file, but not a .parquet one. Give a parquet "
            "file or a folder of <class>/<image>."
        )
    opened = open_folder(found, reading)
    if found.tables:
        opened.left_out.add("table beside the images", "/".join(found.tables[0]), len(found.tables))
    return opened


def local_path(name: str, key: str) -> Path:
    """The path that a user wrote, with `~` replaced; raises `InputError` for what can be no path.

    key: what messages call the setting.
    """
    try:
        path = Path(name).expanduser()
    except RuntimeError:  # ~ of a user whom nobody knows
        raise InputError(f"{key} = '{printable(name)}' does not exist. Check the path.") from None
    if not name.strip() or "\0" in name:
        raise InputError(f"{key} = '{printable(name)}' is no path. Give one, or scenes.")
    return path


def is_there(path: Path) -> bool:
    """Whether there is a file or folder at a path; False also for a name that no file can have."""
    try:
        path.stat()
    except (OSError, ValueError):  # also a name that is too long, or a link to itself
        return False
    return True


def _scenes(reading: Reading, key: str) -> Opened:
    if reading.bands is not None or reading.value_range is not None:
        said = "bands" if reading.bands else "value-range"
        raise InputError(
            f"{said} = '{reading.bands or reading.value_range}' does not go with {key} = 'scenes', "
            f"whose images are RGB of 8 bits. Leave {said} empty, or give a folder of images."
        )
    splits = {split: scenes_source(split, reading.seed) for split in (TRAIN, TEST)}
    return Opened("scenes, drawn as they are needed", splits, (), LeftOut())


def _require_hub_name(dataset: str, path: Path, key: str) -> None:
    """Raise `InputError` for what can only be meant as a path, before the Hub is asked."""
    is_name = HUB_NAME.fullmatch(dataset) and not dataset.startswith((".", "~"))
    if path.is_absolute() or dataset.startswith((".", "~")) or (is_name and path.parent.exists()):
        raise InputError(
            f"{key} = '{printable(dataset)}' does not exist. Check the path: give a parquet file, "
            "or a folder of <class>/<image>."
        )
    if not is_name or path.suffix.lower() == PARQUET:
        raise InputError(
            f"{key} = '{printable(dataset)}' is unknown. Choose scenes, the path of an existing "
            "parquet file or image folder, or a Hub name such as uoft-cs/cifar10."
        )


def _are_meant(found: Walk) -> bool:
    """Whether the tables of a folder are the data set, rather than its images."""
    if not found.images:
        return True
    path = found.root.joinpath(*found.tables[0])
    try:
        return bool(open_files([path], printable(path), "").image_columns)
    except InputError:
        return False


def open_tables(found: Walk, reading: Reading, *, are_split: bool = True) -> Opened:
    """The tables below a folder, or the one file that was given, by their splits.

    are_split: False to read all tables as one, whose rows need no class.
    Raises `InputError` where a table cannot be read or has no images.
    """
    groups: dict[str, list[tuple[str, ...]]] = {}
    for names in found.tables:
        own = names or (found.root.name,)
        groups.setdefault(split_of_table(own) if names else WHOLE, []).append(names)
    left_out = LeftOut()
    left_out.update(found.left_out)
    notes: list[str] = []
    n_beside = 0
    n_named = len(groups.keys() - {"", WHOLE})
    if not are_split or (TRAIN not in groups and n_named < 2):  # nothing to tell apart
        everything = [names for group in groups.values() for names in group]
        groups = {WHOLE: everything}
    elif unnamed := groups.pop("", []):
        notes.append(
            f"{len(unnamed)} tables that name no split are left out, such as "
            f"'{printable('/'.join(unnamed[0]))}'."
        )
        left_out.add("table that names no split", "/".join(unnamed[0]), len(unnamed))
    opened: dict[str, ImageSource] = {}
    for split, files in groups.items():
        paths = [found.root.joinpath(*names) for names in files]
        name = paths[0] if len(paths) == 1 else found.root
        places = sorted({printable("/".join(names[:-1])) for names in files})
        if len(places) > 1:
            notes.append(f"The tables of {len(places)} folders are one: {', '.join(places)}.")
        if lacking := missing_shards(paths):
            notes.append(lacking)
        table = open_files(paths, printable(name), found.signature(tuple(files)))
        if found.images and not table.holds_paths:
            beside = found.root.joinpath(*found.images[0])
            left_out.add("image beside the tables", beside, len(found.images) - n_beside)
            n_beside = len(found.images)
        # A competition's test split may lack the column of the labels.
        needed = are_split and split in (TRAIN, WHOLE)
        source, said, left = table_source(table, reading, is_label_needed=needed)
        if are_split and not needed and source.class_names == ("image",):
            left_out.add(NO_LABEL, printable(name), len(source))
            continue
        opened[split] = source
        notes += [sentence for sentence in said if sentence not in notes]
        left_out.update(left)
    kind = "tables of splits" if TRAIN in groups else _count("table", len(found.tables))
    return Opened(kind, opened, tuple(notes), left_out)


def _count(what: str, n: int) -> str:
    return what if n == 1 else f"{n} {what}s"


def _hub(name: str, reading: Reading) -> Opened:
    splits: dict[str, ImageSource] = {}
    notes: list[str] = []
    left_out = LeftOut()
    loaded = _load_hub(name)
    for key, rows in loaded.items():
        split = split_of_table((key,)) or (WHOLE if len(loaded) == 1 else "")
        if not split or split in splits:
            notes.append(f"The split '{key}' of '{name}' is not used.")
            continue
        whole = rows.data.table
        columns = {column: whole.column(column) for column in whole.column_names}
        schema = rows.features.arrow_schema
        table = Table(f"{name}, {key}", schema, Path(), f"{name} {key} {rows._fingerprint}")
        source, said, left = table_source(replace(table, columns=columns), reading)
        splits[split] = source
        notes += [sentence for sentence in said if sentence not in notes]
        left_out.update(left)
    return Opened(f"data set of the Hub, {name}", splits, tuple(notes), left_out)


def _load_hub(name: str) -> Mapping[str, Any]:
    """A Hugging Face `DatasetDict`."""
    import datasets  # before `asking`: inside it may take itself to be offline for good

    datasets.disable_progress_bars()
    try:
        with asking():
            found: Mapping[str, Any] = datasets.load_dataset(name)
    except FetchError as error:
        raise InputError(
            f"Data set '{name}' is no path here, and could not be fetched from the Hub ({error}). "
            "Check the name and the network, or give the path of a parquet file or an image folder."
        ) from error
    return found
