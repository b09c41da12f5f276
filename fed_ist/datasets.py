"""Data sets by name or path, and their train and test images.

A data set is `scenes`, a Hub name such as `uoft-cs/cifar10`, a parquet file in the Hugging Face
image layout, or a folder. A folder holds `<class>/<image>`, or `train/` and `test/` with that
inside, or parquet files with "train" and "test" in their names. Where there is no test part, a
stratified share of the images is held out.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fed_ist.bands import BandChoice, check_first
from fed_ist.errors import InputError
from fed_ist.images import (
    ImageSource,
    Picture,
    bands_signature,
    decode,
    decode_bands,
    files_signature,
    files_source,
    folder_source,
    image_files,
    load_file,
)
from fed_ist.rng import generator
from fed_ist.scenes import scenes_source

if TYPE_CHECKING:
    from fed_ist.config import RunConfig

TEST_SHARE = 0.15
SPLITS = {"train": ("train",), "test": ("test", "validation", "valid", "val")}


def check_dataset_name(dataset: str, key: str = "dataset", bands: BandChoice | None = None) -> None:
    """Raise `InputError` unless `dataset` can be one: no image is read.

    Where bands are chosen, the first image is looked into, unless it is on the Hub.
    """
    if dataset == "scenes":
        if bands is not None:
            raise InputError(
                f"bands = '{bands}' does not go with {key} = 'scenes', whose images are RGB. "
                "Leave bands empty, or give a folder of GeoTIFFs."
            )
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
        parts = _split_paths(path) if path.is_dir() else {}
        if path.is_file():
            _check_parquet(path)
        if path.is_dir() and not parts:
            folder_source(path, bands)  # says what is wrong with the folder
        elif bands is not None:
            for part in parts.values() or [path]:
                _open_path(part, bands)
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


def open_dataset(
    dataset: str,
    test_dataset: str,
    split: str,
    seed: int,
    bands: BandChoice | None = None,
    test_share: float = TEST_SHARE,
) -> ImageSource:
    """The images of one split, "train" or "test", labelled with the train images' class names.

    test_dataset: where the test images are; empty where `dataset` itself holds them.
    bands: what is read of each image, a GeoTIFF then; None for RGB.
    test_share: of each class, held out where `dataset` has no test part and there is no other.
    Raises `InputError` where there is no such data set or nothing in it.
    """
    check_dataset_name(dataset, bands=bands)
    if test_dataset:
        check_dataset_name(test_dataset, "test-dataset", bands)
        train = _open(dataset, "train", seed, bands, test_share=0)
        if split == "train":
            return train
        test = _open(test_dataset, "test", seed, bands, test_share=0)
        unknown = sorted(set(test.class_names) - set(train.class_names))
        if unknown:
            raise InputError(
                f"test-dataset = '{test_dataset}' has classes that the training images have not: "
                f"{', '.join(unknown)}."
            )
        return test.relabel(train.class_names)
    return _open(dataset, split, seed, bands, test_share)


def open_split(config: "RunConfig", split: str) -> ImageSource:
    """The images of one split as a run's configuration has them; see `open_dataset`."""
    return open_dataset(
        config.dataset,
        config.test_dataset,
        split,
        config.seed,
        config.band_choice,
        config.test_share,
    )


def open_all(path: str, bands: BandChoice | None = None) -> ImageSource:
    """Every image of a parquet file, or under a folder with or without classes.

    A folder's images all get one label. For `bands` see `open_dataset`. Raises `InputError` where
    there is no image.
    """
    root = Path(path)
    if not root.exists():
        raise InputError(f"'{path}' does not exist. Give a folder of images or a parquet file.")
    if root.is_file():
        check_dataset_name(path, "images")
        return _parquet_source(root, bands)
    files = image_files(root)
    if not files:
        raise InputError(f"No images in '{path}'.")
    return files_source(files, root, ("image",), np.zeros(len(files), dtype=np.int64), bands)


def _open(
    dataset: str, split: str, seed: int, bands: BandChoice | None, test_share: float
) -> ImageSource:
    """test_share: 0 for all images, whatever the split."""
    if dataset == "scenes":
        return scenes_source(split, seed)
    path = Path(dataset)
    if not path.exists():
        return _hub_source(dataset, split, seed, bands, test_share)
    parts = _split_paths(path) if path.is_dir() else {}
    if split in parts:
        # The classes are those of the train part, whichever part is read.
        classes = _open_path(parts.get("train", parts[split]), bands).class_names
        return _open_path(parts[split], bands).relabel(classes)
    source = _open_path(parts.get("train", path), bands)
    return _part(source, split, seed, test_share) if test_share else source


def _part(source: ImageSource, split: str, seed: int, test_share: float) -> ImageSource:
    rows = hold_out(source.labels, generator(seed, "hold-out"), test_share)[split]
    if not len(rows):  # of the test part, as each class keeps an image to train on
        raise InputError(
            "No class has more than one image, so none can be held out for the test. Use more "
            "images, or name test images with test-dataset."
        )
    return source.subset(rows)


def _split_paths(root: Path) -> dict[str, Path]:
    """The parts of a folder that are named after a split: folders or parquet files."""
    found = {}
    for split, names in SPLITS.items():
        folders = [root / name for name in names if (root / name).is_dir()]
        tables = [p for p in sorted(root.glob("*.parquet")) if any(n in p.stem for n in names)]
        if folders or tables:
            found[split] = (folders + tables)[0]
    return found if "train" in found else {}


def _open_path(path: Path, bands: BandChoice | None) -> ImageSource:
    return folder_source(path, bands) if path.is_dir() else _parquet_source(path, bands)


def hold_out(
    labels: NDArray[np.int64], rng: np.random.Generator, test_share: float = TEST_SHARE
) -> dict[str, NDArray[np.int64]]:
    """Split indices so that each class gives the same share (and at least one) to the test.

    A class always keeps an image to train on.
    """
    test = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        test[rows[: min(len(rows) - 1, max(1, round(len(rows) * test_share)))]] = True
    return {"train": np.flatnonzero(~test), "test": np.flatnonzero(test)}


def _parquet_source(path: Path, bands: BandChoice | None) -> ImageSource:
    signature = files_signature([path], path)
    table = _load_table("parquet", data_files=str(path))["train"]
    return _table_source(table, str(path), signature, bands)


def _hub_source(
    name: str, split: str, seed: int, bands: BandChoice | None, test_share: float
) -> ImageSource:
    parts = _load_table(name)
    available = next((part for part in SPLITS[split] if part in parts), None)
    if available:
        return _table_source(parts[available], name, f"{name} {available}", bands)
    source = _table_source(parts["train"], name, f"{name} train", bands)
    if not any(part in parts for part in SPLITS["test"]) or split == "test":
        return _part(source, split, seed, test_share or TEST_SHARE)
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


def _table_source(table: Any, name: str, signature: str, bands: BandChoice | None) -> ImageSource:
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
    plain = [key for key in table.features if key != column]
    # Arrow's own column: a row of `datasets` takes longer to make than one of these cells.
    encoded = table.flatten_indices().data.column(column)

    def cells() -> Iterator[tuple[str, Path | bytes]]:
        for i in range(len(table)):
            cell = encoded[i].as_py()
            yield f"{name}, row {i}", Path(cell["path"]) if cell["bytes"] is None else cell["bytes"]

    if bands is not None:
        check_first(cells(), name, bands)

    def load(i: int, min_px: int | None = None) -> tuple[Picture, int]:
        cell, row = encoded[i].as_py(), f"{name}, row {i}"
        data = cell["bytes"]
        if data is None:
            return load_file(Path(cell["path"]), min_px, bands)
        if bands is not None:
            return decode_bands(data, row, bands), len(data)
        return decode(data, row, min_px), len(data)

    digest = hashlib.sha256(f"{signature} {column} {label}".encode()).hexdigest()
    return ImageSource(
        class_names=tuple(table.features[label].names),
        labels=np.array(table[label], dtype=np.int64),
        load=load,
        signature=bands_signature(digest, bands),
        columns={key: np.array(table[key]) for key in plain},
        channels=3 if bands is None else bands.n_channels,
    )
