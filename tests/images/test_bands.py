"""Bands of real GeoTIFFs, by name and number, as 8-bit channels up to packed patches."""

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image
from programs import fed_ist, within
from test_packing import spec

from clients.node import Node, open_images
from fed_ist.classifier.layout import init_params
from fed_ist.config.derive import band_choice, n_channels, open_run_data
from fed_ist.datasets.data_set import open_all, open_dataset
from fed_ist.datasets.folders import folder_source
from fed_ist.encoder.embeddings import pack
from fed_ist.encoder.frozen import create_encoder
from fed_ist.encoder.spec import EncoderSpec
from fed_ist.errors import InputError
from fed_ist.images.bands import BandChoice, parse_bands, read_bands
from fed_ist.images.decoding import UnreadableImageError, decode
from fed_ist.images.masks import MASKS
from fed_ist.images.packing import PackedImages, take_visible
from fed_ist.images.source import Reading, square
from fed_ist.prefetch import mapped
from fed_ist.runs.folder import Model
from fed_ist.runs.predict import classify

rasterio = pytest.importorskip("rasterio")

SENTINEL = (*(f"B{i:02}" for i in range(1, 9)), "B8A", *(f"B{i:02}" for i in range(9, 13)))
RGBN = parse_bands("B04,B03,B02,B08", "0:10000")


def write_raster(path: Path, values: np.ndarray, names=(), nodata=None) -> Path:
    """A GeoTIFF of values (C, H, W)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    n, height, width = values.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(
            path, "w", driver="GTiff", count=n, height=height, width=width,
            dtype=values.dtype, nodata=nodata,
        ) as file:  # fmt: skip
            file.write(values)
            if names:
                file.descriptions = names
    return path


def sentinel(seed: int, side: int = 40) -> np.ndarray:
    """Reflectances of 13 bands: uint16 (13, side, side)."""
    return np.random.default_rng(seed).integers(0, 10_001, (13, side, side), dtype=np.uint16)


@pytest.fixture
def rasters(tmp_path) -> Path:
    """Eight 13-band images of two classes, with names, as root/<class>/<n>.tif."""
    for i in range(8):
        path = tmp_path / "rasters" / ("dry", "wet")[i % 2] / f"{i}.tif"
        write_raster(path, sentinel(i), SENTINEL)
    return tmp_path / "rasters"


def test_bands_are_read_in_the_order_given_by_name_in_any_case_or_by_number(tmp_path):
    values = np.arange(4 * 6 * 5, dtype=np.uint8).reshape(4, 6, 5)
    path = write_raster(tmp_path / "x.tif", values, ("Blue", "Green", "Red", "NIR"))
    for bands in ("red,GREEN,Blue,nir", "3,2,1,4", " Red , 2,blue,4"):
        found = read_bands(path, "x", parse_bands(bands, ""))
        assert found.dtype == np.uint8
        assert (found == values[[2, 1, 0, 3]].transpose(1, 2, 0)).all()
    assert (read_bands(path.read_bytes(), "x", parse_bands("4", "")) == values[3, :, :, None]).all()


def test_the_range_becomes_0_to_255_clipped_linear_and_rounded(tmp_path):
    values = np.array([[[0, 1000, 3000, 6000, 11_000, 65_535]]], dtype=np.uint16)
    path = write_raster(tmp_path / "x.tif", values)
    found = read_bands(path, "x", parse_bands("1", "1000:11000"))
    # 2000 / 10000 * 255 = 51 and 5000 / 10000 * 255 = 127.5, which rounds to the even 128
    assert found[:, :, 0].tolist() == [[0, 0, 51, 128, 255, 255]]
    decibel = np.array([[[-30, -25, -20, 5]]], dtype=np.float32)
    path = write_raster(tmp_path / "y.tif", decibel)
    assert read_bands(path, "y", parse_bands("1", "-25:0"))[0, :, 0].tolist() == [0, 0, 51, 255]


def test_no_data_and_nan_become_0(tmp_path):
    values = np.array([[[9999, 5000, 10_000]]], dtype=np.uint16)
    path = write_raster(tmp_path / "x.tif", values, nodata=9999)
    assert read_bands(path, "x", parse_bands("1", "0:10000"))[0, :, 0].tolist() == [0, 128, 255]
    holes = np.array([[[np.nan, -9999, 1]]], dtype=np.float32)
    path = write_raster(tmp_path / "y.tif", holes, nodata=-9999)
    assert read_bands(path, "y", parse_bands("1", "-1:1"))[0, :, 0].tolist() == [0, 0, 255]
    path = write_raster(tmp_path / "z.tif", np.array([[[7, 8]]], dtype=np.uint8), nodata=7)
    assert read_bands(path, "z", parse_bands("1", ""))[0, :, 0].tolist() == [0, 8]


def test_the_fourth_of_four_8_bit_bands_is_a_band_and_not_transparency(tmp_path):
    values = np.full((4, 2, 2), 200, dtype=np.uint8)
    values[3] = 0
    path = write_raster(tmp_path / "x.tif", values)
    assert (read_bands(path, "x", parse_bands("1,4", "")) == [200, 0]).all()


def test_a_raster_without_a_place_on_earth_is_read_without_a_warning_in_threads_too(tmp_path):
    path = write_raster(tmp_path / "x.tif", np.zeros((1, 4, 4), dtype=np.uint8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = list(mapped(lambda _: read_bands(path, "x", BandChoice(("1",), None)), range(200)))
    assert len(read) == 200


@pytest.mark.parametrize(
    ("bands", "band_range", "sentence"),
    [
        ("4,,2", "", "bands = '4,,2' is not possible: give names or numbers"),
        ("4,3,", "", "bands = '4,3,' is not possible"),
        ("4", "10000", "band-range = '10000' is not possible: give the values that become 0 and"),
        ("4", "0:1:2", "band-range = '0:1:2' is not possible"),
        ("4", "low:high", "band-range = 'low:high' is not possible"),
        ("4", "0:inf", "band-range = '0:inf' is not possible"),
        ("4", "10000:0", "the smaller one first"),
        ("4", "5:5", "band-range = '5:5' is not possible"),
        ("", "0:10000", "band-range = '0:10000' is of no use without bands"),
    ],
)
def test_a_malformed_choice_is_one_sentence(bands, band_range, sentence, make_config):
    with pytest.raises(InputError) as caught:
        parse_bands(bands, band_range)
    assert sentence in str(caught.value)
    with pytest.raises(InputError):
        make_config(bands=bands, band_range=band_range)


def test_an_unknown_band_is_answered_with_those_that_there_are(rasters, tmp_path):
    for wanted in ("B13", "14", "0"):
        with pytest.raises(InputError) as caught:
            folder_source(rasters, Reading(parse_bands(f"B04,{wanted}", "0:10000")))
        assert f"0.tif' has no band '{wanted}': it has 13 bands, named B01, B02" in str(
            caught.value
        )
        assert "B8A" in str(caught.value)
    write_raster(tmp_path / "plain" / "a" / "x.tif", np.zeros((4, 3, 3), np.uint8))
    with pytest.raises(InputError, match=r"has no band 'B04': it has 4 bands, without names"):
        folder_source(tmp_path / "plain", Reading(parse_bands("B04", "")))
    write_raster(tmp_path / "twice" / "a" / "x.tif", np.zeros((2, 3, 3), np.uint8), ("a", "A"))
    with pytest.raises(InputError, match="has more than one band 'a'"):
        folder_source(tmp_path / "twice", Reading(parse_bands("a", "")))


def test_values_that_are_no_bytes_need_a_range_and_the_message_proposes_one(tmp_path):
    values = np.array([[[12, 9873]], [[5, 60_000]], [[0, 0]]], dtype=np.uint16)
    write_raster(tmp_path / "d" / "a" / "x.tif", values, nodata=0)
    for bands, seen, proposal in (("1", "12 to 9873", "12:9873"), ("2,1", "5 to 60000", "5:60000")):
        with pytest.raises(InputError) as caught:
            folder_source(tmp_path / "d", Reading(parse_bands(bands, "")))
        assert f"holds uint16 values (here from {seen})" in str(caught.value)
        assert f"band-range = '{proposal}'" in str(caught.value)
    with pytest.raises(InputError, match="band-range = '0:1'"):
        folder_source(tmp_path / "d", Reading(parse_bands("3", "")))


def test_a_wrong_choice_is_found_before_any_work_wherever_the_rasters_are(
    rasters, tmp_path, make_config
):
    wrong = {"bands": "B04,B99", "band_range": "0:10000"}
    (tmp_path / "split").mkdir()
    (tmp_path / "split" / "train").symlink_to(rasters)
    (tmp_path / "split" / "test").symlink_to(rasters)
    for changes in (
        {"dataset": str(rasters)},
        {"dataset": str(tmp_path / "split")},
        {"dataset": str(table(rasters, tmp_path))},
    ):
        with pytest.raises(InputError, match="has no band 'B99'"):
            open_run_data(make_config(**changes, **wrong))
        open_run_data(make_config(**changes, bands="B04,B08", band_range="0:1"))
    with pytest.raises(InputError, match="has no band 'B99'"):  # before the Hub is asked
        open_run_data(make_config(dataset="uoft-cs/cifar10", test_dataset=str(rasters), **wrong))
    node = Node(7, 0, str(rasters))
    with pytest.raises(InputError, match="has no band 'B99'"):
        open_images(node, make_config(**wrong))
    config = make_config(bands="B04,B03,B02,B08", band_range="0:10000")
    assert open_images(node, config).channels == 4


def test_bands_of_images_that_have_none_are_refused(image_folder, make_config):
    for dataset in (str(image_folder), "scenes"):
        with pytest.raises(InputError, match="eave bands empty"):
            open_run_data(make_config(dataset=dataset, bands="4,3,2"))


def test_damaged_files_and_odd_ones_are_skipped_and_counted(rasters, tmp_path):
    whole = (rasters / "dry" / "0.tif").read_bytes()
    (rasters / "dry" / "00-empty.tif").write_bytes(b"")
    (rasters / "dry" / "01-text.tif").write_text("no image")
    (rasters / "dry" / "cut.tif").write_bytes(whole[: len(whole) // 2])
    write_raster(rasters / "wet" / "odd.tif", np.zeros((3, 9, 9), np.uint16))
    reasons: list[str] = []
    packed = pack(
        folder_source(rasters, Reading(RGBN)), spec(channels=4), tmp_path / "p", reasons.append
    )
    assert (packed.n_images, packed.n_skipped) == (8, 4)
    assert "has no band 'B04'" in reasons[-1]


@pytest.mark.parametrize("mask", MASKS)
def test_four_bands_are_packed_and_given_back(mask, rasters, tmp_path):
    source = folder_source(rasters, Reading(RGBN))
    packed = pack(source, spec(mask=mask, channels=4, img_px=32), tmp_path / "p", pytest.fail)
    assert packed.layout.channels == 4
    assert packed.raw_bytes == 8 * 32 * 32 * 4
    (batch,) = PackedImages(tmp_path / "p").batches()
    assert batch.patches.shape == (8, 8, 8 * 8 * 4)
    for row in range(8):
        values = sentinel(int(sorted(rasters.rglob("*.tif"))[row].stem))[[3, 2, 1, 7]]
        pixels = np.rint(values / 10_000 * 255).astype(np.uint8).transpose(1, 2, 0)
        visible = batch.visible if batch.visible.ndim == 1 else batch.visible[row]
        wanted = take_visible(square(pixels, 32)[None], 8, visible)[0]
        assert (batch.patches[row] == wanted).all()


def test_a_parquet_file_of_rasters_reads_as_the_folder_does(rasters, tmp_path):
    from_folder = folder_source(rasters, Reading(RGBN))
    for source in (
        open_all(str(table(rasters, tmp_path)), Reading(RGBN)),
        open_all(str(rasters), Reading(RGBN)),
    ):
        assert source.channels == 4
        for i in range(8):
            assert (source.load(i)[0] == from_folder.load(i)[0]).all()
            assert source.load(i)[1] == from_folder.load(i)[1] > 0


def table(rasters: Path, tmp_path: Path) -> Path:
    """The folder as a parquet file in the Hugging Face layout."""
    path = tmp_path / "rasters.parquet"
    files = sorted(rasters.rglob("*.tif"))
    cells = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    labels = [int(file.parent.name == "wet") for file in files]
    features = Features({"image": ImageFeature(), "label": ClassLabel(names=["dry", "wet"])})
    Dataset.from_dict({"image": cells, "label": labels}, features=features).to_parquet(path)
    return path


def test_other_bands_or_another_range_never_meet_the_same_cache_entry(rasters, tmp_path):
    choices = [None, RGBN, parse_bands("B03,B04,B02,B08", "0:10000"),
               parse_bands("B04,B03,B02,B08", "0:9000")]  # fmt: skip
    for root in (rasters, table(rasters, tmp_path)):
        sources = [open_dataset(str(root), "", "train", Reading(choice)) for choice in choices]
        assert len({source.signature for source in sources}) == 4
        assert [source.channels for source in sources] == [3, 4, 4, 4]


def test_a_raster_opened_without_bands_is_skipped_with_the_advice_to_set_them(rasters):
    source = folder_source(rasters)
    with pytest.raises(UnreadableImageError, match=r"no RGB image.*set bands.*bands = '4,3,2'"):
        source.load(0)


def test_jpeg_and_webp_hold_three_bands_only(make_config):
    for codec in ("jpeg", "webp"):
        with pytest.raises(InputError, match=rf"codec = '{codec}' holds three channels, and bands"):
            make_config(codec=codec, bands="4,3,2,8")
        assert n_channels(make_config(codec=codec, bands="4,3,2")) == 3
    assert n_channels(make_config(bands="4,3,2,8")) == 4
    assert band_choice(make_config(bands=4)) == BandChoice(("4",), None)


def test_a_missing_rasterio_is_one_sentence(rasters, monkeypatch):
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(InputError, match=r"pip install 'fed-ist\[geo\]'"):
        folder_source(rasters, Reading(RGBN))


def test_rasterio_is_loaded_only_where_bands_are_chosen():
    code = (
        "import sys\nimport fed_ist.config\nimport fed_ist.datasets.data_set\n"
        "sys.exit('rasterio' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_a_model_classifies_the_bands_that_it_was_trained_on(tmp_path):
    encoder = create_encoder(EncoderSpec(weights="random"))
    model = Model(
        params=init_params(192, 16, 2, np.random.default_rng(0)),
        class_names=("dry", "wet"),
        encoder=encoder.spec.name,
        encoder_weights="random",
        encoder_digest=encoder.digest,
        pooling="cls",
        mask="grid",  # a random one follows from the file, and here are two of them
        mask_ratio=0.5,
        seed=0,
    )
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    # The same picture as a raster with its bands stored in another order and scale.
    values = np.concatenate([pixels[..., ::-1], pixels[..., :1]], axis=2).astype(np.uint16) * 10
    write_raster(tmp_path / "x.tif", values.transpose(2, 0, 1))
    banded = Model(**(vars(model) | {"bands": "3,2,1", "band_range": "0:2550"}))
    (as_rgb,) = classify(model, [tmp_path / "x.png"], pytest.fail)
    (as_bands,) = classify(banded, [tmp_path / "x.tif"], pytest.fail)
    assert np.array_equal(as_bands.probabilities, as_rgb.probabilities)


def test_pack_takes_bands_and_refuses_bad_ones(rasters, tmp_path):
    out = tmp_path / "p.arrow"
    chosen = ["--bands", "B04,B03,B02,B08", "--band-range", "0:10000"]
    done = fed_ist("pack", rasters, "--out", out, *chosen)
    assert done.returncode == 0, done.stderr
    assert "raw pixels       16.38 kB an image" in done.stdout
    assert done.stderr == ""
    for command, words, sentence in (
        (
            "pack",
            ["--bands", "B04,B99", "--band-range", "0:1"],
            "has no band 'B99': it has 13 bands",
        ),
        ("pretrain", ["--bands", "B04"], "holds uint16 values"),
        ("pretrain", ["--bands", "B04", "--band-range", "1"], "band-range = '1' is not possible"),
        ("pack", [*chosen, "--codec", "webp"], "codec = 'webp' holds three channels"),
        ("pack", [], "For a GeoTIFF, set bands"),
    ):
        done = within(command, rasters, "--out", tmp_path / command, *words)
        assert (done.returncode, sentence in done.stderr) == (2, True), done.stderr


def test_run_refuses_a_wrong_band_before_it_starts(rasters):
    chosen = ["--set", "bands=4,14", "--set", "band-range=0:10000"]
    done = fed_ist("run", "--set", f"dataset={rasters}", *chosen)
    assert (done.returncode, "has no band '14'" in done.stderr) == (2, True), done.stderr


def test_a_mask_or_a_band_of_transparency_says_where_there_is_no_data(tmp_path):
    values = np.full((4, 8, 8), 90, dtype=np.uint8)
    values[3, :4] = 0
    path = write_raster(tmp_path / "alpha.tif", values)
    with rasterio.open(path) as file:
        assert file.colorinterp[3].name == "alpha"
    shown = read_bands(path, "x", parse_bands("1,2,3", ""))
    assert ((shown[:4] == 0).all(), (shown[4:] == 90).all()) == (True, True)
    # Chosen, it is data: many write near infrared as the fourth of four bands.
    assert (read_bands(path, "x", parse_bands("1,4", ""))[:, :, 0] == 90).all()
    for inside in ("YES", "NO"):  # in the file itself, or in another one beside it
        path = write_raster(tmp_path / f"mask-{inside}.tif", values[:3] * np.uint16(10))
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside), rasterio.open(path, "r+") as file:
            file.write_mask(values[3] * 0 + np.repeat([0, 255], 4)[:, None].astype(np.uint8))
        assert (tmp_path / f"mask-{inside}.tif.msk").exists() == (inside == "NO")
        shown = read_bands(path, "x", parse_bands("1,2", "0:1800"))
        assert ((shown[:4] == 0).all(), (shown[4:] > 100).all()) == (True, True)


def test_an_rgb_geotiff_has_no_data_as_black_without_bands_too(tmp_path):
    values = np.full((3, 8, 8), 90, dtype=np.uint8)
    values[:, :4] = 255
    path = write_raster(tmp_path / "marked.tif", values, nodata=255)
    shown = np.asarray(decode(path.read_bytes(), "x"))
    assert ((shown[:4] == 0).all(), (shown[4:] == 90).all()) == (True, True)
    path = write_raster(tmp_path / "masked.tif", values)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK="YES"), rasterio.open(path, "r+") as file:
        file.write_mask(np.repeat([0, 255], 4)[:, None].repeat(8, axis=1).astype(np.uint8))
    shown = np.asarray(decode(path.read_bytes(), "x"))
    assert ((shown[:4] == 0).all(), (shown[4:] == 90).all()) == (True, True)
