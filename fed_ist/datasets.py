"""Data sets by name or path, and their train and test images.

A data set is `scenes`, a Hub name such as `uoft-cs/cifar10`, a parquet file in the Hugging Face
image layout, or a folder. A folder holds `<class>/<image>`, or `train/` and `test/` with that
inside, or parquet files with "train" and "test" in their names. Where there is no test part, a
stratified 15% of the images is held out.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fed_ist.errors import InputError
from fed_ist.images import (
    ImageSource,
    decode,
    files_signature,
    folder_source,
    image_files,
    load_file,
)
from fed_ist.rng import generator
from fed_ist.scenes import scenes_source

TEST_FRACTION = 0.15
SPLITS = {"train": ("train",), "test": ("test", "validation", "valid", "val")}


def check_dataset_name(dataset: str, key: str = "dataset") -> None:
    """Raise `InputError` unless `dataset` can be one: no image is read."""
    if dataset == "scenes":
        return
    path = Path(dataset)
    if path.is_absolute() or path.exists():
        if not path.exists():
            raise InputError(f"{key} = '{dataset}' does not exist. Check the path.")
        if path.is_file() and path.suffix != ".parquet":
            raise InputError(
                f"{key} = '{dataset}' is a file, but not a .parquet one. Give a parquet file or "
                "a folder of <class>/<image>."
            )
        if path.is_dir() and not _split_paths(path):
            folder_source(path)  # says what is wrong with the folder
        if path.is_file():
            _check_parquet(path)
        return
    if dataset.count("/") != 1 or dataset.startswith((".", "~")) or path.suffix == ".parquet":
        raise InputError(
            f"{key} = '{dataset}' is unknown. Choose scenes, the path of an existing parquet file "
            "or image folder, or a Hub name such as uoft-cs/cifar10."
        )


def _check_parquet(path: Path) -> None:
    from pyarrow import ArrowException, parquet

    try:
        parquet.read_schema(path)
    except (ArrowException, OSError) as error:
        raise InputError(f"'{path}' cannot be read as parquet: {error}") from None


def open_dataset(dataset: str, test_dataset: str, split: str, seed: int) -> ImageSource:
    """The images of one split, "train" or "test", labelled with the train images' class names.

    test_dataset: where the test images are; empty where `dataset` itself holds them.
    Raises `InputError` where there is no such data set or nothing in it.
    """
    check_dataset_name(dataset)
    if test_dataset:
        check_dataset_name(test_dataset, "test-dataset")
        train = _open(dataset, "train", seed, held_out=False)
        if split == "train":
            return train
        test = _open(test_dataset, "test", seed, held_out=False)
        unknown = sorted(set(test.class_names) - set(train.class_names))
        if unknown:
            raise InputError(
                f"test-dataset = '{test_dataset}' has classes that the training images have not: "
                f"{', '.join(unknown)}."
            )
        return test.relabel(train.class_names)
    return _open(dataset, split, seed, held_out=True)


def open_all(path: str) -> ImageSource:
    """Every image of a parquet file, or under a folder with or without classes.

    A folder's images all get one label. Raises `InputError` where there is no image.
    """
    root = Path(path)
    if not root.exists():
        raise InputError(f"'{path}' does not exist. Give a folder of images or a parquet file.")
    if root.is_file():
        check_dataset_name(path, "images")
        return _parquet_source(root)
    files = image_files(root)
    if not files:
        raise InputError(f"No images in '{path}'.")
    return ImageSource(
        class_names=("image",),
        labels=np.zeros(len(files), dtype=np.int64),
        load=lambda i: load_file(files[i]),
        signature=files_signature(files, root),
    )


def _open(dataset: str, split: str, seed: int, held_out: bool) -> ImageSource:
    if dataset == "scenes":
        return scenes_source(split, seed)
    path = Path(dataset)
    if not path.exists():
        return _hub_source(dataset, split, seed)
    parts = _split_paths(path) if path.is_dir() else {}
    if split in parts:
        # The classes are those of the train part, whichever part is read.
        classes = _open_path(parts.get("train", parts[split])).class_names
        return _open_path(parts[split]).relabel(classes)
    source = _open_path(parts.get("train", path))
    if not held_out:
        return source
    return source.subset(hold_out(source.labels, generator(seed, "hold-out"))[split])


def _split_paths(root: Path) -> dict[str, Path]:
    """The parts of a folder that are named after a split: folders or parquet files."""
    found = {}
    for split, names in SPLITS.items():
        folders = [root / name for name in names if (root / name).is_dir()]
        tables = [p for p in sorted(root.glob("*.parquet")) if any(n in p.stem for n in names)]
        if folders or tables:
            found[split] = (folders + tables)[0]
    return found if "train" in found else {}


def _open_path(path: Path) -> ImageSource:
    return folder_source(path) if path.is_dir() else _parquet_source(path)


def hold_out(labels: NDArray[np.int64], rng: np.random.Generator) -> dict[str, NDArray[np.int64]]:
    """Split indices so that each class gives the same share (and at least one) to the test."""
    test = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        test[rows[: max(1, round(len(rows) * TEST_FRACTION))]] = len(rows) > 1
    return {"train": np.flatnonzero(~test), "test": np.flatnonzero(test)}


def _parquet_source(path: Path) -> ImageSource:
    signature = files_signature([path], path)
    return _table_source(
        _load_table("parquet", data_files=str(path))["train"], str(path), signature
    )


def _hub_source(name: str, split: str, seed: int) -> ImageSource:
    parts = _load_table(name)
    available = next((part for part in SPLITS[split] if part in parts), None)
    if available:
        return _table_source(parts[available], name, f"{name} {available}")
    source = _table_source(parts["train"], name, f"{name} train")
    if not any(part in parts for part in SPLITS["test"]) or split == "test":
        return source.subset(hold_out(source.labels, generator(seed, "hold-out"))[split])
    return source


def _load_table(name: str, **options: Any) -> Any:
    """A Hugging Face `DatasetDict`."""
    import datasets

    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(name, **options)
    except Exception as error:  # the reader and the hub client raise many kinds
        if options:
            raise InputError(
                f"'{options['data_files']}' cannot be read as parquet: {root_cause(error)}"
            ) from error
        raise InputError(
            f"Data set '{name}' is no path here, and could not be fetched from the Hub "
            f"({root_cause(error)}). Check the name and the network, or give the path of a parquet "
            "file or an image folder."
        ) from error


def root_cause(error: BaseException) -> str:
    """What a library complained about at the bottom of it, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().split("\n")[0] or type(error).__name__


def _table_source(table: Any, name: str, signature: str) -> ImageSource:
    """A Hugging Face table with one image column and one class column."""
    from datasets import ClassLabel
    from datasets import Image as ImageFeature

    images = [key for key, kind in table.features.items() if isinstance(kind, ImageFeature)]
    classes = [key for key, kind in table.features.items() if isinstance(kind, ClassLabel)]
    if not classes and "label" in table.features:
        table, classes = table.class_encode_column("label"), ["label"]
    if not images or not classes:
        raise InputError(
            f"'{name}' has the columns {', '.join(table.features)}; an image column and a class "
            "column ('label') are needed, in the Hugging Face image-classification layout."
        )
    column, label = images[0], "label" if "label" in classes else classes[0]
    table = table.cast_column(column, ImageFeature(decode=False))
    plain = [key for key in table.features if key != column]

    def load(i: int) -> tuple[Image.Image, int]:
        cell = table[i][column]
        if cell["bytes"] is None:
            return load_file(Path(cell["path"]))
        return decode(cell["bytes"], f"{name}, row {i}"), len(cell["bytes"])

    return ImageSource(
        class_names=tuple(table.features[label].names),
        labels=np.array(table[label], dtype=np.int64),
        load=load,
        signature=hashlib.sha256(f"{signature} {column} {label}".encode()).hexdigest(),
        columns={key: np.array(table[key]) for key in plain},
    )
