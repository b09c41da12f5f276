"""Labelled images that are read one at a time: where they come from and what they look like.

An `ImageSource` knows its labels and a signature of its content without decoding anything, so a
node can tell in milliseconds whether it has encoded these very images before.
"""

import hashlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from fed_ist.errors import InputError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})


class UnreadableImageError(Exception):
    """One image that cannot be decoded; callers skip it and count it."""


@dataclass(frozen=True)
class ImageSource:
    """Images in a fixed order.

    labels: int64 (n,), indices into `class_names`; -1 for a class that has no name there.
    load: index -> (RGB image, size of its file in bytes; 0 where it has no file).
        Raises `UnreadableImageError`.
    signature: changes whenever the images, their order or their labels do.
    columns: further per-image values by name, each (n,), for partitioning by a column.
    """

    class_names: tuple[str, ...]
    labels: NDArray[np.int64]
    load: Callable[[int], tuple[Image.Image, int]]
    signature: str
    columns: dict[str, NDArray[np.generic]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: NDArray[np.int64]) -> "ImageSource":
        """The images at `indices`, in that order."""
        load = self.load
        digest = hashlib.sha256(self.signature.encode() + indices.astype("<i8").tobytes())
        return replace(
            self,
            labels=self.labels[indices],
            load=lambda i: load(int(indices[i])),
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


def decode(data: bytes, name: str) -> Image.Image:
    """An upright RGB image from the bytes of a file; raises `UnreadableImageError`."""
    try:
        image = Image.open(io.BytesIO(data))
        return ImageOps.exif_transpose(image).convert("RGB")
    except UnidentifiedImageError as error:
        raise UnreadableImageError(f"{name}: it is not an image") from error
    except Exception as error:  # Pillow's decoders raise many kinds on damaged files
        raise UnreadableImageError(f"{name}: {error}") from error


def square(image: Image.Image, img_px: int) -> NDArray[np.uint8]:
    """The centred square of an image, scaled: uint8 (img_px, img_px, 3)."""
    fitted = ImageOps.fit(image, (img_px, img_px), method=Image.Resampling.BICUBIC)
    return np.asarray(fitted, dtype=np.uint8)


def image_files(root: Path) -> list[Path]:
    """All image files under a folder, or the file itself, in a stable order."""
    if root.is_file():
        return [root]
    found: list[Path] = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            Path(folder, name)
            for name in sorted(names)
            if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")
        ]
    return found


def folder_source(root: Path) -> ImageSource:
    """Images laid out as `root/<class>/<image>`; classes in alphabetical order."""
    files = image_files(root)
    if not files:
        raise InputError(
            f"No images in '{root}'. Expected {root}/<class>/<image> with one of the endings "
            f"{', '.join(sorted(IMAGE_SUFFIXES))}."
        )
    classes = [path.relative_to(root).parts[0] for path in files]
    if any(len(path.relative_to(root).parts) < 2 for path in files):
        raise InputError(
            f"Images lie directly in '{root}', so they have no class. "
            f"Move each into a folder named after its class: {root}/<class>/<image>."
        )
    class_names = tuple(sorted(set(classes)))
    position = {name: i for i, name in enumerate(class_names)}

    def load(i: int) -> tuple[Image.Image, int]:
        return load_file(files[i])

    return ImageSource(
        class_names=class_names,
        labels=np.array([position[name] for name in classes], dtype=np.int64),
        load=load,
        signature=files_signature(files, root),
    )


def load_file(path: Path) -> tuple[Image.Image, int]:
    """One image file: (RGB image, bytes on disk); raises `UnreadableImageError`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UnreadableImageError(f"{path}: {error}") from error
    return decode(data, str(path)), len(data)


def files_signature(files: Sequence[Path], root: Path) -> str:
    """A digest of the files' names, sizes and times of change: no file is opened."""
    digest = hashlib.sha256()
    for path in files:
        stat = path.stat()
        name = path.relative_to(root).as_posix() if path != root else path.name
        digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def squares(
    source: ImageSource, img_px: int, on_skip: Callable[[str], None]
) -> Iterator[tuple[int, NDArray[np.uint8], int]]:
    """Each readable image as (index, pixels (img_px, img_px, 3), bytes of its file).

    An image that cannot be decoded is passed over, and `on_skip` is called with the reason.
    """
    for i in range(len(source)):
        try:
            image, file_bytes = source.load(i)
        except UnreadableImageError as reason:
            on_skip(str(reason))
            continue
        yield i, square(image, img_px), file_bytes
