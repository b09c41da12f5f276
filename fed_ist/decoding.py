"""One image file as pixels: upright, RGB or chosen bands, 8 bits a channel.

What a file says beside its pixels is heeded, in training and in `predict` alike: its orientation, a
palette, transparency (composed on black, as no data is 0 everywhere here), and in TIFFs the value
or the mask that marks no data.
"""

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from fed_ist.bands import BandChoice, read_bands, read_mask
from fed_ist.errors import InputError
from fed_ist.image_kinds import HEAD_BYTES, depth_of, image_format, why_unreadable
from fed_ist.printable import printable

Picture = Image.Image | NDArray[np.uint8]  # RGB, or chosen bands (H, W, C)
Range = tuple[float, float]

FULL_RANGE = (0.0, 65535.0)
BITS_TAG, NO_DATA_TAG = 258, 42113  # of TIFFs; the latter is GDAL's
# A large scene is no attack; one of more than twice as many pixels is refused all the same.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)


class UnreadableImageError(Exception):
    """One image that cannot be decoded; callers skip it and count it."""


def decode(
    data: bytes, name: str, min_px: int | None = None, value_range: Range | None = None
) -> Image.Image:
    """An upright RGB image from the bytes of a file; raises `UnreadableImageError`.

    min_px: the image may come reduced, but with no side below this. JPEG is then decoded at a half,
        a quarter or an eighth of its size, which skips most of the work on a large photograph.
    value_range: what becomes 0 and 255 of an image of 16 bits; None for all that 16 bits hold.
    """
    kind = image_format(data[:HEAD_BYTES])
    try:
        if not kind:
            raise UnreadableImageError(f"{name}: it is not an image")
        if reason := why_unreadable(kind):
            raise UnreadableImageError(f"{name}: {reason}")
        if is_deep(data[:HEAD_BYTES]):
            return _deep(data, value_range or FULL_RANGE)
        image: Image.Image = Image.open(io.BytesIO(data), formats=[kind])
        if min_px is not None:
            image.draft(None, (min_px, min_px))
        if kind == "TIFF" and tiff_bits(image) > 8:
            raise UnreadableImageError(f"{name}: {_more_than_rgb('its values are not 8 bits')}")
        absent = _absent(image, data) if kind == "TIFF" else None
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith("I"):  # of 16 bits, by formats that say how many of them are used
            image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
        image = _on_black(image)
        if absent is not None and absent.shape == image.size[::-1]:
            image.paste((0, 0, 0), mask=Image.fromarray(absent))
        return image
    except UnreadableImageError:
        raise
    except UnidentifiedImageError as error:
        reason = "it is damaged"
        if kind == "TIFF":
            reason = _more_than_rgb("it is no RGB image")
        raise UnreadableImageError(f"{name}: {reason}") from error
    except Exception as error:  # Pillow's decoders raise many kinds on damaged files
        raise UnreadableImageError(f"{name}: {error}") from error


def _more_than_rgb(problem: str) -> str:
    return f"{problem}. For a GeoTIFF, set bands, for example bands = '4,3,2'"


def _on_black(image: Image.Image) -> Image.Image:
    """RGB, with what is transparent black: under it, files keep any colour."""
    if image.has_transparency_data:
        whole = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "black"), whole).convert("RGB")
    if image.mode == "RGB":
        image.load()
        return image
    return image.convert("RGB")


def _absent(image: Any, data: bytes) -> NDArray[np.bool_] | None:
    """Where a TIFF of 8 bits has no data, by GDAL's tag or by its mask; None if it says nothing.

    Raises `InputError` where it takes rasterio to know, which is not installed.
    """
    try:
        _ = image.n_frames  # which looks at all pages
    except SyntaxError:  # one that Pillow does not know, as a mask is
        image.seek(0)
        return read_mask(data)
    marker = image.tag_v2.get(NO_DATA_TAG)
    if marker is None or image.mode not in ("1", "L", "P", "RGB", "RGBA"):
        return None
    values = np.asarray(image).reshape(image.height, image.width, -1)[:, :, :3]
    return np.asarray((values == float(str(marker).strip("\0 "))).all(axis=2))


def is_deep(head: bytes) -> bool:
    """Whether a file, by its first bytes, has 16 bits a channel without saying how many of these
    are used: a PNG of 12 bits has the same header. (Formats that say so are scaled by it: a JPEG
    2000 of 12 bits has 12 in its header.)
    """
    return depth_of(head).bits == 16


def tiff_bits(image: Any) -> int:
    """The most bits that a channel of a TIFF has, as its tags say."""
    bits = image.tag_v2.get(BITS_TAG, (8,))
    return max(bits) if isinstance(bits, tuple) else int(bits)


def deep_values(data: bytes) -> NDArray[np.integer[Any]]:
    """The values of a PNG or JPEG 2000 of 16 bits, (H, W, channels), with transparency last where
    it has some. Raises `UnreadableImageError` for a JPEG 2000 in colour.
    """
    kind, depth = image_format(data[:HEAD_BYTES]), depth_of(data[:HEAD_BYTES])
    if depth.channels == 1:
        with Image.open(io.BytesIO(data), formats=[kind]) as image:
            values = np.asarray(image)[..., None]
            marker = image.info.get("transparency")
        opaque = np.where(values == marker, 0, 65535) if isinstance(marker, int) else None
        return values if opaque is None else np.concatenate([values, opaque], axis=2)
    if kind != "PNG":
        raise UnreadableImageError("a JPEG 2000 of 16 bits in colour: save it as a PNG")
    # Pillow keeps the upper 8 bits of each colour alone.
    import torch
    from torchvision.io import ImageReadMode, decode_png

    pixels = decode_png(
        torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.UNCHANGED
    )
    found: NDArray[np.integer[Any]] = pixels.permute(1, 2, 0).numpy()
    return found


def count_colours(values: NDArray[np.integer[Any]]) -> int:
    """Channels of `deep_values` without the transparency."""
    n_channels = int(values.shape[2])
    return n_channels - (n_channels in (2, 4))


def _deep(data: bytes, value_range: Range) -> Image.Image:
    """An image of 16 bits, with the values of `value_range` as 0 to 255."""
    values = deep_values(data)
    n_colours = count_colours(values)
    low, high = value_range
    # Rounded down, as by // 257 where the range is all of 16 bits.
    scaled = ((values[:, :, :n_colours].astype(np.float64) - low) * 255 / (high - low)).clip(0, 255)
    colours = np.broadcast_to(np.floor(scaled + 1e-9), (*values.shape[:2], 3)).astype(np.uint8)
    image = Image.fromarray(colours)
    if n_colours < values.shape[2]:
        image.putalpha(Image.fromarray((values[:, :, -1] // 257).astype(np.uint8)))
    with Image.open(io.BytesIO(data)) as original:
        orientation = original.getexif().get(0x0112)
    if orientation:
        image.getexif()[0x0112] = orientation
        ImageOps.exif_transpose(image, in_place=True)
    return _on_black(image)


def decode_bands(file: Path | bytes, name: str, bands: BandChoice) -> NDArray[np.uint8]:
    """Chosen bands of a GeoTIFF: uint8 (H, W, C); raises `UnreadableImageError`."""
    try:
        return read_bands(file, name, bands)
    except InputError as error:  # this one file is unlike the first, which `check_first` let pass
        raise UnreadableImageError(str(error)) from error
    except Exception as error:  # GDAL raises several kinds on damaged files
        raise UnreadableImageError(f"{name}: {error}") from error


def read_file(path: Path, n_bytes: int = -1) -> bytes:
    """The first bytes of a file, all for -1; raises `UnreadableImageError`."""
    try:
        with path.open("rb") as file:
            return file.read(n_bytes)
    except OSError as error:
        raise UnreadableImageError(f"{printable(path)}: {error.strerror}") from error


def load_file(
    path: Path,
    min_px: int | None = None,
    bands: BandChoice | None = None,
    value_range: Range | None = None,
) -> tuple[Picture, int]:
    """One image file: (picture, bytes on disk), as `ImageSource.load` describes them."""
    name = printable(path)
    if bands is not None:
        try:
            n_bytes = path.stat().st_size
        except OSError as error:
            raise UnreadableImageError(f"{name}: {error.strerror}") from error
        return decode_bands(path, name, bands), n_bytes
    data = read_file(path)
    return decode(data, name, min_px, value_range), len(data)
