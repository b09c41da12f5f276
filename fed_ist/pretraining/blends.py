"""Blends: views made of two images, on which a teacher is asked like on any other.

A student that sees a few thousand images again and again learns by heart what the teacher says of
them. What it says of two images in one can be asked for as many pairs as there is time for, and the
student has to agree with it there too (Beyer et al. 2022, "Knowledge distillation: a good teacher
is patient and consistent", call it function matching).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fed_ist.pretraining.boxes import Box, random_box

LEAST_SHARE = 0.3  # of the first image in a blend that has two side by side
MOST_SHARE = 0.7


@dataclass(frozen=True)
class Blend:
    """How two views become one.

    box: of the first image. partner: index of the second. partner_box: of that. turns: of the
    second view, in quarters. axis: 0 for one above the other, 1 for side by side, None for one that
    shines through the other. share: of the first, in area or in brightness.
    """

    box: Box
    partner: int
    partner_box: Box
    turns: int
    axis: int | None
    share: float


def draw_blend(rng: np.random.Generator, n_images: int, min_area: float) -> Blend:
    """A blend with one of n_images: half of them shine through, half stand beside each other.

    min_area: of the boxes, as a share of an image's largest square.
    """
    box, partner_box = random_box(rng, min_area), random_box(rng, min_area)
    partner, turns = int(rng.integers(n_images)), int(rng.integers(4))
    if rng.random() < 0.5:
        axis, share = None, rng.uniform(0.5, 1)
    else:
        axis, share = int(rng.integers(2)), rng.uniform(LEAST_SHARE, MOST_SHARE)
    return Blend(box, partner, partner_box, turns, axis, share)


def blended(first: NDArray[np.uint8], second: NDArray[np.uint8], blend: Blend) -> NDArray[np.uint8]:
    """Two views in one: uint8 (side, side, C), as each of the two."""
    second = np.rot90(second, blend.turns)
    if blend.axis is None:
        mean = blend.share * first.astype(np.float32) + (1 - blend.share) * second
        return np.round(mean).astype(np.uint8)
    border = round(blend.share * first.shape[blend.axis])
    upper, _ = np.split(first, [border], axis=blend.axis)
    _, lower = np.split(second, [border], axis=blend.axis)
    return np.concatenate([upper, lower], axis=blend.axis)
