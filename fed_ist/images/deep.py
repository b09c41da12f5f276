"""PNGs and JPEG 2000s of 16 bits a channel, of which Pillow alone would keep 8 bits."""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fed_ist.images.kinds import HEAD_BYTES, depth_of, image_format

Range = tuple[float, float]

FULL_RANGE = (0.0, 65535.0)
PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")


def is_deep(head: bytes) -> bool:
    """Whether a file has 16 bits a channel and does not say how many of them are used.

    head: its first `HEAD_BYTES`. A PNG of 12 bits has the same header as one of 16. Formats that do
    say it are scaled by it: a JPEG 2000 of 12 bits has 12 in its header.
    """
    return depth_of(head).bits == 16


def deep_need(image: Image.Image, head: bytes) -> int:
    """The bytes of memory that decoding a deep image takes until it has 8 bits, as measured."""
    return image.width * image.height * (8 + 5 * (depth_of(head).channels or 4))


def deep_values(data: bytes) -> NDArray[np.integer[Any]]:
    """The values of a PNG or JPEG 2000 of 16 bits: (H, W, channels), of an integer dtype.

    The last channel is the transparency, where there is one. Raises `ValueError` for a JPEG 2000 in
    colour.
    """
    kind, depth = image_format(data[:HEAD_BYTES]), depth_of(data[:HEAD_BYTES])
    if depth.channels == 1:
        with Image.open(io.BytesIO(data), formats=[kind]) as image:
            values = np.asarray(image)[..., None]
            marker = image.info.get("transparency")
        opaque = np.where(values == marker, 0, 65535) if isinstance(marker, int) else None
        return values if opaque is None else np.concatenate([values, opaque], axis=2)
    if kind != "PNG":
        raise ValueError("a JPEG 2000 of 16 bits in colour: save it as a PNG")
    # Pillow would keep only the upper 8 bits of each colour.
    import torch
    from torchvision.io import ImageReadMode, decode_png

    pixels = decode_png(
        torch.frombuffer(bytearray(_pixels_alone(data)), dtype=torch.uint8),
        ImageReadMode.UNCHANGED,
    )
    found: NDArray[np.integer[Any]] = pixels.permute(1, 2, 0).numpy()
    return found


def _pixels_alone(png: bytes) -> bytes:
    """A PNG without its texts and profiles, which may be small and unpack to gigabytes."""
    return png[:8] + b"".join(chunk for chunk in _chunks(png) if chunk[4:8] in PIXEL_CHUNKS)


def _chunks(png: bytes) -> Iterator[bytes]:
    at = 8
    while at < len(png):
        end = at + 12 + int.from_bytes(png[at : at + 4], "big")
        yield png[at:end]
        at = end


def count_colours(values: NDArray[np.integer[Any]]) -> int:
    """The number of channels without the transparency, of values (H, W, channels)."""
    n_channels = int(values.shape[2])
    return n_channels - (n_channels in (2, 4))


def as_8_bit(values: NDArray[np.integer[Any]], value_range: Range) -> Image.Image:
    """An RGB or RGBA image of 8 bits, in which the ends of `value_range` become 0 and 255.

    values: (H, W, channels), as `deep_values` gives them.
    """
    n_colours = count_colours(values)
    low, high = value_range
    # Rounded down, as by // 257 where the range is all of 16 bits.
    scaled = ((np.arange(65536, dtype=np.float64) - low) * 255 / (high - low)).clip(0, 255)
    table = np.floor(scaled + 1e-9).astype(np.uint8)
    colours = np.broadcast_to(table[values[:, :, :n_colours]], (*values.shape[:2], 3))
    image = Image.fromarray(np.ascontiguousarray(colours))
    if n_colours < values.shape[2]:
        image.putalpha(Image.fromarray((values[:, :, -1] // 257).astype(np.uint8)))
    return image
