"""Chosen bands of a GeoTIFF as 8-bit channels, for cameras that see more than red, green and blue.

The values that become 0 and 255 are fixed in the configuration rather than drawn from each image:
the same ground must look the same to every node. rasterio, which reads the files, is an extra of
this package and is imported when the first raster is opened.
"""

import math
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

N_PROBED = 100


@dataclass(frozen=True)
class BandChoice:
    """Which bands of each raster are read, in this order, and how they become 8 bits.

    names: a band's description, in any case, or its number, counted from 1.
    value_range: the values that become 0 and 255; None where the rasters hold uint8 already.
    """

    names: tuple[str, ...]
    value_range: tuple[float, float] | None

    @property
    def n_channels(self) -> int:
        return len(self.names)

    def __str__(self) -> str:
        return ",".join(self.names)


def parse_bands(bands: str, band_range: str) -> BandChoice | None:
    """The choice that two texts describe, such as "B04,B03,B02,B08" and "0:10000".

    None where `bands` is empty: images are RGB then. Raises `InputError` for a malformed text.
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
            f"bands = '{bands}' is not possible: give names or numbers of bands with a comma "
            "between them, for example 'B04,B03,B02,B08' or '4,3,2,8'."
        )
    return BandChoice(names, parse_range("band-range", band_range))


def parse_range(key: str, text: str) -> tuple[float, float] | None:
    """The values that become 0 and 255, such as "0:10000"; None for an empty text.

    Raises `InputError`, which names the key, for anything else.
    """
    if not text.strip():
        return None
    try:
        low, high = (float(part) for part in text.split(":"))
    except ValueError:
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(
            f"{key} = '{text}' is not possible: give the values that become 0 and 255, "
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
    """A GeoTIFF, on disk or in memory, as a rasterio dataset."""
    require_rasterio()
    from rasterio.errors import NotGeoreferencedWarning
    from rasterio.io import MemoryFile

    # GeoTIFF alone: GDAL's other formats include some that read further files on their own.
    # Where an image lies is of no interest. For good: to undo it is not safe between threads.
    warnings.simplefilter("ignore", NotGeoreferencedWarning)
    if isinstance(file, bytes):
        with MemoryFile(file) as memory, memory.open(driver="GTiff") as dataset:
            yield dataset
    else:
        with require_rasterio().open(file, driver="GTiff") as dataset:
            yield dataset


def read_bands(file: Path | bytes, name: str, choice: BandChoice) -> NDArray[np.uint8]:
    """The chosen bands of a GeoTIFF: uint8 (H, W, C). No-data and NaN become 0.

    name: what messages call the file. Raises `InputError` where it has not the bands or where
    their values need a range; rasterio's and GDAL's own errors where it cannot be read.
    """
    with open_raster(file) as dataset:
        numbers = _band_numbers(dataset, name, choice)
        _require_range(dataset, name, choice, numbers)
        channels = [_as_bytes(dataset, number, choice.value_range) for number in numbers]
        outside = _outside(dataset, numbers)
    pixels = np.stack(channels).transpose(1, 2, 0)
    return pixels if outside is None else np.where(outside[..., None], np.uint8(0), pixels)


def read_mask(file: bytes) -> NDArray[np.bool_] | None:
    """Where the mask of a GeoTIFF says that there is no data: (H, W); None where it has none.

    Raises `InputError` where rasterio is not installed, and GDAL's errors.
    """
    with open_raster(file) as dataset:
        return _outside(dataset, list(range(1, dataset.count + 1)))


def check_first(files: Iterable[tuple[str, Path | bytes]], place: str, choice: BandChoice) -> None:
    """Raise `InputError` unless the first raster among (name, file) has the chosen bands.

    Later ones may still be refused one by one; but a choice that fits none is found at once.
    """
    require_rasterio()
    reason = ""
    for name, file in islice(files, N_PROBED):
        try:
            with open_raster(file) as dataset:
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
    """Where the chosen bands are in this file, counted from 1."""
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
    """Raise `InputError` where the values do not say by themselves what 0 and 255 are."""
    kind = np.dtype(dataset.dtypes[0])
    if kind.kind not in "iuf":
        raise InputError(
            f"'{name}' holds {kind} values, which are no brightness: give rasters of real numbers."
        )
    if choice.value_range is not None or kind == np.uint8:
        return
    values = np.concatenate([_valid(dataset, number).ravel() for number in set(numbers)])
    low, high = (values.min(), values.max()) if len(values) else (0, 0)
    raise InputError(
        f"'{name}' holds {kind} values (here from {low:g} to {high:g}), so band-range must say "
        "which become 0 and 255 in all images: for example "
        f"band-range = '{math.floor(low)}:{max(math.ceil(high), math.floor(low) + 1)}'."
    )


def _valid(dataset: Any, number: int) -> NDArray[Any]:
    """The values of a band that mean something: (n,)."""
    values = dataset.read(number)
    return np.asarray(values[~_no_data(values, dataset.nodatavals[number - 1])])


def _no_data(values: NDArray[Any], marker: float | None) -> NDArray[np.bool_]:
    # Not GDAL's own masks: it takes the fourth of four 8-bit bands for transparency.
    absent = ~np.isfinite(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
    return absent if marker is None else absent | (values == marker)


def _outside(dataset: Any, numbers: list[int]) -> NDArray[np.bool_] | None:
    """Where the file's mask, or its band of transparency, says that there is no data: (H, W).

    None where it has neither. A band that is chosen is data, whatever the file calls it: many write
    near infrared as the fourth of four bands, which GDAL then takes for transparency.
    """
    from rasterio.enums import ColorInterp, MaskFlags

    flags = dataset.mask_flag_enums[0]
    if MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags:
        return np.asarray(dataset.read_masks(1) == 0)
    alphas = [i for i, kind in enumerate(dataset.colorinterp, 1) if kind == ColorInterp.alpha]
    if alphas and alphas[0] not in numbers:
        return np.asarray(dataset.read(alphas[0]) == 0)
    return None


def _as_bytes(
    dataset: Any, number: int, value_range: tuple[float, float] | None
) -> NDArray[np.uint8]:
    """One band: uint8 (H, W)."""
    values = dataset.read(number)
    absent = _no_data(values, dataset.nodatavals[number - 1])
    if value_range is None:
        return np.where(absent, 0, values).astype(np.uint8)
    low, high = value_range
    scaled = (np.where(absent, low, values).astype(np.float64) - low) / (high - low) * 255
    return np.asarray(np.rint(scaled.clip(0, 255)), dtype=np.uint8)
