"""Chosen bands of a GeoTIFF as 8-bit channels, for cameras that see more than red, green and blue.

The values that become 0 and 255 are fixed in the configuration rather than taken from each image:
the same ground must look the same to every node. rasterio, which reads the files, is an optional
dependency of this package and is imported when the first raster is opened.
"""

import math
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fed_ist.errors import InputError
from fed_ist.files.regular import open_regular
from fed_ist.images.memory import room, take
from fed_ist.images.needs import pages_need
from fed_ist.images.tiff_pages import read_pages

N_PROBED = 100
GDAL_CACHE_BYTES = 32_000_000
GDAL_OPTIONS = {"GDAL_CACHEMAX": GDAL_CACHE_BYTES, "GDAL_PAM_ENABLED": "NO"}
VALUES_AT_A_TIME = 500_000


@dataclass(frozen=True)
class BandChoice:
    """Which bands of each raster are read, in this order, and how they become 8 bits.

    names: of each band its description, in upper or lower case, or its number, counted from 1.
    value_range: the values that become 0 and 255; None where the rasters hold uint8 already.
    """

    names: tuple[str, ...]
    value_range: tuple[float, float] | None

    @property
    def n_channels(self) -> int:
        """The number of chosen bands."""
        return len(self.names)

    def __str__(self) -> str:
        return ",".join(self.names)


def parse_bands(bands: str, band_range: str) -> BandChoice | None:
    """The choice that two texts describe, such as "B04,B03,B02,B08" and "0:10000".

    Returns None where `bands` is empty: images are then RGB. Raises `InputError` for a malformed
    text.
    """
    if not bands.strip():
        if band_range.strip():
            raise InputError(
                f"band-range = '{band_range}' is of no use without bands: say which, "
                "for example bands = '4,3,2', or leave band-range empty."
            )
        return None
    names = tuple(name.strip() for name in bands.split(","))
    if not all(names):
        raise InputError(
            f"bands = {bands!r} is not possible: give names or numbers of bands with a comma "
            "between them, for example 'B04,B03,B02,B08' or '4,3,2,8'."
        )
    return BandChoice(names, parse_range("band-range", band_range))


def parse_range(key: str, text: str) -> tuple[float, float] | None:
    """The values that become 0 and 255, from a text such as "0:10000"; None for an empty text.

    key: what the message calls the text. Raises `InputError` for anything else.
    """
    if not text.strip():
        return None
    try:
        low, high = (float(number) for number in text.split(":"))
    except ValueError:
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(
            f"{key} = {text!r} is not possible: give the values that become 0 and 255, "
            "the smaller one first, for example '0:10000'."
        )
    return low, high


def require_rasterio() -> Any:
    """The module rasterio; raises `InputError` where it is not installed."""
    try:
        import rasterio
    except ImportError:
        raise InputError(
            "bands are read by rasterio, which is not installed: pip install 'fed-ist[geo]'."
        ) from None
    return rasterio


@contextmanager
def open_raster(file: Path | bytes) -> Iterator[Any]:
    """A GeoTIFF, on disk or in memory, as a rasterio dataset; to be called within a `room`.

    Raises `ValueError` and `TooLargeError` where opening it would take too much memory, `OSError`
    for what is no regular file, `InputError` where rasterio is not installed.
    """
    require_rasterio()
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning
    from rasterio.io import MemoryFile

    # GeoTIFF alone: some of GDAL's other formats read further files on their own. The warning about
    # a missing location is switched off for good, as switching it on again is not thread-safe.
    warnings.simplefilter("ignore", NotGeoreferencedWarning)
    data = file if isinstance(file, bytes) else _read_whole(file)
    with rasterio.Env(**GDAL_OPTIONS):
        take(pages_need(read_pages(data)), "it")
        # From memory: next to a file on disk, GDAL would open others in any of its formats.
        with MemoryFile(data) as memory, memory.open(driver="GTiff") as dataset:
            what = f"{dataset.count} bands of {dataset.width} x {dataset.height} pixels"
            take(min(GDAL_CACHE_BYTES, _whole_bytes(dataset)), what)
            yield dataset


def _read_whole(path: Path) -> bytes:
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        take(size, "the file")
        return file.read(size)


def _whole_bytes(dataset: Any) -> int:
    """The bytes of all bands of a raster in their own dtype."""
    itemsize = np.dtype(dataset.dtypes[0]).itemsize
    return int(dataset.width * dataset.height * dataset.count * itemsize)


def read_bands(file: Path | bytes, name: str, choice: BandChoice) -> NDArray[np.uint8]:
    """The chosen bands of a GeoTIFF: uint8 (H, W, C), in which no-data and NaN are 0.

    name: what messages call the file. Raises `InputError` where the file lacks a band or where its
    values need a range; rasterio's and GDAL's own errors where it cannot be read; `TooLargeError`
    where it would take too much memory.
    """
    with room(), open_raster(file) as dataset:
        numbers = _band_numbers(dataset, name, choice)
        _require_range(dataset, name, choice, numbers)
        height, width = dataset.shape
        what = f"{len(numbers)} bands of {width} x {height} pixels"
        take(width * height * (len(numbers) + 2) + rows_need(dataset), what)
        pixels = np.empty((height, width, len(numbers)), dtype=np.uint8)
        for rows, window in _windows(dataset):
            for k, number in enumerate(numbers):
                values = dataset.read(number, window=window)
                pixels[rows, :, k] = _as_bytes(
                    values, dataset.nodatavals[number - 1], choice.value_range
                )
        outside = _outside(dataset, numbers, mask_of_file(file))
    if outside is not None:
        pixels[outside] = 0
    return pixels


def _windows(dataset: Any) -> Iterator[tuple[slice, Any]]:
    """A raster in strips of whole blocks of rows: (rows, window)."""
    from rasterio.windows import Window

    block = dataset.block_shapes[0][0]
    step = max(1, VALUES_AT_A_TIME // (block * dataset.width)) * block
    for top in range(0, dataset.height, step):
        n_rows = min(step, dataset.height - top)
        yield slice(top, top + n_rows), Window(0, top, dataset.width, n_rows)


def rows_need(dataset: Any) -> int:
    """The bytes of memory that one strip of rows takes while it is converted to 8 bits."""
    block = dataset.block_shapes[0][0]
    n_rows = min(dataset.height, max(block, VALUES_AT_A_TIME // dataset.width))
    return int(n_rows * dataset.width * (np.dtype(dataset.dtypes[0]).itemsize + 25))


def read_mask(file: bytes) -> NDArray[np.bool_] | None:
    """Where the mask inside a GeoTIFF says that there is no data: bool (H, W); None without a mask.

    To be called within a `room`. Raises `InputError` where rasterio is not installed, and GDAL's
    own errors.
    """
    with open_raster(file) as dataset:
        take(2 * dataset.width * dataset.height, "its mask")
        return _outside(dataset, list(range(1, dataset.count + 1)), None)


def mask_of_file(file: Path | bytes) -> NDArray[np.bool_] | None:
    """Where the mask file of a raster says that there is no data: bool (H, W).

    GDAL keeps such a mask in the same folder, under the raster's name with `.msk` added. Returns
    None where there is none, or where the raster is in memory.
    """
    if isinstance(file, bytes):
        return None
    mask_file = file.with_name(f"{file.name}.msk")
    if not mask_file.is_file():
        return None
    with open_raster(mask_file) as mask:
        if mask.dtypes[0] != "uint8":
            return None
        take(2 * mask.width * mask.height, "its mask")
        return np.asarray(mask.read(1) == 0)


def check_first(files: Iterable[tuple[str, Path | bytes]], place: str, choice: BandChoice) -> None:
    """Raise `InputError` unless the first raster among these files has the chosen bands.

    files: (name for messages, path or content). place: what messages call them together.
    Later rasters may still be refused one by one, but a choice that fits none is found at once.
    """
    require_rasterio()
    reason = ""
    for name, file in islice(files, N_PROBED):
        try:
            with room(), open_raster(file) as dataset:
                _require_range(dataset, name, choice, _band_numbers(dataset, name, choice))
            return
        except InputError:
            raise
        except Exception as error:  # damaged, or no GeoTIFF: GDAL raises several kinds
            reason = reason or f"{name}: {error}"
    raise InputError(
        f"bands = '{choice}' needs GeoTIFFs, and none of the first images of '{place}' is one "
        f"({reason}). Leave bands empty for ordinary images."
    )


def _band_numbers(dataset: Any, name: str, choice: BandChoice) -> list[int]:
    """The numbers of the chosen bands in this file, counted from 1."""
    described = [(text or "").strip().lower() for text in dataset.descriptions]
    numbers = []
    for wanted in choice.names:
        if wanted.isdecimal():
            found = [int(wanted)] if 1 <= int(wanted) <= dataset.count else []
        else:
            found = [i for i, text in enumerate(described, start=1) if text == wanted.lower()]
        if len(found) != 1:
            problem = "more than one" if found else "no"
            known = ", ".join(text for text in dataset.descriptions if text)
            names = f"named {known}" if known else "without names"
            raise InputError(
                f"'{name}' has {problem} band '{wanted}': it has {dataset.count} bands, {names}. "
                f"Choose bands by these names or by number, 1 to {dataset.count}."
            )
        numbers += found
    return numbers


def _require_range(dataset: Any, name: str, choice: BandChoice, numbers: list[int]) -> None:
    """Raise `InputError` where the values are not uint8 and no range says what 0 and 255 are."""
    kind = np.dtype(dataset.dtypes[0])
    if kind.kind not in "iuf":
        raise InputError(
            f"'{name}' holds {kind} values, which are no brightness: give rasters of real numbers."
        )
    if choice.value_range is not None or kind == np.uint8:
        return
    low, high = _extremes(dataset, numbers)
    raise InputError(
        f"'{name}' holds {kind} values (here from {low:g} to {high:g}), so band-range must say "
        "which become 0 and 255 in all images: for example "
        f"band-range = '{math.floor(low)}:{max(math.ceil(high), math.floor(low) + 1)}'."
    )


def _extremes(dataset: Any, numbers: list[int]) -> tuple[float, float]:
    """The smallest and the largest value that is not no-data; zeros where there is none."""
    take(rows_need(dataset), "it")
    found: list[float] = []
    for number in set(numbers):
        for _, window in _windows(dataset):
            values = dataset.read(number, window=window)
            valid = values[~_no_data(values, dataset.nodatavals[number - 1])]
            found += [valid.min(), valid.max()] if len(valid) else []
    return (min(found), max(found)) if found else (0, 0)


def _no_data(values: NDArray[Any], marker: float | None) -> NDArray[np.bool_]:
    # Not GDAL's own masks: it takes the fourth of four 8-bit bands for transparency.
    absent = ~np.isfinite(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
    return absent if marker is None else absent | (values == marker)


def _outside(
    dataset: Any, numbers: list[int], mask_from_file: NDArray[np.bool_] | None
) -> NDArray[np.bool_] | None:
    """Where a mask or a band of transparency says that there is no data: bool (H, W).

    mask_from_file: of `mask_of_file`. Returns None where there is neither mask nor transparency. A
    chosen band is data, whatever the file calls it: many programs write near infrared as the fourth
    of four bands, which GDAL takes for transparency.
    """
    from rasterio.enums import ColorInterp, MaskFlags

    flags = dataset.mask_flag_enums[0]
    if MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags:
        return np.asarray(dataset.read_masks(1) == 0)
    if mask_from_file is not None and mask_from_file.shape == dataset.shape:
        return mask_from_file
    alphas = [i for i, kind in enumerate(dataset.colorinterp, 1) if kind == ColorInterp.alpha]
    if alphas and alphas[0] not in numbers:
        return np.asarray(dataset.read(alphas[0]) == 0)
    return None


def _as_bytes(
    values: NDArray[Any], marker: float | None, value_range: tuple[float, float] | None
) -> NDArray[np.uint8]:
    """The values of one band as uint8 of the same shape."""
    absent = _no_data(values, marker)
    if value_range is None:
        return np.where(absent, 0, values).astype(np.uint8)
    low, high = value_range
    scaled = (np.where(absent, low, values).astype(np.float64) - low) / (high - low) * 255
    return np.asarray(np.rint(scaled.clip(0, 255)), dtype=np.uint8)
