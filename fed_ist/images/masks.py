"""Which patches of an image stay visible.

A mask function takes a batch of images and returns the indices of the patches that it keeps, where
patches are numbered row by row from the top left, and the indices ascend:

    images: uint8 (N, H, W, C), grid: (rows, cols), n_visible: K, rng -> int64 (N, K)

or int64 (K,) where all images have the same mask, so that no index is stored with an image. To add
a mask, write one such function and one row in `MASKS`: settings, reports and tests follow from it.
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
    """The number of patches that stay visible: `int(n_patches * (1 - mask_ratio))`, at least 1.

    It is rounded as in MAE. Raises `InputError` for a mask ratio outside [0, 1).
    """
    if not 0 <= mask_ratio < 1:
        raise InputError(f"mask-ratio = {mask_ratio} is not possible: give a number in [0, 1).")
    return max(1, int(n_patches * (1 - mask_ratio)))


def uniform(images: Images, grid: Grid, n_visible: int, rng: np.random.Generator) -> Indices:
    """K patches of each image, all choices equally likely: int64 (N, K)."""
    noise = rng.random((len(images), grid[0] * grid[1]))
    return np.sort(noise.argsort(axis=1, kind="stable")[:, :n_visible], axis=1)


def shared(images: Images, grid: Grid, n_visible: int, rng: np.random.Generator) -> Indices:
    """The same K patches in all images, all choices equally likely: int64 (K,)."""
    return np.sort(rng.permutation(grid[0] * grid[1])[:n_visible])


def evenly(images: Images, grid: Grid, n_visible: int, rng: np.random.Generator) -> Indices:
    """The same K patches in all images, spread evenly: int64 (K,).

    The patches are ranked by Roberts' R2 sequence ("The unreasonable effectiveness of quasirandom
    sequences", 2018), used as a dither pattern: for any K and any grid, the first K of the ranking
    are spread evenly over both axes.
    """
    rows, cols = np.mgrid[: grid[0], : grid[1]]
    plastic = 1.32471795724474602596
    rank = (rows / plastic + cols / plastic**2) % 1.0
    return np.sort(rank.ravel().argsort(kind="stable")[:n_visible])


def block(images: Images, grid: Grid, n_visible: int, rng: np.random.Generator) -> Indices:
    """The K patches of each image that random rectangles leave visible: int64 (N, K).

    Rectangles are hidden one after another, as in BEiT (Bao et al. 2022, algorithm 1). The last one
    is cut short, so that exactly K patches remain.
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
    """The K patches of each image whose pixels vary most: int64 (N, K).

    Of patches that vary equally, the earlier is taken.
    """
    n, height, width, channels = images.shape
    rows, cols = grid
    shape = (n, rows, height // rows, cols, width // cols, channels)
    patches = images.astype(np.float32).reshape(shape)
    variance = patches.var(axis=(2, 4)).mean(axis=-1).reshape(n, rows * cols)
    return np.sort((-variance).argsort(axis=1, kind="stable")[:, :n_visible], axis=1)


@dataclass(frozen=True)
class Mask:
    """A mask function, and what is to be known of it.

    words: which patches stay, for the page of settings. per_pass: whether it is drawn anew at each
    pass over the images, rather than once for a run.
    is_common: whether all images keep the same patches, whatever they show.
    """

    choose: MaskFn
    words: str
    per_pass: bool = False
    is_common: bool = False


MASKS: dict[str, Mask] = {
    "random": Mask(uniform, "drawn anew at each pass over the images", per_pass=True),
    "fixed": Mask(uniform, "drawn from the image's content"),
    "shared": Mask(shared, "drawn once, the same in all images", is_common=True),
    "grid": Mask(evenly, "evenly spread, the same in all images", is_common=True),
    "block": Mask(block, "those outside of random rectangles"),
    "saliency": Mask(saliency, "those that vary most"),
}


def visible_patches(
    name: str, images: Images, grid: Grid, mask_ratio: float, rng: np.random.Generator
) -> Indices:
    """The indices of the patches that stay: int64 (N, K), or (K,) where they are the same for all.

    name: of a mask in `MASKS`. images: uint8 (N, H, W, C). grid: (rows, cols) of patches.
    Raises `InputError` for an unknown mask or a ratio outside [0, 1), and `ValueError` for a mask
    whose row in `MASKS` is wrong.
    """
    require_choice("mask", name, MASKS)
    mask, n_visible = MASKS[name], count_visible(grid[0] * grid[1], mask_ratio)
    kept = mask.choose(images, grid, n_visible, rng)
    if kept.shape != ((n_visible,) if mask.is_common else (len(images), n_visible)):
        raise ValueError(
            f"Mask '{name}' gives indices of shape {kept.shape}, and its row in MASKS says "
            f"is_common={mask.is_common}: mend one of them."
        )
    return kept
