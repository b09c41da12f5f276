"""Packed masked images: the visible patches of many images in one file, and nothing else.

The file is an Arrow IPC file (memory-mapped when read, written as a stream), one row an image:
`patches` holds the pixels, `visible` the patch indices (absent where one mask serves all), `label`
the class, `file_bytes` the size of the image file that the row stands for. Arrow's footer comes
last, so a file that was cut short is recognised; our own metadata tells a foreign file apart.

Codecs: `raw` keeps the pixels; `jpeg` and `webp` compress the visible patches of an image, tiled
into a small mosaic, so that masking saves bytes against compressed originals too.
"""

import io
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fed_ist.durable import part_of, put_in_place
from fed_ist.errors import InputError, require_choice
from fed_ist.masks import Grid, Images, Indices

if TYPE_CHECKING:  # a round over cached embeddings must not load it: a device waits for that
    import pyarrow as pa

FORMAT = "fed-ist packed images 1"
QUALITY = 90
CODECS = ("raw", "jpeg", "webp")


def check_codec(codec: str, channels: int) -> None:
    """Raise `InputError` unless `codec` is known and can hold so many channels."""
    require_choice("codec", codec, CODECS)
    if codec != "raw" and channels != 3:
        raise InputError(
            f"codec = '{codec}' holds three channels, and bands chooses {channels}: "
            "use codec = 'raw', or three bands."
        )


@dataclass(frozen=True)
class PackLayout:
    """How the patches of a packed file are to be read; travels in the file's own metadata.

    n_source: images that the source held, the unreadable ones included.
    shared_visible: the patch indices where one mask serves all images.
    channels: of each pixel. Files from before there were bands do not say, and have three.
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
    """patches: uint8 (N, K, patch_px * patch_px * C), pixels row by row, channels last.
    visible: int64 (N, K), or (K,) where one mask serves all images.
    labels: int64 (N,).
    """

    patches: NDArray[np.uint8]
    visible: Indices
    labels: NDArray[np.int64]


def patchify(images: Images, patch_px: int) -> NDArray[np.uint8]:
    """uint8 (N, H, W, C) -> (N, patches, patch_px * patch_px * C), patches in raster order."""
    n, height, width, channels = images.shape
    rows, cols = height // patch_px, width // patch_px
    grid = images.reshape(n, rows, patch_px, cols, patch_px, channels).transpose(0, 1, 3, 2, 4, 5)
    return grid.reshape(n, rows * cols, patch_px * patch_px * channels)


def unpatchify(patches: NDArray[np.uint8], grid: Grid, patch_px: int) -> Images:
    """The inverse of `patchify`."""
    n = len(patches)
    pixels = patches.reshape(n, *grid, patch_px, patch_px, -1).transpose(0, 1, 3, 2, 4, 5)
    return pixels.reshape(n, grid[0] * patch_px, grid[1] * patch_px, -1)


def take_visible(images: Images, patch_px: int, visible: Indices) -> NDArray[np.uint8]:
    """The visible patches: uint8 (N, K, patch_px * patch_px * C)."""
    patches = patchify(images, patch_px)
    if visible.ndim == 1:
        return patches[:, visible]
    return np.take_along_axis(patches, visible[:, :, None], axis=1)


def mosaic_grid(n_visible: int) -> Grid:
    """The most square (rows, cols) that tile just K patches, or K and a few blanks."""
    rows = math.isqrt(n_visible)
    exact = next((r for r in range(rows, max(1, rows // 2), -1) if n_visible % r == 0), rows)
    return exact, math.ceil(n_visible / exact)


def compress(patches: NDArray[np.uint8], patch_px: int, codec: str) -> bytes:
    """One image's visible patches, uint8 (K, P), as bytes."""
    if codec == "raw":
        return patches.tobytes()
    grid = mosaic_grid(len(patches))
    # The blanks repeat the last patch: a flat colour would cost bits at its border.
    blanks = np.repeat(patches[-1:], grid[0] * grid[1] - len(patches), axis=0)
    mosaic = Image.fromarray(unpatchify(np.concatenate([patches, blanks])[None], grid, patch_px)[0])
    out = io.BytesIO()
    if codec == "jpeg":
        # Halved chroma works in blocks of 16 px and would bleed from tile to tile in smaller ones.
        subsampling = 0 if patch_px % 16 else 2
        mosaic.save(out, "JPEG", quality=QUALITY, subsampling=subsampling, optimize=True)
    else:
        mosaic.save(out, "WEBP", quality=QUALITY, method=4)
    return out.getvalue()


def decompress(data: memoryview, n_visible: int, patch_px: int) -> NDArray[np.uint8]:
    """The inverse of `compress` for `jpeg` and `webp`, up to their losses: uint8 (K, P)."""
    mosaic = np.asarray(Image.open(io.BytesIO(data), formats=["JPEG", "WEBP"]).convert("RGB"))
    return patchify(mosaic[None], patch_px)[0, :n_visible]


def write_packed(
    path: Path,
    layout: PackLayout,
    batches: Iterable[tuple[Images, Indices, NDArray[np.int64], NDArray[np.int64]]],
) -> Iterator[PackedBatch]:
    """Write batches of (images, visible, labels, file_bytes) to `path`, atomically.

    Yields each batch as reading the file would, so that it can be encoded while the next is being
    packed; the file is there once all are taken. A mask shared by all images is taken from
    `layout`, not from the batches. Raises `InputError` where there is no batch at all.
    """
    import pyarrow as pa

    part = part_of(path)
    n_images = 0
    try:
        with pa.OSFile(str(part), "wb") as sink, pa.ipc.new_file(sink, _schema(layout)) as writer:
            for images, visible, labels, file_bytes in batches:
                patches = take_visible(images, layout.patch_px, visible)
                column = _encode_column(patches, layout)
                rows = [
                    column,
                    pa.array(labels, pa.int32()),
                    pa.array(file_bytes, pa.int64()),
                ]
                if layout.shared_visible is None:
                    flat = pa.array(visible.ravel(), pa.uint16())
                    rows.append(pa.FixedSizeListArray.from_arrays(flat, layout.n_visible))
                writer.write_batch(pa.record_batch(rows, schema=_schema(layout)))
                n_images += len(images)
                yield PackedBatch(_decode_column(column, layout), visible, labels)
        if n_images == 0:
            raise InputError("None of the images could be read, so there is nothing to pack.")
        put_in_place(part, path)
    finally:
        part.unlink(missing_ok=True)


def _schema(layout: PackLayout) -> "pa.Schema":
    import pyarrow as pa

    fields = [
        pa.field("patches", pa.binary()),
        pa.field("label", pa.int32()),
        pa.field("file_bytes", pa.int64()),
    ]
    if layout.shared_visible is None:
        fields.append(pa.field("visible", pa.list_(pa.uint16(), layout.n_visible)))
    return pa.schema(fields, metadata={FORMAT: json.dumps(asdict(layout))})


class PackedImages:
    """A packed file, opened for reading; only the batch at hand is brought into memory."""

    def __init__(self, path: Path) -> None:
        """Raises `InputError` where the file is absent, cut short, or not ours."""
        import pyarrow as pa

        self.path = path
        try:
            self._reader = pa.ipc.open_file(pa.memory_map(str(path)))
        except FileNotFoundError:
            raise InputError(f"There is no packed file '{path}'.") from None
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(
                f"'{path}' is cut short or is no packed-image file ({error}). "
                "Pack the images again."
            ) from None
        metadata = (self._reader.schema.metadata or {}).get(FORMAT.encode())
        if metadata is None:
            raise InputError(
                f"'{path}' was not written by this version of fed-ist. Pack the images again."
            )
        fields = json.loads(metadata)
        fields["grid"] = tuple(fields["grid"])
        if fields["shared_visible"] is not None:
            fields["shared_visible"] = tuple(fields["shared_visible"])
        self.layout = PackLayout(**fields)
        sizes = [self._reader.get_batch(i).num_rows for i in range(len(self))]
        self.n_images = sum(sizes)

    def __len__(self) -> int:
        """The number of batches."""
        return int(self._reader.num_record_batches)

    @property
    def n_skipped(self) -> int:
        """Images of the source that could not be read."""
        return int(self.layout.n_source - self.n_images)

    @property
    def original_bytes(self) -> int:
        """The image files that this file stands for; 0 where the images had no file."""
        return sum(
            int(self._reader.get_batch(i).column("file_bytes").to_numpy().sum())
            for i in range(len(self))
        )

    @property
    def raw_bytes(self) -> int:
        """The images' pixels at the encoder's input size, uncompressed."""
        rows, cols = self.layout.grid
        n_pixels = self.n_images * rows * cols * self.layout.patch_px**2
        return int(n_pixels * self.layout.channels)

    def batches(self) -> Iterator[PackedBatch]:
        """All images, in the order and the batches in which they were written."""
        layout = self.layout
        for i in range(len(self)):
            rows = self._reader.get_batch(i)
            patches = _decode_column(rows.column("patches"), layout)
            if layout.shared_visible is not None:
                visible = np.array(layout.shared_visible, dtype=np.int64)
            else:
                flat = rows.column("visible").flatten().to_numpy()
                visible = flat.reshape(-1, layout.n_visible).astype(np.int64)
            labels = rows.column("label").to_numpy().astype(np.int64)
            yield PackedBatch(patches, visible, labels)


def _encode_column(patches: NDArray[np.uint8], layout: PackLayout) -> "pa.Array":
    """uint8 (N, K, P) as the `patches` column; raw patches are taken as they lie, not copied."""
    import pyarrow as pa

    if layout.codec != "raw":
        return pa.array([compress(p, layout.patch_px, layout.codec) for p in patches], pa.binary())
    n, row_bytes = len(patches), patches[0].nbytes
    offsets = np.arange(n + 1, dtype=np.int32) * np.int32(row_bytes)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(patches))]
    return pa.Array.from_buffers(pa.binary(), n, buffers)


def _decode_column(column: "pa.Array", layout: PackLayout) -> NDArray[np.uint8]:
    """The `patches` column as uint8 (N, K, P); raw patches are viewed in place, not copied."""
    if layout.codec == "raw":
        _, offsets, data = column.buffers()
        start = np.frombuffer(offsets, dtype=np.int32)[column.offset]
        n_bytes = len(column) * layout.n_visible * layout.patch_px**2 * layout.channels
        pixels = np.frombuffer(data, dtype=np.uint8)[start : start + n_bytes]
        return pixels.reshape(len(column), layout.n_visible, -1)
    return np.stack(
        [
            decompress(memoryview(value.as_buffer()), layout.n_visible, layout.patch_px)
            for value in column
        ]
    )
