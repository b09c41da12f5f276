"""Masks keep the right number of patches, and the patches that their names promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed_ist.errors import InputError
from fed_ist.images.masks import MASKS, count_visible, visible_patches

GRIDS = st.tuples(st.integers(1, 9), st.integers(1, 9))
RATIOS = st.floats(0, 1, exclude_max=True, allow_nan=False)


def blank(n: int, grid: tuple[int, int]) -> np.ndarray:
    return np.zeros((n, grid[0] * 4, grid[1] * 4, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", MASKS)
@given(grid=GRIDS, mask_ratio=RATIOS, seed=st.integers(0, 2**32))
def test_every_mask_keeps_the_counted_patches_once_each_and_in_order(name, grid, mask_ratio, seed):
    kept = visible_patches(name, blank(3, grid), grid, mask_ratio, np.random.default_rng(seed))
    n_patches = grid[0] * grid[1]
    expected = max(1, int(n_patches * (1 - mask_ratio)))
    assert kept.shape in [(expected,), (3, expected)]
    assert kept.dtype == np.int64
    assert kept.min() >= 0
    assert kept.max() < n_patches
    assert (np.diff(kept, axis=-1) > 0).all()


@pytest.mark.parametrize(
    ("n_patches", "mask_ratio", "kept"),
    [(64, 0, 64), (64, 0.5, 32), (64, 0.75, 16), (196, 0.75, 49), (64, 0.9, 6), (64, 0.999, 1)],
)
def test_the_number_kept_is_that_of_mae(n_patches, mask_ratio, kept):
    assert count_visible(n_patches, mask_ratio) == kept


@pytest.mark.parametrize("mask_ratio", [-0.1, 1, 1.5, float("nan")])
def test_a_ratio_outside_zero_to_one_is_refused_by_name_and_value(mask_ratio):
    with pytest.raises(InputError, match=rf"mask-ratio = {mask_ratio} .*\[0, 1\)"):
        count_visible(64, mask_ratio)


def test_an_unknown_mask_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"Unknown mask 'radnom'\. Choose from: .*\bgrid\b"):
        visible_patches("radnom", blank(1, (2, 2)), (2, 2), 0.5, np.random.default_rng(0))


def test_random_masks_differ_between_images_and_between_draws():
    rng = np.random.default_rng(0)
    first, second = (visible_patches("random", blank(8, (8, 8)), (8, 8), 0.5, rng) for _ in "ab")
    assert len(np.unique(first, axis=0)) == 8
    assert (first != second).any()


def test_random_masks_choose_every_patch_equally_often():
    rng = np.random.default_rng(0)
    kept = visible_patches("random", blank(20_000, (2, 3)), (2, 3), 0.5, rng)
    share = np.bincount(kept.ravel(), minlength=6) / 20_000
    assert np.abs(share - 0.5).max() < 0.02


@pytest.mark.parametrize("name", ["shared", "grid"])
def test_shared_masks_store_no_index_per_image(name):
    kept = visible_patches(name, blank(8, (8, 8)), (8, 8), 0.5, np.random.default_rng(0))
    assert kept.ndim == 1


@pytest.mark.parametrize("mask_ratio", [0.25, 0.5, 0.75, 0.9])
def test_the_grid_mask_is_spread_over_all_quarters_of_the_image(mask_ratio):
    grid = (14, 14)
    kept = visible_patches("grid", blank(1, grid), grid, mask_ratio, np.random.default_rng(0))
    rows, cols = kept // 14, kept % 14
    quarters = np.bincount((rows >= 7) * 2 + (cols >= 7), minlength=4)
    assert quarters.max() - quarters.min() <= 0.15 * len(kept) + 1
    # No row and no column is left without a patch, unless there are too few to go round.
    if len(kept) >= 28:
        assert len(set(rows)) == len(set(cols)) == 14


def test_the_block_mask_hides_connected_areas():
    """Hidden patches have more hidden neighbours than under a random mask of the same ratio."""

    def hidden_pairs(name: str) -> int:
        kept = visible_patches(name, blank(50, (8, 8)), (8, 8), 0.5, np.random.default_rng(0))
        hidden = np.ones((50, 64), dtype=bool)
        np.put_along_axis(hidden, kept, False, axis=1)
        hidden = hidden.reshape(50, 8, 8)
        return int(
            (hidden[:, 1:] & hidden[:, :-1]).sum() + (hidden[:, :, 1:] & hidden[:, :, :-1]).sum()
        )

    assert hidden_pairs("block") > 1.3 * hidden_pairs("random")


def test_the_saliency_mask_keeps_the_patches_that_vary():
    images = blank(2, (4, 4))
    noise = np.random.default_rng(0).integers(0, 256, (4, 4, 3))
    images[0, 0:4, 4:8] = noise  # patch 1
    images[0, 12:16, 12:16] = noise  # patch 15
    images[1, 8:12, 0:4] = noise  # patch 8
    images[1, 4:8, 8:12] = noise  # patch 6
    kept = visible_patches("saliency", images, (4, 4), 1 - 2 / 16, np.random.default_rng(0))
    assert kept.tolist() == [[1, 15], [6, 8]]
