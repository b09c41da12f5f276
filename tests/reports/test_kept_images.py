"""Images as nodes keep them: drawn by the server for a run's folder, cut apart for its page."""

import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from run_folders import make_whole_run

from fed_ist.datasets.data_set import open_data
from fed_ist.encoder.embeddings import MaskSpec
from fed_ist.images.decoding import UnreadableImageError
from fed_ist.images.source import Reading, square
from fed_ist.reports.kept_images import cut_kept, draw_kept
from fed_ist.reports.run import write_run_report

SPEC = MaskSpec("fixed", 0.75, "raw", 64, 8, 0, ())


@pytest.fixture
def source(image_folder):
    return open_data(str(image_folder), "", Reading(), None).test


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


@pytest.mark.parametrize("mask", ["fixed", "random"])
def test_an_image_of_each_class_shows_what_is_kept_and_nothing_else(source, mask):
    kept = cut_kept(draw_kept(source, replace(SPEC, mask=mask)))
    assert [image.class_name for image in kept] == list(source.class_names)
    for label, image in enumerate(kept):
        first = int(np.flatnonzero(source.labels == label)[0])
        whole, shown = square(source.load(first)[0], 64), pixels(image.png)
        visible = shown[..., 3] == 255
        assert visible.mean() == 0.25
        assert (shown[visible][:, :3] == whole[visible]).all()
        assert not shown[~visible].any()  # nothing is left below what is transparent


def test_an_image_that_cannot_be_read_gives_way_to_the_next(source):
    def load(i, min_px=None):
        if i == 0:
            raise UnreadableImageError("torn")
        return source.load(i, min_px)

    torn = replace(source, load=load)
    assert len(cut_kept(draw_kept(torn, SPEC))) == 4
    assert pixels(cut_kept(draw_kept(torn, SPEC))[0].png).any()


def test_where_no_image_can_be_read_there_is_no_strip(source):
    def load(i, min_px=None):
        raise UnreadableImageError("torn")

    assert draw_kept(replace(source, load=load), SPEC) is None


def test_of_many_classes_eight_are_shown(source):
    names = tuple(f"class {i:02}" for i in range(16))
    labels = np.arange(48, dtype=np.int64) % 16
    kept = cut_kept(draw_kept(replace(source, class_names=names, labels=labels), SPEC))
    assert [image.class_name for image in kept] == list(names[::2])


@pytest.fixture(scope="module")
def strip(image_folder):
    return draw_kept(
        open_data(str(image_folder), "", Reading(), None).test, replace(SPEC, img_px=16)
    )


@given(place=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255), end=st.floats(0, 1))
def test_a_damaged_strip_is_refused_or_still_names_its_classes(strip, place, value, end):
    damaged = bytearray(strip)
    damaged[int(place * len(damaged))] = value
    try:
        kept = cut_kept(bytes(damaged[: round(end * len(damaged))]))
    except ValueError:
        return
    assert [image.class_name for image in kept] == [image.class_name for image in cut_kept(strip)]


def test_the_page_shows_the_strip_of_a_run_and_goes_without_one(tmp_path, make_config, source):
    run = make_whole_run(tmp_path, "run", make_config(num_rounds=2, mask_ratio=0.75), 3)
    assert "data:image/png" not in write_run_report([run], None).read_text()
    (run / "kept.png").write_bytes(draw_kept(source, SPEC))
    page = write_run_report([run], None).read_text()
    assert page.count("data:image/png") == 4
    assert "75% of the patches hidden" in page
    (run / "kept.png").write_bytes(b"\x89PNG")
    assert "data:image/png" not in write_run_report([run], None).read_text()
