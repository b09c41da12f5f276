"""Images that are in memory already, as a source like any other."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fed_ist.errors import InputError
from fed_ist.images.decoding import RGB, Picture
from fed_ist.images.source import NO_CLASSES, ImageSource

SIDES = 2  # of an array's axes, the first


def array_source(images: Sequence[NDArray[np.uint8] | Image.Image]) -> ImageSource:
    """Images as a source, all of one class.

    images: each uint8 (height, width, 3), or (height, width) for grey, or a PIL image; or all of
    them as one array with an axis more. Raises `InputError` for other shapes and types.
    """
    pictures = [_picture(i, image) for i, image in enumerate(images)]
    if not pictures:
        raise InputError("There are no images.")
    contents = [f"{picture.size}".encode() + picture.tobytes() for picture in pictures]

    def load(i: int, min_px: int | None = None) -> tuple[Picture, int]:
        return pictures[i], 0

    def read(i: int, n_bytes: int = -1) -> bytes:
        return contents[i] if n_bytes < 0 else contents[i][:n_bytes]

    digest = hashlib.sha256()
    for content in contents:
        digest.update(hashlib.sha256(content).digest())
    return ImageSource(
        class_names=NO_CLASSES,
        labels=np.zeros(len(pictures), dtype=np.int64),
        load=load,
        signature=digest.hexdigest(),
        read=read,
        name=lambda i: f"image {i}",
    )


def _picture(i: int, image: NDArray[np.uint8] | Image.Image) -> Image.Image:
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    array = np.asarray(image)
    is_image = array.ndim >= SIDES and array.shape[SIDES:] in ((), (RGB,)) and array.size
    if array.dtype != np.uint8 or not is_image:
        raise InputError(
            f"Image {i} is {array.dtype} {array.shape}. Give arrays of uint8, (height, width, 3) "
            "or (height, width), or PIL images."
        )
    return Image.fromarray(array).convert("RGB")
