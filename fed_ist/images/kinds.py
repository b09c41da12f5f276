"""The format of an image file, told by its first bytes rather than by its name.

Only the formats listed here are ever decoded. Pillow knows others, some of which start programs
(PostScript) or are previews inside other files; here they do not count as images.
"""

import struct
from contextlib import suppress
from dataclasses import dataclass

from PIL import Image, features

HEAD_BYTES = 64
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "AVIF", "HEIF", "JPEG2000")
USUAL_SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".heic", ".heif", ".jp2"),
    }
)
# Endings of files that are TIFFs by their content, but not pictures of their own: raw photographs,
# of which only a preview could be read, and overviews and masks that GDAL keeps for a raster.
OTHER_SUFFIXES = frozenset(
    {
        *(".cr2", ".nef", ".nrw", ".dng", ".arw", ".sr2", ".srf", ".orf", ".rw2", ".pef", ".srw"),
        *(".raf", ".3fr", ".iiq", ".kdc", ".dcr", ".erf", ".mef", ".mos", ".rwl", ".ovr", ".msk"),
    }
)
AVIF_BRANDS = (b"avif", b"avis")
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
TIFF_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)


def image_format(head: bytes) -> str:
    """The format of a file by its first `HEAD_BYTES`, one of `FORMATS`; empty for any other."""
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(TIFF_MARKS):
        return "TIFF"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if (
        head.startswith(b"BM")
        and len(head) >= 18
        and struct.unpack("<I", head[14:18])[0] in (BMP_HEADERS)
    ):
        return "BMP"
    if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace():
        return "PPM"
    if head.startswith((b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")):
        return "JPEG2000"
    if head[4:8] == b"ftyp":
        brands = [head[8:12], *(head[i : i + 4] for i in range(16, len(head) - 3, 4))]
        if any(brand in AVIF_BRANDS for brand in brands):
            return "AVIF"
        if any(brand in HEIF_BRANDS for brand in brands):
            return "HEIF"
    return ""


def why_unreadable(kind: str) -> str:
    """A sentence on what this installation lacks to read a format; empty where it lacks nothing."""
    if kind == "HEIF" and not _reads_heif():
        return "HEIC photographs need another package: pip install pillow-heif"
    if kind == "AVIF" and not features.check("avif"):
        return "this Pillow was built without AVIF: pip install --upgrade pillow"
    return ""


def _reads_heif() -> bool:
    """Whether Pillow reads HEIC, after loading its plugin where that is installed."""
    if "HEIF" not in Image.OPEN:
        with suppress(ImportError):
            from pillow_heif import register_heif_opener

            register_heif_opener()
    return "HEIF" in Image.OPEN


@dataclass(frozen=True)
class Depth:
    """How a file stores a pixel: the bits of each value, and the channels; 0 where unknown."""

    bits: int = 0
    channels: int = 0


def depth_of(head: bytes) -> Depth:
    """The depth that the header of a PNG or JPEG 2000 states; zeros for others and for cut ones."""
    kind = image_format(head)
    if kind == "PNG" and len(head) > 25:
        return Depth(head[24], {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(head[25], 0))
    if kind == "JPEG2000":
        box = head.find(b"ihdr")
        # In a file a box has it, in a bare stream the segment of sizes.
        n_at, bits_at = (box + 12, box + 14) if box >= 0 else (40, 42)
        if len(head) > bits_at:
            return Depth((head[bits_at] & 0x7F) + 1, int.from_bytes(head[n_at : n_at + 2], "big"))
    return Depth()
