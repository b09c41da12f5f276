"""Boxes of an image, and the crops that they cut out of it."""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fed_ist.images.decoding import RGB, Picture

Box = tuple[float, float, float, float]  # left, top, right, bottom, as shares of a square's side
Boxes = NDArray[np.float64]  # (n, 4)
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


def random_box(rng: np.random.Generator, min_area: float) -> Box:
    """A box with at least min_area of the square, but for what its sides would stick out."""
    area = rng.uniform(min_area, 1)
    aspect = math.exp(rng.uniform(-1, 1) * math.log(4 / 3))
    width, height = min(1.0, math.sqrt(area * aspect)), min(1.0, math.sqrt(area / aspect))
    left, top = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    return left, top, left + width, top + height


def crops_of(picture: Picture, boxes: Boxes, side_px: int) -> NDArray[np.uint8]:
    """Boxes of the largest centred square of a picture, scaled: uint8 (n, side_px, side_px, 3)."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    side = min(image.size)
    corner = np.array([(image.width - side) / 2, (image.height - side) / 2] * 2)
    cut = [
        image.resize((side_px, side_px), Image.Resampling.BICUBIC, box=tuple(corner + box * side))
        for box in boxes
    ]
    return np.stack([np.asarray(crop, dtype=np.uint8) for crop in cut]).reshape(
        len(boxes), side_px, side_px, RGB
    )
