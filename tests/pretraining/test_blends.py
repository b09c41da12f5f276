"""Two views in one: what a teacher is asked on beside the images themselves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed_ist.datasets.data_set import open_all
from fed_ist.pretraining.blends import Blend, blended, draw_blend
from fed_ist.pretraining.boxes import WHOLE, crops_of
from fed_ist.pretraining.views import ViewSettings, cut_views, draw_blends

BLACK, WHITE = np.zeros((16, 16, 3), np.uint8), np.full((16, 16, 3), 255, np.uint8)


def blend(**changes) -> Blend:
    usual = {"box": WHOLE, "partner": 0, "partner_box": WHOLE, "turns": 0, "axis": 0, "share": 0.5}
    return Blend(**usual | changes)


@given(share=st.floats(0, 1), axis=st.sampled_from([0, 1, None]), turns=st.integers(0, 3))
def test_the_share_of_the_first_view_shows(share, axis, turns):
    found = blended(WHITE, BLACK, blend(share=share, axis=axis, turns=turns))
    assert found.shape == WHITE.shape
    assert found.dtype == np.uint8
    assert found.mean() / 255 == pytest.approx(share, abs=0.5 / 16 + 1e-6)


def test_side_by_side_each_half_is_that_of_its_view():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    found = blended(first, second, blend(axis=1, turns=1, share=0.25))
    assert np.array_equal(found[:, :4], first[:, :4])
    assert np.array_equal(found[:, 4:], np.rot90(second)[:, 4:])


@given(st.integers(0, 1000), st.integers(1, 9))
def test_a_drawn_blend_is_of_images_that_there_are_and_shows_both(seed, n_images):
    found = draw_blend(np.random.default_rng(seed), n_images, 0.35)
    assert 0 <= found.partner < n_images
    assert 0.3 <= found.share <= (1 if found.axis is None else 0.7)


def test_the_student_and_the_teacher_see_the_same_blends(image_folder):
    source = open_all(str(image_folder))
    settings = ViewSettings(n_views=1, n_blends=4, img_px=16, min_area=0.5, seed=0)
    cut = list(cut_views(source, 64, settings, []))
    assert [small.shape[0] for small, _ in cut] == [5] * len(source)
    for small, large in cut:
        shrunk = large.reshape(5, 16, 4, 16, 4, 3).mean(axis=(2, 4))
        # Borders fall on other pixels, so the two agree on the whole, not at each pixel.
        assert np.abs(shrunk - small).mean() < 25
        assert np.abs(shrunk.mean(axis=(1, 2, 3)) - small.mean(axis=(1, 2, 3))).max() < 6


def test_a_partner_that_cannot_be_read_leaves_the_crop_and_is_counted_once(tmp_path, image_folder):
    folder = tmp_path / "images"
    folder.mkdir()
    good = next(path for path in sorted(image_folder.rglob("*")) if path.is_file())
    (folder / f"a{good.suffix}").write_bytes(good.read_bytes())
    (folder / f"b{good.suffix}").write_bytes(good.read_bytes()[:60])
    settings = ViewSettings(n_views=1, n_blends=8, img_px=16, min_area=0.5, seed=0)
    source = open_all(str(folder))
    partners = {found.partner for found in draw_blends(settings, 0, len(source))}
    assert partners == {0, 1}
    skipped: list[str] = []
    ((small, _),) = cut_views(source, 16, settings, skipped)
    assert len(skipped) == 1
    picture, _ = source.load(0, 23)  # the least side whose boxes have 16 px
    alone = [
        np.array_equal(small[at], crops_of(picture, np.array([found.box]), 16)[0])
        for at, found in enumerate(draw_blends(settings, 0, len(source)), start=1)
        if found.partner == 1
    ]
    assert alone
    assert all(alone)
