"""Packed files give back the visible patches and nothing else, and refuse what is not theirs."""

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from fed_ist.datasets.folders import folder_source
from fed_ist.encoder.embeddings import MaskSpec, pack
from fed_ist.errors import InputError
from fed_ist.files.chunks import writing_chunks
from fed_ist.images.masks import MASKS
from fed_ist.images.packing import (
    PackedImages,
    mosaic_grid,
    patchify,
    take_visible,
    unpatchify,
)


def spec(**changes) -> MaskSpec:
    values = {
        "mask": "fixed",
        "mask_ratio": 0.5,
        "codec": "raw",
        "img_px": 64,
        "patch_px": 8,
        "seed": 0,
        "coordinates": (0,),
    }
    return MaskSpec(**(values | changes))


def test_unpatchify_undoes_patchify(images):
    assert (unpatchify(patchify(images, 8), (8, 8), 8) == images).all()


def test_patches_are_counted_row_by_row(images):
    patches = patchify(images, 16).reshape(5, 16, 16, 16, 3)
    assert (patches[0, 5] == images[0, 16:32, 16:32]).all()


@pytest.mark.parametrize("mask", MASKS)
def test_a_raw_file_gives_back_just_the_visible_pixels(mask, image_folder, tmp_path):
    source = folder_source(image_folder)
    packed = pack(source, spec(mask=mask), tmp_path / "p.arrow", pytest.fail)
    position = 0
    for batch in packed.batches():
        for row in range(len(batch.labels)):
            image, _ = source.load(position)
            visible = batch.visible if batch.visible.ndim == 1 else batch.visible[row]
            wanted = take_visible(np.asarray(image)[None], 8, visible[None])[0]
            assert (batch.patches[row] == wanted).all()
            assert batch.labels[row] == source.labels[position]
            position += 1
    assert position == packed.n_images == len(source)


@pytest.mark.parametrize("codec", ["jpeg", "webp"])
def test_compressed_patches_look_like_the_originals_and_take_fewer_bytes(
    codec, image_folder, tmp_path
):
    source = folder_source(image_folder)
    raw = pack(source, spec(), tmp_path / "raw.arrow", pytest.fail)
    small = pack(source, spec(codec=codec), tmp_path / "small.arrow", pytest.fail)
    for a, b in zip(raw.batches(), small.batches(), strict=True):
        assert (a.visible == b.visible).all()
        difference = np.abs(a.patches.astype(int) - b.patches.astype(int))
        assert difference.mean() < 8
    size = {p.path.name: p.path.stat().st_size for p in (raw, small)}
    assert size["small.arrow"] < 0.6 * size["raw.arrow"]
    assert size["small.arrow"] < raw.original_bytes


def test_bytes_are_reported_against_files_and_pixels(image_folder, tmp_path):
    packed = pack(folder_source(image_folder), spec(mask_ratio=0.75), tmp_path / "p", pytest.fail)
    files = sum(path.stat().st_size for path in image_folder.rglob("*.jpg"))
    assert packed.original_bytes == files
    assert packed.raw_bytes == 48 * 64 * 64 * 3
    # A quarter of the pixels, 16 indices of 2 bytes, a label, a size, and Arrow's frame.
    assert packed.path.stat().st_size < 48 * (64 * 64 * 3 / 4 + 16 * 2 + 20) + 4000


def test_a_file_of_an_earlier_version_is_refused(tmp_path):
    table = pa.table({"patches": [b"x"]}).replace_schema_metadata({"fed-ist packed images 1": "{}"})
    with pa.OSFile(str(tmp_path / "old"), "wb") as f, pa.ipc.new_file(f, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(InputError, match=r"is no packed-image file .* Pack the images again"):
        PackedImages(tmp_path / "old")


def test_a_shared_mask_stores_no_index_with_an_image(image_folder, tmp_path):
    sizes = {}
    for mask in ("fixed", "shared"):
        pack(folder_source(image_folder), spec(mask=mask), tmp_path / mask, pytest.fail)
        sizes[mask] = (tmp_path / mask).stat().st_size
    assert sizes["fixed"] - sizes["shared"] > 48 * 32 * 2 * 0.9
    assert PackedImages(tmp_path / "shared").layout.shared_visible is not None


def test_a_fixed_mask_is_the_same_each_time_and_another_for_another_node(image_folder, tmp_path):
    def visible(node: int) -> np.ndarray:
        packed = pack(
            folder_source(image_folder), spec(coordinates=(node,)), tmp_path / "p", pytest.fail
        )
        return next(packed.batches()).visible

    assert (visible(0) == visible(0)).all()
    assert (visible(0) != visible(1)).any()


def test_raw_pixels_are_viewed_where_they_were_read_to(image_folder, tmp_path):
    pack(folder_source(image_folder), spec(), tmp_path / "p", pytest.fail)
    batches = [batch.patches for batch in PackedImages(tmp_path / "p").batches()]
    assert not any(patches.flags.owndata for patches in batches)


def test_a_corrupt_image_is_skipped_and_counted(image_folder, tmp_path):
    broken = tmp_path / "broken" / "beach"
    broken.mkdir(parents=True)
    whole = (image_folder / "beach" / "00.jpg").read_bytes()
    (broken / "whole.jpg").write_bytes(whole)
    (broken / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (broken / "text.png").write_text("no image")
    (broken / "empty.jpg").write_bytes(b"")
    reasons: list[str] = []
    packed = pack(folder_source(broken.parent), spec(), tmp_path / "p", reasons.append)
    assert (packed.n_images, packed.n_skipped) == (1, 3)
    assert sorted(reason.split("beach/")[1].split(":")[0] for reason in reasons) == [
        "cut.jpg",
        "empty.jpg",
        "text.png",
    ]


def test_files_without_a_readable_image_are_refused_and_leave_nothing(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "x.jpg").write_text("no image")
    with pytest.raises(InputError, match="None of the images could be read"):
        pack(folder_source(tmp_path / "a"), spec(), tmp_path / "p", lambda _: None)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("share", [0, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused_with_one_sentence(share, image_folder, tmp_path):
    pack(folder_source(image_folder), spec(), tmp_path / "p", pytest.fail)
    whole = (tmp_path / "p").read_bytes()
    (tmp_path / "cut").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(InputError, match="is cut short or is no packed-image file"):
        PackedImages(tmp_path / "cut")


def test_a_foreign_file_is_refused(tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "image.png")
    with pytest.raises(InputError, match="is no packed-image file"):
        PackedImages(tmp_path / "image.png")
    with writing_chunks(tmp_path / "other") as chunks:
        chunks.add(b"x")
    with pytest.raises(InputError, match="it is of another kind or version"):
        PackedImages(tmp_path / "other")
    with pytest.raises(InputError, match="There is no packed file"):
        PackedImages(tmp_path / "absent")


@pytest.mark.parametrize(
    ("k", "grid"), [(32, (4, 8)), (16, (4, 4)), (49, (7, 7)), (1, (1, 1)), (13, (3, 5))]
)
def test_mosaics_are_near_square(k, grid):
    assert mosaic_grid(k) == grid
