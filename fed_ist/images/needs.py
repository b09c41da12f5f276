"""The memory that decoding an image takes, computed from its headers before any pixel is decoded.

The bytes for each pixel are the most that Pillow and its decoders were measured to take, see
`tests/datasets/test_files_that_bite.py`.
"""

import struct
from dataclasses import dataclass
from typing import Any

from fed_ist.images.tiff_pages import Page, read_pages

# Segments of a JPEG, chunks of a PNG, boxes of a JPEG 2000: honest files have thousands at most.
MOST_PIECES = 100_000
MOST_SCANS = 100  # of a JPEG: each takes as long as the whole image
MOST_JUNK = 100_000  # bytes between the segments of a JPEG, which Pillow reads one by one
BYTES_OF_MODE = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "LA": 4, "PA": 4}
# Further bytes for each pixel: canvases, other colour spaces, wavelets.
BYTES_OF_DECODER = {"WEBP": 24, "AVIF": 12, "HEIF": 16, "JPEG2000": 16, "GIF": 4}
BYTES_OF_TAG_VALUE = 400  # for a number in a tag of a TIFF, with the tile that it may describe
BYTES_OF_TILE, BYTES_OF_COMPONENT = 8000, 1200  # what OpenJPEG keeps of each tile


def opening_need(data: bytes, kind: str) -> int:
    """The bytes of memory that opening a file takes, without the file itself and its pixels.

    data: the file. kind: its format. Raises `ValueError` for what no honest file has; the message
    is a sentence about "it".
    """
    if kind == "JPEG":
        read_frame(data)
        if data.count(b"\xff\xda") > MOST_SCANS:
            raise ValueError(f"it has more than {MOST_SCANS} scans")
    elif kind == "PNG":
        _require_few_chunks(data)
    elif kind == "TIFF":
        return pages_need(read_pages(data))
    elif kind == "JPEG2000":
        return _tiles_need(data)
    return 0


def pixels_need(image: Any, kind: str, data: bytes, is_turned: bool) -> int:
    """The bytes of memory that decoding an open Pillow image to RGB takes.

    image: of a JPEG that is to be reduced, after `draft`. is_turned: whether its orientation asks
    for a turn or a reflection.
    """
    n_pixels = image.width * image.height
    own = BYTES_OF_MODE.get(image.mode, 4)
    then = max(own if is_turned else 0, 0 if image.mode == "RGB" else 4)
    total = n_pixels * (own + then + BYTES_OF_DECODER.get(kind, 0))
    if kind == "JPEG" and (frame := read_frame(data)).is_buffered:
        total += 2 * frame.n_samples  # the coefficients of the whole image, even if it is reduced
    return int(total)


def pages_need(pages: list[Page]) -> int:
    """The bytes of memory that opening a TIFF takes, with one block, compressed and decompressed.

    Raises `ValueError` where it has no pages.
    """
    if not pages:
        raise ValueError("it is damaged")
    used = [pages[0], *(page for page in pages if page.is_mask)]
    n_values = max(page.n_values for page in pages)
    return 2 * max(page.block_bytes for page in used) + BYTES_OF_TAG_VALUE * n_values


@dataclass(frozen=True)
class Frame:
    """What the frame header of a JPEG says.

    n_samples: values of all components, at their own resolutions.
    is_buffered: whether a decoder keeps all of them until the last scan is read.
    """

    n_samples: int
    is_buffered: bool


def read_frame(data: bytes) -> Frame:
    """The frame header of a JPEG; raises `ValueError` where there is none."""
    at, n_pieces, n_junk = 2, 0, 0
    n_samples = n_components = 0
    is_progressive = False
    while n_pieces < MOST_PIECES and n_junk < MOST_JUNK:
        n_pieces += 1
        mark = data.find(b"\xff", at)
        if mark < 0 or mark + 4 > len(data):
            break
        n_junk += mark - at
        kind = data[mark + 1]
        if kind in (0x00, 0xFF) or 0xD0 <= kind <= 0xD8 or kind == 0x01:  # without a length
            n_junk += 1
            at = mark + (1 if kind == 0xFF else 2)
            continue
        length = int.from_bytes(data[mark + 2 : mark + 4], "big")
        body = data[mark + 4 : mark + 2 + length]
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC) and len(body) > 5:
            height, width, n_components = struct.unpack_from(">HHB", body, 1)
            factors = [(f >> 4, f & 15) for f in body[7::3]]
            if len(factors) < n_components or not all(h and v for h, v in factors):
                break
            widest, highest = max(h for h, _ in factors), max(v for _, v in factors)
            share = sum(h * v for h, v in factors) / (widest * highest)
            n_samples = int((width + 8 * widest) * (height + 8 * highest) * share)
            is_progressive = kind in (0xC2, 0xC6, 0xCA, 0xCE)
        if kind == 0xDA and body:
            return Frame(n_samples, is_progressive or body[0] < n_components)
        at = mark + 2 + max(2, length)
    raise ValueError("it is damaged")


def _require_few_chunks(data: bytes) -> None:
    at = 8
    for _ in range(MOST_PIECES):
        if at + 8 > len(data):
            return
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    raise ValueError(f"it has more than {MOST_PIECES} chunks")


def _tiles_need(data: bytes) -> int:
    """The bytes of memory that a decoder takes for the tiles of a JPEG 2000, even if empty."""
    start = data.find(b"\xff\x4f\xff\x51", max(0, _stream_at(data)))
    head = data[start : start + 42]
    if start < 0 or len(head) < 42:
        raise ValueError("it is damaged")
    x1, y1, _, _, tile_w, tile_h, tile_x, tile_y, n_components = struct.unpack_from(">8IH", head, 8)
    if not tile_w or not tile_h or x1 < tile_x or y1 < tile_y:
        raise ValueError("it is damaged")
    n_tiles = -(-(x1 - tile_x) // tile_w) * -(-(y1 - tile_y) // tile_h)
    return int(n_tiles * (BYTES_OF_TILE + BYTES_OF_COMPONENT * n_components))


def _stream_at(data: bytes) -> int:
    """Where the box of the code stream begins; 0 for a bare stream."""
    at = 0
    for _ in range(MOST_PIECES):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if kind == b"jp2c" or data[at : at + 2] == b"\xff\x4f":
            return at
        if length == 1:
            length = int.from_bytes(data[at + 8 : at + 16], "big")
        if length < 8 or at + length >= len(data):
            break
        at += length
    raise ValueError("it is damaged")
