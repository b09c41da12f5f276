"""Reads the content digest, format and size of each image once, until the images change.

Only headers are decoded. The result is kept in the cache under the signature of the images.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import UnidentifiedImageError

from fed_ist.errors import InputError
from fed_ist.files.cache import digest, keep, recall
from fed_ist.images.decoding import UnreadableImageError, open_image, tiff_bits
from fed_ist.images.deep import count_colours, deep_need, deep_values, is_deep
from fed_ist.images.kinds import HEAD_BYTES, depth_of, image_format, why_unreadable
from fed_ist.images.memory import room, take
from fed_ist.images.source import CONTENT_BYTES, ImageSource, content_digest
from fed_ist.prefetch import mapped
from fed_ist.printable import printable

HALF_RANGE = 32768  # values below it use 15 of 16 bits at most
MOST_MEASURED = 200  # images that are decoded to find the range of their values
DRAWN = "drawn"  # the format of images without a file
RASTER = "GeoTIFF"  # the format of images that only rasterio can read
MODE_BITS = {"1": 1, "I": 32, "F": 32, "I;16": 16, "I;16B": 16, "I;16L": 16}


@dataclass(frozen=True)
class Header:
    """What the header of an image's file says.

    width, height: in pixels; channels; bits: of each value; 0 for what is unknown.
    problem: why the image cannot be read; empty if it can.
    """

    format: str = ""
    width: int = 0
    height: int = 0
    channels: int = 0
    bits: int = 0
    problem: str = ""


@dataclass(frozen=True)
class Scan:
    """What was read of each image of a source.

    contents: a digest of each, uint8 (n, CONTENT_BYTES); zeros where it could not be read.
    headers: of each image.
    """

    contents: NDArray[np.uint8]
    headers: tuple[Header, ...]

    def subset(self, indices: NDArray[np.int64]) -> "Scan":
        """The scan of the images at `indices`, int64 (k,)."""
        return Scan(self.contents[indices], tuple(self.headers[i] for i in indices))


def scan(source: ImageSource, cache: Path | None) -> Scan:
    """Read digests and headers of all images of a source, with a progress bar on a terminal.

    cache: a folder for the result; None to keep none.
    """
    place = cache / f"scan-{digest('scan 1', source.signature)}.json" if cache else None
    if place and (known := _read(place, len(source))):
        return known
    from tqdm import tqdm

    def look(i: int) -> tuple[bytes, Header]:
        try:
            with room():
                data = source.read(i)
                return content_digest(data), read_header(data, source.name(i))
        except UnreadableImageError as problem:
            return bytes(CONTENT_BYTES), Header(problem=str(problem))

    rows: list[tuple[bytes, Header]] = []
    bar = tqdm(total=len(source), desc="looking at the images", disable=None, leave=False)
    with bar:
        for row in mapped(look, range(len(source))):
            rows.append(row)
            bar.update()
    contents = np.frombuffer(b"".join(c for c, _ in rows), np.uint8).reshape(-1, CONTENT_BYTES)
    found = Scan(contents, tuple(header for _, header in rows))
    if place:
        keep(place, _write(found))
    return found


def read_header(data: bytes, name: str) -> Header:
    """The header of an image's file; `name` is what its `problem` calls the image."""
    head = data[:HEAD_BYTES]
    kind = image_format(head)
    if not kind:
        if data.startswith(b"scenes "):
            return Header(DRAWN, channels=3, bits=8)
        return Header(problem=f"{name}: it is not an image")
    if reason := why_unreadable(kind):
        return Header(kind, problem=f"{name}: {reason}")
    try:
        with room(), open_image(data, kind) as image:
            width, height = image.size
            channels, bits = len(image.getbands()), MODE_BITS.get(image.mode, 8)
            if kind in ("PNG", "JPEG2000"):
                depth = depth_of(head)
                channels, bits = depth.channels or channels, depth.bits or bits
            if kind == "TIFF":
                bits = tiff_bits(image)
            return Header(kind, width, height, channels, bits)
    except UnidentifiedImageError:
        if kind == "TIFF" and (raster := _raster_header(data)):
            return raster
        return Header(kind, problem=f"{name}: it is damaged, or no image that can be read here")
    except Exception as error:  # Pillow's readers raise many kinds on damaged files
        return Header(kind, problem=f"{name}: {printable(error)}")


def _raster_header(data: bytes) -> Header | None:
    """The header of a GeoTIFF that Pillow cannot read; None where rasterio cannot read it either.

    It is also None where rasterio is not installed.
    """
    with suppress(Exception):  # not installed, or GDAL does not know it either
        from fed_ist.images.bands import open_raster

        with open_raster(data) as raster:
            bits = 8 * np.dtype(raster.dtypes[0]).itemsize
            return Header(RASTER, raster.width, raster.height, raster.count, bits)
    return None


def require_readable(headers: Sequence[Header]) -> None:
    """Raise `InputError` where the headers say that no image can be read."""
    if headers and all(header.problem for header in headers):
        raise InputError(f"None of the images could be read. The first: {headers[0].problem}.")


def require_range(
    source: ImageSource,
    value_range: tuple[float, float] | None,
    deep: NDArray[np.int64] | None = None,
) -> str:
    """A sentence for the user on images of 16 bits; empty where there are none.

    value_range: the values that become 0 and 255; None where the user did not say.
    deep: the indices of such images, int64 (k,); None to find them by their first bytes.
    Raises `InputError` where such images use 15 bits or fewer and there is no value_range: images
    of 12 bits would be left with 15 of 256 greys.
    """
    if deep is None:
        deep = np.array([i for i in range(len(source)) if _is_deep(source, i)], dtype=np.int64)
    if not len(deep):
        return ""
    if value_range is not None:
        return f"{_many(len(deep))} of 16 bits, shown by value-range."
    some = deep[np.linspace(0, len(deep) - 1, min(len(deep), MOST_MEASURED)).astype(int)]
    low, high = 65535, 0
    for values in _measured(source, some):
        low, high = min(low, int(values.min())), max(high, int(values.max()))
        if high >= HALF_RANGE:
            return f"{_many(len(deep))} of 16 bits, shown with 0 to 65535 as 0 to 255."
    if low > high:  # none could be decoded
        return ""
    top = max(255, 2 ** int(high).bit_length() - 1)
    raise InputError(
        f"{_many(len(deep))} of 16 bits, such as '{source.name(int(deep[0]))}', but their "
        f"values go from {low} to {high} only (of {len(some)} looked at). Say which become 0 and "
        f"255 in all images: for example value-range = '0:{top}'."
    )


def _many(n: int) -> str:
    return "1 image is" if n == 1 else f"{n} images are"


def _is_deep(source: ImageSource, i: int) -> bool:
    try:
        return is_deep(source.read(i, HEAD_BYTES))
    except UnreadableImageError:
        return False


def _measured(source: ImageSource, some: NDArray[np.int64]) -> Iterator[NDArray[Any]]:
    for i in some:
        with suppress(Exception):  # damaged: skipped and counted later, when all are decoded
            yield _extremes(source, int(i))


def _extremes(source: ImageSource, i: int) -> NDArray[np.int64]:
    """The smallest and the largest value of an image of 16 bits, without its transparency."""
    with room():
        data = source.read(i)
        with open_image(data, image_format(data[:HEAD_BYTES])) as image:
            take(deep_need(image, data[:HEAD_BYTES]), "it")
        values = deep_values(data)
        colours = values[:, :, : count_colours(values)]
        return np.array([colours.min(), colours.max()], dtype=np.int64)


def _write(found: Scan) -> bytes:
    kinds: dict[Header, int] = {}
    index = [kinds.setdefault(header, len(kinds)) for header in found.headers]
    data = {
        "contents": found.contents.tobytes().hex(),
        "headers": [list(vars(header).values()) for header in kinds],
        "index": index,
    }
    return json.dumps(data).encode()


def _read(place: Path, n_images: int) -> Scan | None:
    kept = recall(place)
    if kept is None:
        return None
    try:
        data = json.loads(kept)
        contents = np.frombuffer(bytes.fromhex(data["contents"]), np.uint8)
        kinds = [Header(*values) for values in data["headers"]]
        headers = tuple(kinds[i] for i in data["index"])
    except (ValueError, KeyError, TypeError, IndexError):  # of another version
        return None
    if len(headers) != n_images or contents.size != n_images * CONTENT_BYTES:
        return None
    return Scan(contents.reshape(-1, CONTENT_BYTES), headers)
