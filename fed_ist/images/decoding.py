"""One image file as pixels: upright, RGB or chosen bands, 8 bits a channel.

What a file says about its pixels is applied, in training and in `predict` alike: orientation, a
palette, transparency (composed on black, because no-data is 0 everywhere here), and in TIFFs the
value or the mask that marks no-data. The memory that an image needs is checked before it is
decoded, see `needs` and `memory`.
"""

import io
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from fed_ist.errors import InputError
from fed_ist.files.regular import open_regular
from fed_ist.images.bands import BandChoice, read_bands, read_mask
from fed_ist.images.deep import FULL_RANGE, Range, as_8_bit, deep_need, deep_values, is_deep
from fed_ist.images.kinds import HEAD_BYTES, image_format, why_unreadable
from fed_ist.images.memory import TooLargeError, room, take
from fed_ist.images.needs import opening_need, pixels_need
from fed_ist.printable import printable

Picture = Image.Image | NDArray[np.uint8]  # RGB, or chosen bands (H, W, C)
RGB = 3  # channels of an image whose bands are not chosen, and those that most encoders are for

BITS_TAG, NO_DATA_TAG, ORIENTATION_TAG = 258, 42113, 0x0112  # the second is GDAL's
ROWS_AT_A_TIME = 256
# Memory is checked by `images.memory`. Pillow itself refuses twice this number of pixels, which
# also limits the time that a JPEG takes that is decoded at a reduced size.
Image.MAX_IMAGE_PIXELS = MOST_PIXELS = 150_000_000
warnings.simplefilter("ignore", Image.DecompressionBombWarning)
PngImagePlugin.MAX_TEXT_MEMORY = 4_000_000  # bytes of all texts of a PNG, unpacked


class UnreadableImageError(Exception):
    """An image cannot be decoded: callers skip it and count it."""


def open_image(data: bytes, kind: str) -> Image.Image:
    """An image of which the header is read, but no pixel yet; to be called within a `room`.

    kind: its format; Pillow tries no other. Raises what Pillow's readers raise on damaged files,
    and `ValueError` and `TooLargeError` where opening it would take too much.
    """
    take(opening_need(data, kind), "it")
    try:
        return Image.open(io.BytesIO(data), formats=[kind])
    except Image.DecompressionBombError:
        most = 2 * MOST_PIXELS // 1_000_000
        raise TooLargeError(f"it has more than {most} million pixels. Save it smaller") from None


def decode(
    data: bytes, name: str, min_px: int | None = None, value_range: Range | None = None
) -> Image.Image:
    """An upright RGB image from the bytes of a file; raises `UnreadableImageError`.

    name: what messages call the image.
    min_px: the image may be reduced, with no side below this. A JPEG is then decoded at a half, a
        quarter or an eighth of its size, which saves most of the work on a large photograph.
    value_range: the values that become 0 and 255 in an image of 16 bits; None for 0 and 65535.
    """
    kind = image_format(data[:HEAD_BYTES])
    try:
        if not kind:
            raise UnreadableImageError(f"{name}: it is not an image")
        if reason := why_unreadable(kind):
            raise UnreadableImageError(f"{name}: {reason}")
        with room():
            return _decode(data, kind, name, min_px, value_range or FULL_RANGE)
    except UnreadableImageError:
        raise
    except UnidentifiedImageError as error:
        reason = "it is damaged"
        if kind == "TIFF":
            reason = _more_than_rgb("it is no RGB image")
        raise UnreadableImageError(f"{name}: {reason}") from error
    except Exception as error:  # Pillow's decoders raise many kinds on damaged files
        raise UnreadableImageError(f"{name}: {printable(error)}") from error


def _decode(data: bytes, kind: str, name: str, min_px: int | None, span: Range) -> Image.Image:
    image = open_image(data, kind)
    what = f"an image of {image.width} x {image.height} pixels"  # before it is reduced
    if is_deep(data[:HEAD_BYTES]):
        take(deep_need(image, data[:HEAD_BYTES]), what)
        deep = as_8_bit(deep_values(data), span)
        return _on_black(_upright(deep, _orientation(image)))
    if min_px is not None:
        image.draft(None, (min_px, min_px))
    if kind == "TIFF" and tiff_bits(image) > 8:
        raise UnreadableImageError(f"{name}: {_more_than_rgb('its values are not 8 bits')}")
    orientation = _orientation(image) if "exif" in image.info or kind == "TIFF" else 0
    take(pixels_need(image, kind, data, orientation > 1), what)
    absent = _absent(image, data) if kind == "TIFF" else None
    image.load()
    if not orientation and _orientation(image) > 1:  # a PNG may have it after its pixels
        take(4 * image.width * image.height, what)
    image = _upright(image, _orientation(image))
    if image.mode.startswith("I"):  # 16 bits, in formats that say how many of them are used
        image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    image = _on_black(image)
    if absent is not None and absent.shape == image.size[::-1]:
        image.paste((0, 0, 0), mask=Image.fromarray(absent))
    return image


def _orientation(image: Image.Image) -> int:
    """The orientation, 1 to 8 as EXIF numbers them; 0 where the file has none."""
    found = image.getexif().get(ORIENTATION_TAG)
    return found if isinstance(found, int) else 0


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    if orientation < 2:
        return image
    image.getexif()[ORIENTATION_TAG] = orientation
    ImageOps.exif_transpose(image, in_place=True)
    return image


def _more_than_rgb(problem: str) -> str:
    return f"{problem}. For a GeoTIFF, set bands, for example bands = '4,3,2'"


def _on_black(image: Image.Image) -> Image.Image:
    """The image as RGB, black where it is transparent, whatever colour the file has there."""
    if image.has_transparency_data:
        whole = Image.new("RGB", image.size)
        for box in _strips(image):
            strip = image.crop(box).convert("RGBA")
            black = Image.new("RGBA", strip.size, "black")
            whole.paste(Image.alpha_composite(black, strip).convert("RGB"), box)
        return whole
    if image.mode == "RGB":
        return image
    return image.convert("RGB")


def _strips(image: Image.Image) -> Iterator[tuple[int, int, int, int]]:
    """The boxes of strips of a few rows, which together are an image: each takes little memory."""
    for top in range(0, image.height, ROWS_AT_A_TIME):
        yield 0, top, image.width, min(top + ROWS_AT_A_TIME, image.height)


def _absent(image: Any, data: bytes) -> NDArray[np.bool_] | None:
    """Where a TIFF of 8 bits has no data, by GDAL's tag or by its mask: bool (H, W), or None.

    None stands for a file with neither. Raises `InputError` where rasterio is needed to tell and is
    not installed.
    """
    try:
        _ = image.n_frames  # looks at all pages
    except SyntaxError:  # a page that Pillow does not know, such as a mask
        image.seek(0)
        return read_mask(data)
    marker = image.tag_v2.get(NO_DATA_TAG)
    if marker is None or image.mode not in ("1", "L", "P", "RGB", "RGBA"):
        return None
    value = float(str(marker).strip("\0 "))
    strips = [np.asarray(image.crop(box)) for box in _strips(image)]
    found = [(s.reshape(*s.shape[:2], -1)[:, :, :3] == value).all(axis=2) for s in strips]
    return np.concatenate(found)


def tiff_bits(image: Any) -> int:
    """The largest number of bits of a channel of an open TIFF, as its tags say."""
    bits = image.tag_v2.get(BITS_TAG, (8,))
    return max(bits) if isinstance(bits, tuple) else int(bits)


def decode_bands(file: Path | bytes, name: str, bands: BandChoice) -> NDArray[np.uint8]:
    """Chosen bands of a GeoTIFF: uint8 (H, W, C).

    file: its path or content. name: what messages call it. Raises `UnreadableImageError`.
    """
    try:
        with room():
            return read_bands(file, name, bands)
    except InputError as error:  # the first file passed `check_first`, and this one is different
        raise UnreadableImageError(str(error)) from error
    except Exception as error:  # GDAL raises several kinds on damaged files
        raise UnreadableImageError(f"{name}: {printable(error)}") from error


def read_file(path: Path, n_bytes: int = -1) -> bytes:
    """The first `n_bytes` bytes of a file, or all for -1; raises `UnreadableImageError`.

    Within a `room`, they count as memory that the image takes.
    """
    try:
        with open_regular(path) as file, room():
            size = os.fstat(file.fileno()).st_size
            n_read = size if n_bytes < 0 else min(size, n_bytes)
            take(n_read, "the file")
            return file.read(n_read)
    except TooLargeError as error:
        raise UnreadableImageError(f"{printable(path)}: {error}") from error
    except OSError as error:
        raise UnreadableImageError(f"{printable(path)}: {error.strerror}") from error


def load_file(
    path: Path,
    min_px: int | None = None,
    bands: BandChoice | None = None,
    value_range: Range | None = None,
) -> tuple[Picture, int]:
    """One image file: (picture, bytes on disk).

    The picture is an RGB image, or with `bands` an array uint8 (H, W, C).
    min_px, value_range: see `decode`. Raises `UnreadableImageError`.
    """
    name = printable(path)
    if bands is not None:
        try:
            n_bytes = path.stat().st_size
        except OSError as error:
            raise UnreadableImageError(f"{name}: {error.strerror}") from error
        return decode_bands(path, name, bands), n_bytes
    with room():
        data = read_file(path)
        return decode(data, name, min_px, value_range), len(data)
