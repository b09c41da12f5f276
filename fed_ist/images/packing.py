"""Packed masked images: the visible patches of many images in one file, and nothing else.

The file holds two pieces for each batch of images (see `fed_ist.files.chunks`). The first has
figures of each image: the size of its original file, its class, and its patch indices unless all
images have the same. The second has the patches. Each has a checksum, so that a file that was cut
short or damaged is refused.

Codecs: `raw` keeps the pixels; `jpeg` and `webp` compress the visible patches of an image, put
together as a small mosaic, so that masking saves bytes compared with compressed originals too.
"""

import io
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fed_ist.errors import InputError, require_choice
from fed_ist.files.chunks import ChunkFile, writing_chunks
from fed_ist.images.masks import Grid, Images, Indices

FORMAT = "fed-ist packed images 2"
FILE_BYTES, LABEL, INDEX, LENGTH = (np.dtype(code) for code in ("<i8", "<i4", "<u2", "<u4"))
QUALITY = 90
CODECS = ("raw", "jpeg", "webp")


def check_codec(codec: str, channels: int) -> None:
    """Raise `InputError` unless `codec` is known and can hold this number of channels."""
    require_choice("codec", codec, CODECS)
    if codec != "raw" and channels != 3:
        raise InputError(
            f"codec = '{codec}' holds three channels, and bands chooses {channels}: "
            "use codec = 'raw', or three bands."
        )


@dataclass(frozen=True)
class PackLayout:
    """How the patches of a packed file are to be read; the file itself holds this.

    n_source: the number of images in the source, including unreadable ones.
    shared_visible: the patch indices where all images have the same; None where they differ.
    channels: of each pixel. Files of early versions do not state it and have three.
    """

    grid: Grid
    patch_px: int
    n_visible: int
    codec: str
    n_source: int
    shared_visible: tuple[int, ...] | None = None
    channels: int = 3


@dataclass(frozen=True)
class PackedBatch:
    """The visible patches of N images.

    patches: uint8 (N, K, patch_px * patch_px * C), pixels row by row, channels last.
    visible: the patches' indices, int64 (N, K), or (K,) where all images have the same.
    labels: int64 (N,).
    """

    patches: NDArray[np.uint8]
    visible: Indices
    labels: NDArray[np.int64]


def patchify(images: Images, patch_px: int) -> NDArray[np.uint8]:
    """All patches of images, row by row: uint8 (N, patches, patch_px * patch_px * C).

    images: uint8 (N, H, W, C), with H and W multiples of patch_px.
    """
    n, height, width, channels = images.shape
    rows, cols = height // patch_px, width // patch_px
    grid = images.reshape(n, rows, patch_px, cols, patch_px, channels).transpose(0, 1, 3, 2, 4, 5)
    return grid.reshape(n, rows * cols, patch_px * patch_px * channels)


def unpatchify(patches: NDArray[np.uint8], grid: Grid, patch_px: int) -> Images:
    """The images of which `patchify` made these patches: uint8 (N, H, W, C).

    patches: uint8 (N, rows * cols, patch_px * patch_px * C). grid: (rows, cols).
    """
    n = len(patches)
    pixels = patches.reshape(n, *grid, patch_px, patch_px, -1).transpose(0, 1, 3, 2, 4, 5)
    return pixels.reshape(n, grid[0] * patch_px, grid[1] * patch_px, -1)


def take_visible(images: Images, patch_px: int, visible: Indices) -> NDArray[np.uint8]:
    """The visible patches of images: uint8 (N, K, patch_px * patch_px * C).

    images: uint8 (N, H, W, C). visible: int64 (N, K) or (K,).
    """
    patches = patchify(images, patch_px)
    if visible.ndim == 1:
        return patches[:, visible]
    return np.take_along_axis(patches, visible[:, :, None], axis=1)


def mosaic_grid(n_visible: int) -> Grid:
    """The (rows, cols) of a nearly square mosaic of K patches, in which a few cells may be blank.

    There are no blank cells where K has a divisor between half its square root and the root.
    """
    rows = math.isqrt(n_visible)
    exact = next((r for r in range(rows, max(1, rows // 2), -1) if n_visible % r == 0), rows)
    return exact, math.ceil(n_visible / exact)


def compress(patches: NDArray[np.uint8], patch_px: int, codec: str) -> bytes:
    """One image's visible patches, uint8 (K, P), as bytes."""
    if codec == "raw":
        return patches.tobytes()
    grid = mosaic_grid(len(patches))
    # Blank cells repeat the last patch: a flat colour would cost bits at its border.
    blanks = np.repeat(patches[-1:], grid[0] * grid[1] - len(patches), axis=0)
    mosaic = Image.fromarray(unpatchify(np.concatenate([patches, blanks])[None], grid, patch_px)[0])
    out = io.BytesIO()
    if codec == "jpeg":
        # Halved chroma works in blocks of 16 px, and would mix the colours of smaller patches.
        subsampling = 0 if patch_px % 16 else 2
        mosaic.save(out, "JPEG", quality=QUALITY, subsampling=subsampling, optimize=True)
    else:
        mosaic.save(out, "WEBP", quality=QUALITY, method=4)
    return out.getvalue()


def decompress(data: memoryview, n_visible: int, patch_px: int) -> NDArray[np.uint8]:
    """The patches that `compress` was given, up to the codec's losses: uint8 (K, P).

    data: of codec `jpeg` or `webp`. n_visible: K. P is patch_px * patch_px * 3.
    """
    mosaic = np.asarray(Image.open(io.BytesIO(data), formats=["JPEG", "WEBP"]).convert("RGB"))
    return patchify(mosaic[None], patch_px)[0, :n_visible]


def write_packed(
    path: Path,
    layout: PackLayout,
    batches: Iterable[tuple[Images, Indices, NDArray[np.int64], NDArray[np.int64]]],
    key: str = "",
) -> Iterator[PackedBatch]:
    """Write batches of images to a packed file, and yield each as reading the file would.

    batches: images uint8 (N, H, W, C), visible int64 (N, K) or (K,), labels int64 (N,), and the
    size of each original file in bytes, int64 (N,). A mask that all images share is taken from
    `layout`, not from the batches.
    key: names what the file was made of; `PackedImages` compares it.
    A batch can be encoded while the next is packed. The file is at `path`, whole, once all batches
    are taken. Raises `InputError` where there is no batch.
    """
    n_rows: list[int] = []
    original_bytes = 0
    with writing_chunks(path) as chunks:
        for images, visible, labels, file_bytes in batches:
            patches = take_visible(images, layout.patch_px, visible)
            known = [file_bytes.astype(FILE_BYTES), labels.astype(LABEL)]
            if layout.shared_visible is None:
                known.append(visible.astype(INDEX))
            if layout.codec == "raw":
                data: Any = np.ascontiguousarray(patches)
            else:
                files = [compress(p, layout.patch_px, layout.codec) for p in patches]
                known.append(np.array([len(file) for file in files], LENGTH))
                data = b"".join(files)
                patches = _decompress_all(data, known[-1], layout)
            chunks.add(b"".join(values.tobytes() for values in known))
            chunks.add(data)
            n_rows.append(len(images))
            original_bytes += int(file_bytes.sum())
            yield PackedBatch(patches, visible, labels)
        if not n_rows:
            raise InputError("None of the images could be read, so there is nothing to pack.")
        chunks.head = {
            "format": FORMAT,
            "key": key,
            "layout": asdict(layout),
            "rows": n_rows,
            "original_bytes": original_bytes,
        }


class PackedImages:
    """A packed file, opened for reading; only the batch at hand is brought into memory.

    original_bytes: of the image files that were packed; 0 where the images had no file.
    """

    def __init__(self, path: Path, key: str = "") -> None:
        """Open a file; `key` is the one that `write_packed` was given, or empty for any.

        Raises `InputError` where the file is absent, cut short, of another kind or of another key.
        """
        self.path = path
        try:
            self._chunks = ChunkFile(path, "packed-image file", "Pack the images again.")
        except FileNotFoundError:
            raise InputError(f"There is no packed file '{path}'.") from None
        head = self._chunks.head
        if head.get("format") != FORMAT:
            raise self._chunks.damaged("it is of another kind or version")
        if key and head["key"] != key:
            raise self._chunks.damaged("it is of other images")
        fields = head["layout"]
        shared = fields["shared_visible"]
        self.layout = PackLayout(
            **{
                **fields,
                "grid": tuple(fields["grid"]),
                "shared_visible": None if shared is None else tuple(shared),
            }
        )
        self._n_rows: list[int] = head["rows"]
        self.n_images = sum(self._n_rows)
        self.original_bytes: int = head["original_bytes"]

    def __len__(self) -> int:
        """The number of batches."""
        return len(self._n_rows)

    @property
    def n_skipped(self) -> int:
        """The number of images of the source that could not be read."""
        return int(self.layout.n_source - self.n_images)

    @property
    def raw_bytes(self) -> int:
        """The bytes of all pixels of the images at the encoder's input size, uncompressed."""
        rows, cols = self.layout.grid
        n_pixels = self.n_images * rows * cols * self.layout.patch_px**2
        return int(n_pixels * self.layout.channels)

    def batches(self) -> Iterator[PackedBatch]:
        """All images, in the order and the batches in which they were written.

        Raises `DamagedError` at the first batch whose checksum does not fit.
        """
        layout = self.layout
        for i, n in enumerate(self._n_rows):
            known, data = self._chunks.read(2 * i), self._chunks.read(2 * i + 1)
            at = n * FILE_BYTES.itemsize
            labels = np.frombuffer(known, LABEL, n, at).astype(np.int64)
            at += n * LABEL.itemsize
            if layout.shared_visible is not None:
                visible = np.array(layout.shared_visible, dtype=np.int64)
            else:
                flat = np.frombuffer(known, INDEX, n * layout.n_visible, at)
                visible = flat.reshape(n, layout.n_visible).astype(np.int64)
                at += flat.nbytes
            if layout.codec == "raw":
                patches = np.frombuffer(data, np.uint8).reshape(n, layout.n_visible, -1)
            else:
                patches = _decompress_all(data, np.frombuffer(known, LENGTH, n, at), layout)
            yield PackedBatch(patches, visible, labels)


def _decompress_all(
    data: bytes, lengths: NDArray[np.uint32], layout: PackLayout
) -> NDArray[np.uint8]:
    """The patches of compressed images whose bytes follow each other: uint8 (N, K, P)."""
    ends = np.cumsum(lengths, dtype=np.int64)
    files = (memoryview(data)[end - n : end] for end, n in zip(ends, lengths, strict=True))
    return np.stack([decompress(file, layout.n_visible, layout.patch_px) for file in files])
