"""Which patches of an image stay visible.

A mask function takes a batch of images and returns the indices of the patches that it keeps, in
raster order and ascending:

    images: uint8 (N, H, W, C), grid: (rows, cols), n_visible: K, rng -> int64 (N, K)

or int64 (K,) where one mask serves every image, so that no index is stored with an image. To add a
mask, write one such function and one line in `MASKS`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fed_ist.errors import InputError, require_choice

Grid = tuple[int, int]
Images = NDArray[np.uint8]
Indices = NDArray[np.int64]
MaskFn = Callable[[Images, Grid, int, np.random.Generator], Indices]


def count_visible(n_patches: int, mask_ratio: float) -> int:
    """Patches kept at a mask ratio: `int(n_patches * (1 - mask_ratio))` as in MAE, at least 1."""
    if not 0 <= mask_ratio < 1:
        raise InputError(f"mask-ratio = {mask_ratio} is not possible: give a number in [0, 1).")
    return max(1, int(n_patches * (1 - mask_ratio)))


def uniform(images: Images, grid: Grid, n_visible: int, rng: np.random.Generator) -> Indices:
    """K patches of each image, every choice equally likely."""
    noise = rng.random((len(images), grid[0] * grid[1]))
    return np.sort(noise.argsort(axis=1, kind="stable")[:, :n_visible], axis=1)


def shared(images: Images, grid: Grid, n_visible: int, rng: np.random.Generator) -> Indices:
    """One random choice for all images."""
    return np.sort(rng.permutation(grid[0] * grid[1])[:n_visible])


def evenly(images: Images, grid: Grid, n_visible: int, rng: np.random.Generator) -> Indices:
    """The same evenly spread patches in every image.

    The cells are ranked by Roberts' R2 sequence ("The unreasonable effectiveness of quasirandom
    sequences", 2018), used as a dither pattern: any leading part of the ranking is spread evenly
    over both axes, whatever the ratio and the shape of the grid.
    """
    rows, cols = np.mgrid[: grid[0], : grid[1]]
    plastic = 1.32471795724474602596
    rank = (rows / plastic + cols / plastic**2) % 1.0
    return np.sort(rank.ravel().argsort(kind="stable")[:n_visible])


def block(images: Images, grid: Grid, n_visible: int, rng: np.random.Generator) -> Indices:
    """Hides rectangles until just K patches are left, as BEiT (Bao et al. 2022, algorithm 1) does.

    The last rectangle is cut short, so that exactly K patches remain.
    """
    n_hidden = grid[0] * grid[1] - n_visible
    return np.stack([_outside_blocks(grid, n_hidden, rng) for _ in images]).astype(np.int64)


def _outside_blocks(grid: Grid, n_hidden: int, rng: np.random.Generator) -> Indices:
    rows, cols = grid
    hidden = np.zeros(grid, dtype=bool)
    left = n_hidden
    while left > 0:
        area = rng.uniform(min(4, left), left + 1)
        aspect = np.exp(rng.uniform(np.log(0.3), np.log(1 / 0.3)))
        height = min(rows, max(1, round(float(np.sqrt(area * aspect)))))
        width = min(cols, max(1, round(float(np.sqrt(area / aspect)))))
        top, start = rng.integers(rows - height + 1), rng.integers(cols - width + 1)
        inside = np.zeros(grid, dtype=bool)
        inside[top : top + height, start : start + width] = True
        new = np.flatnonzero((inside & ~hidden).ravel())[:left]
        hidden.ravel()[new] = True
        left -= len(new)
    return np.flatnonzero(~hidden.ravel())


def saliency(images: Images, grid: Grid, n_visible: int, rng: np.random.Generator) -> Indices:
    """The K patches of each image whose pixels vary most (ties go to the earlier patch)."""
    n, height, width, channels = images.shape
    rows, cols = grid
    shape = (n, rows, height // rows, cols, width // cols, channels)
    patches = images.astype(np.float32).reshape(shape)
    variance = patches.var(axis=(2, 4)).mean(axis=-1).reshape(n, rows * cols)
    return np.sort((-variance).argsort(axis=1, kind="stable")[:, :n_visible], axis=1)


@dataclass(frozen=True)
class Mask:
    """A mask function and when it is drawn.

    per_pass: drawn anew each time the images are seen, rather than once for good. is_common: all
    images keep the same patches, whatever they show.
    """

    choose: MaskFn
    per_pass: bool = False
    is_common: bool = False


MASKS: dict[str, Mask] = {
    "random": Mask(uniform, per_pass=True),
    "fixed": Mask(uniform),
    "shared": Mask(shared, is_common=True),
    "grid": Mask(evenly, is_common=True),
    "block": Mask(block),
    "saliency": Mask(saliency),
}


def visible_patches(
    name: str, images: Images, grid: Grid, mask_ratio: float, rng: np.random.Generator
) -> Indices:
    """Indices of the patches that mask `name` keeps: int64 (N, K), or (K,) for all images alike.

    Raises `InputError` for an unknown mask or a ratio outside [0, 1).
    """
    require_choice("mask", name, MASKS)
    return MASKS[name].choose(images, grid, count_visible(grid[0] * grid[1], mask_ratio), rng)
