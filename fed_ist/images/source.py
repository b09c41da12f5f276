"""Labelled images that are read one at a time: where they come from and what they look like.

An `ImageSource` knows its labels and a signature of its content without decoding anything, so a
node can tell in milliseconds whether it has encoded these very images before.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from fed_ist.errors import require_choice
from fed_ist.images.bands import BandChoice
from fed_ist.images.decoding import Picture, UnreadableImageError
from fed_ist.images.memory import room
from fed_ist.prefetch import N_WORKERS, mapped

INTERPOLATIONS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}
CONTENT_BYTES = 16
AHEAD_BYTES = 10_000_000  # of squares that are ready before they are used


@dataclass(frozen=True)
class Reading:
    """How a data set is read.

    bands: what is read of each image, a GeoTIFF then; None for RGB. value_range: the values that
    become 0 and 255 in images of 16 bits; None where they use all 16. image_column, label_column:
    of a table; empty where it has one alone. columns: further ones that are wanted, by name. cache:
    a folder for what is to be found once; None for nowhere. run: the run's name, see `walk.walk`.
    seed: of `scenes`.
    """

    bands: BandChoice | None = None
    value_range: tuple[float, float] | None = None
    image_column: str = ""
    label_column: str = ""
    columns: tuple[str, ...] = ()
    cache: Path | None = None
    run: str = ""
    seed: int = 0

    @property
    def n_channels(self) -> int:
        """Channels of each image."""
        return self.bands.n_channels if self.bands else 3


def content_digest(data: bytes) -> bytes:
    """What tells an image from all others by its file: `CONTENT_BYTES` bytes."""
    return hashlib.sha256(data).digest()[:CONTENT_BYTES]


class Load(Protocol):
    """How one image is fetched: see `ImageSource.load`."""

    def __call__(self, i: int, min_px: int | None = None, /) -> tuple[Picture, int]: ...


class Read(Protocol):
    """How the bytes of one image are fetched: see `ImageSource.read`."""

    def __call__(self, i: int, n_bytes: int = -1, /) -> bytes: ...


@dataclass(frozen=True)
class ImageSource:
    """Images in a fixed order.

    labels: int64 (n,), indices into `class_names`; -1 for an image without a class, or one whose
        class has no name there.
    load: index -> (RGB image, or chosen bands as uint8 (H, W, C); size of its file in bytes, 0
        where it has no file). With `min_px`, an image may come smaller than it is, but with no side
        below `min_px`, where its format makes that cheap. Raises `UnreadableImageError`.
    signature: changes whenever the images, their order or their labels do.
    read: (index, how many bytes, -1 for all) -> the image's file as it is, or words that tell a
        drawn image from all others. Raises `UnreadableImageError`.
    name: index -> what to call an image: a path or a row, printable.
    columns: further per-image values by name, each (n,), for partitioning by a column.
    channels: how many each image has.
    """

    class_names: tuple[str, ...]
    labels: NDArray[np.int64]
    load: Load
    signature: str
    read: Read
    name: Callable[[int], str]
    columns: dict[str, NDArray[np.generic]] = field(default_factory=dict)
    channels: int = 3

    def __len__(self) -> int:
        return len(self.labels)

    def content(self, i: int) -> bytes:
        """A digest of the image's file, `CONTENT_BYTES` long: the same for identical images."""
        with room():
            return content_digest(self.read(i))

    def subset(self, indices: NDArray[np.int64]) -> "ImageSource":
        """The images at `indices`, in that order."""
        load, read, name = self.load, self.read, self.name
        digest = hashlib.sha256(self.signature.encode() + indices.astype("<i8").tobytes())
        return replace(
            self,
            labels=self.labels[indices],
            load=lambda i, min_px=None: load(int(indices[i]), min_px),
            read=lambda i, n_bytes=-1: read(int(indices[i]), n_bytes),
            name=lambda i: name(int(indices[i])),
            signature=digest.hexdigest(),
            columns={name: values[indices] for name, values in self.columns.items()},
        )

    def relabel(self, class_names: Sequence[str]) -> "ImageSource":
        """The same images with labels counted in `class_names`; -1 where a class is not there."""
        if tuple(class_names) == self.class_names:
            return self
        position = {name: i for i, name in enumerate(class_names)}
        table = np.array([position.get(name, -1) for name in self.class_names], dtype=np.int64)
        labels = np.where(self.labels < 0, -1, table[self.labels]) if len(table) else self.labels
        digest = hashlib.sha256("\0".join([self.signature, *class_names]).encode()).hexdigest()
        return replace(
            self, class_names=tuple(class_names), labels=labels.astype(np.int64), signature=digest
        )


def square(picture: Picture, img_px: int, interpolation: str = "bicubic") -> NDArray[np.uint8]:
    """The centred square of a picture, scaled: uint8 (img_px, img_px, C)."""
    require_choice("interpolation", interpolation, INTERPOLATIONS)
    if isinstance(picture, np.ndarray):
        bands = [Image.fromarray(picture[:, :, c]) for c in range(picture.shape[2])]
        return np.concatenate([square(band, img_px, interpolation) for band in bands], axis=2)
    fitted = ImageOps.fit(picture, (img_px, img_px), method=INTERPOLATIONS[interpolation])
    return np.asarray(fitted, dtype=np.uint8).reshape(img_px, img_px, -1)


def squares(
    source: ImageSource,
    img_px: int,
    on_skip: Callable[[str], None],
    interpolation: str = "bicubic",
) -> Iterator[tuple[int, NDArray[np.uint8], int]]:
    """Each readable image as (index, pixels (img_px, img_px, C), bytes of its file).

    Where its format makes that cheap, an image is decoded no larger than the wanted side asks for.
    On AID that costs no accuracy: a linear probe gives 79.5% for 79.7%, 75.8% for 75.8% with half
    of the patches. One that cannot be decoded is passed over, and `on_skip` is called with the
    reason.
    """

    def prepare(i: int) -> tuple[NDArray[np.uint8], int] | UnreadableImageError:
        try:
            with room():
                picture, file_bytes = source.load(i, img_px)
                return square(picture, img_px, interpolation), file_bytes
        except UnreadableImageError as reason:
            return reason

    n_ahead = max(N_WORKERS, min(64, AHEAD_BYTES // (img_px**2 * source.channels)))
    for i, found in enumerate(mapped(prepare, range(len(source)), n_ahead)):
        if isinstance(found, UnreadableImageError):
            on_skip(str(found))
        else:
            yield i, *found
