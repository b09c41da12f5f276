"""An encoder carries the statistics of its embeddings, and gives decorrelated ones by them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load, load_file, save_file
from typer.testing import CliRunner, Result

from fed_ist.cli.main import cli
from fed_ist.datasets.data_set import open_all
from fed_ist.encoder.backbone import VitShape, build_vit
from fed_ist.encoder.calibrate import calibrate
from fed_ist.encoder.embeddings import MaskSpec, embed
from fed_ist.encoder.features import (
    FEATURE_COVARIANCE,
    FEATURE_MEAN,
    FEATURE_STD,
    Moments,
    decorrelating,
    features_of,
    whole,
)
from fed_ist.encoder.frozen import create_encoder
from fed_ist.encoder.spec import EncoderSpec
from fed_ist.errors import InputError

SEEDS = st.integers(0, 2**32 - 1)


def correlated(seed: int, n: int = 50, dim: int = 6) -> torch.Tensor:
    """Embeddings whose numbers depend on each other, far from 0: float32 (n, dim)."""
    rng = np.random.default_rng(seed)
    drawn = rng.standard_normal((n, dim)) @ rng.standard_normal((dim, dim)) + 100
    return torch.from_numpy(drawn.astype(np.float32))


@given(SEEDS, st.lists(st.integers(1, 20), min_size=1, max_size=5))
def test_moments_do_not_depend_on_how_embeddings_come(seed, sizes):
    rows = correlated(seed, sum(sizes) + 1)
    moments = Moments()
    for part in torch.split(rows, [*sizes, 1]):
        moments.add(part)
    expected = np.cov(rows.double().numpy(), rowvar=False, bias=True)
    assert np.allclose(moments.mean, rows.double().mean(dim=0))
    assert np.allclose(moments.covariance, expected, atol=1e-9 * np.abs(expected).max())


@given(SEEDS)
def test_what_a_checkpoint_holds_is_the_whole_covariance(seed):
    moments = Moments()
    moments.add(correlated(seed))
    held = features_of([moments])[FEATURE_COVARIANCE][0]
    assert held.shape == (6 * 7 // 2,)
    assert torch.allclose(whole(held, 6), moments.covariance, rtol=1e-5)


@given(SEEDS, st.floats(0, 1))
def test_decorrelated_embeddings_have_variance_one_on_average(seed, power):
    rows = correlated(seed)
    moments = Moments()
    moments.add(rows)
    matrix = decorrelating(moments.covariance, power)
    assert torch.equal(matrix, matrix.T) or torch.allclose(matrix, matrix.T, atol=1e-6)
    made = (rows.double() - moments.mean) @ matrix.double()
    assert float(made.square().mean()) == pytest.approx(1, rel=1e-3)


def test_power_one_whitens_and_power_none_only_scales():
    moments = Moments()
    moments.add(correlated(0, 500))
    covariance = moments.covariance
    white = decorrelating(covariance, power=1, floor=0).double()
    assert torch.allclose(white @ covariance @ white, torch.eye(6).double(), atol=1e-3)
    scaled = decorrelating(covariance, power=0)
    assert torch.allclose(scaled, scaled[0, 0] * torch.eye(6), atol=1e-5)


def test_directions_that_never_vary_stay_small():
    covariance = torch.diag(torch.tensor([4.0, 1.0, 0.0]).double())
    matrix = decorrelating(covariance)
    assert torch.isfinite(matrix).all()
    assert matrix[2, 2] < 5 * matrix[0, 0]


def embeddings(spec: EncoderSpec, folder: Path, cache: Path) -> np.ndarray:
    encoder = create_encoder(spec, cache)
    mask = MaskSpec(
        "fixed", 0.0, "raw", encoder.img_px, encoder.patch_px, 0, (),
        interpolation=encoder.interpolation,
    )  # fmt: skip
    found, _ = embed(open_all(str(folder)), mask, encoder, cache, pytest.fail)
    return np.asarray(found.values)


BUNDLED = ROOT / "fed_ist/encoder/weights/vit_mae_patch8_64.aid.safetensors"


def about(path: Path) -> dict[str, object]:
    """What a checkpoint of ours says of itself."""
    with safe_open(path, framework="pt") as file:
        found: dict[str, object] = json.loads(file.metadata()["fed-ist"])
    return found


def weights_of(name: str, folder: Path) -> Path:
    """A checkpoint of a timm model with random weights."""
    torch.manual_seed(0)
    path = folder / f"{name}.safetensors"
    save_file(timm.create_model(name, num_classes=0).state_dict(), path)
    return path


@pytest.mark.parametrize(
    ("name", "pooling"),
    [
        ("test_vit", "cls"),
        ("test_vit", "avg"),
        ("test_vit", "both"),
        ("test_efficientnet", "avg"),  # no transformer
        ("vit_mae_patch8_64.aid", "cls"),
    ],
)
def test_a_calibrated_encoder_centres_and_evens_out_its_embeddings(
    name, pooling, image_folder, tmp_path
):
    bundled = name.startswith("vit_mae")
    weights = "pretrained" if bundled else str(weights_of(name, tmp_path))
    spec = EncoderSpec(name, weights, pooling)
    path = tmp_path / "calibrated.safetensors"
    path.write_bytes(calibrate(spec, open_all(str(image_folder)), tmp_path, pytest.fail))
    before = embeddings(spec, image_folder, tmp_path)
    after = embeddings(EncoderSpec(name, str(path), pooling), image_folder, tmp_path)
    assert np.abs(after.mean(axis=0)).max() < 1e-3
    assert after.var(axis=0).mean() == pytest.approx(1, rel=1e-2)

    def spread(values: np.ndarray) -> float:
        variances = np.linalg.eigvalsh(np.cov(values[:, : before.shape[1]], rowvar=False))
        return float(variances.max() / variances.sum())

    assert spread(after) < 0.9 * spread(before)
    if bundled:
        assert path.stat().st_size < 8e6
        assert about(path).items() >= {"epochs": about(BUNDLED)["epochs"]}.items()


def test_features_take_no_part_in_where_weights_are_looked_for(image_folder, tmp_path):
    spec = EncoderSpec("test_vit", str(weights_of("test_vit", tmp_path)), "cls")
    path = tmp_path / "again.safetensors"
    path.write_bytes(calibrate(spec, open_all(str(image_folder)), tmp_path, pytest.fail))
    twice = calibrate(
        EncoderSpec("test_vit", str(path), "cls"),
        open_all(str(image_folder)),
        tmp_path,
        pytest.fail,
    )
    assert twice == path.read_bytes()


def test_an_encoders_digest_follows_from_its_covariance_and_not_from_how_a_machine_rounds(
    image_folder, tmp_path
):
    spec = EncoderSpec("test_vit", str(weights_of("test_vit", tmp_path)), "cls")
    path = tmp_path / "calibrated.safetensors"
    path.write_bytes(calibrate(spec, open_all(str(image_folder)), tmp_path, pytest.fail))

    def digest(nudge: float, scale: float = 1.0) -> str:
        tensors = load_file(path)
        tensors[FEATURE_COVARIANCE] = tensors[FEATURE_COVARIANCE] * scale
        save_file(tensors, tmp_path / "changed.safetensors")
        changed = EncoderSpec("test_vit", str(tmp_path / "changed.safetensors"), "cls")
        encoder = create_encoder(changed)
        encoder.module.feature_matrix += nudge
        return encoder.digest

    assert digest(1e-6) == digest(0)
    assert digest(0, scale=1.1) != digest(0)


def test_statistics_of_another_encoder_are_refused_in_a_sentence(tmp_path):
    for shape in ((1, 192), (2, 190)):
        path = tmp_path / "other.safetensors"
        weights = {k: v.contiguous() for k, v in build_vit(VitShape()).state_dict().items()}
        save_file(weights | {FEATURE_MEAN: torch.zeros(shape)}, path)
        with pytest.raises(InputError, match="does not fit an encoder of 192 numbers"):
            create_encoder(EncoderSpec("vit_mae_patch8_64.aid", str(path), "avg"))


HARM = {
    "nan": (FEATURE_COVARIANCE, lambda values: values * torch.nan, "are not finite"),
    "infinite": (FEATURE_MEAN, lambda values: values / 0, "are not finite"),
    "negative": (FEATURE_COVARIANCE, lambda values: -values, "are no covariance"),
    "zero": (FEATURE_COVARIANCE, lambda values: 0 * values, "are no covariance, as .* from 0 to 0"),
    "cut": (FEATURE_COVARIANCE, lambda values: values[:, 1:], "does not fit an encoder of"),
    "flat": (FEATURE_MEAN, lambda values: values[0], "does not fit an encoder of"),
    "deviation": (FEATURE_STD, lambda values: 0 * values, "are not above 0"),
}


@pytest.mark.parametrize("name", ["test_vit", "test_efficientnet"])
def test_harmed_statistics_are_refused_in_a_sentence_and_can_be_made_anew(
    name, image_folder, tmp_path
):
    spec = EncoderSpec(name, str(weights_of(name, tmp_path)), "avg")
    images = open_all(str(image_folder)).subset(np.arange(6))
    whole = calibrate(spec, images, tmp_path, pytest.fail)
    harmed = replace(spec, weights=str(tmp_path / "harmed.safetensors"))
    for key, harm, words in HARM.values():
        tensors = load(whole)
        tensors[key] = harm(tensors.get(key, tensors[FEATURE_MEAN])).contiguous()
        save_file(tensors, harmed.weights)
        with pytest.raises(InputError, match=f"'{key}' .*{words}.*fed-ist calibrate"):
            create_encoder(harmed)
        assert load(calibrate(harmed, images, tmp_path, pytest.fail)).keys() == load(whole).keys()


def test_images_that_are_all_the_same_give_no_statistics(image_folder, tmp_path):
    spec = EncoderSpec("test_vit", str(weights_of("test_vit", tmp_path)), "avg")
    same = open_all(str(image_folder)).subset(np.zeros(5, dtype=np.int64))
    with pytest.raises(InputError, match="All images have the same embedding"):
        calibrate(spec, same, tmp_path, pytest.fail)


def test_a_checkpoint_of_an_earlier_version_divides_by_its_deviations(image_folder, tmp_path):
    torch.manual_seed(0)
    vit = build_vit(VitShape())
    mean, deviation = torch.randn(2, 192), torch.rand(2, 192) + 0.5
    plain = {name: value.contiguous() for name, value in vit.state_dict().items()}
    old = {FEATURE_MEAN: mean, FEATURE_STD: deviation}
    save_file(plain, tmp_path / "plain.safetensors")
    save_file(plain | old, tmp_path / "old.safetensors")
    found = {
        name: embeddings(
            EncoderSpec("vit_mae_patch8_64.aid", str(tmp_path / f"{name}.safetensors")),
            image_folder,
            tmp_path,
        )
        for name in ("plain", "old")
    }
    expected = (found["plain"] - mean[0].numpy()) / deviation[0].numpy()
    assert np.allclose(found["old"], expected, atol=1e-5)


def invoke(*words: str) -> Result:
    return CliRunner().invoke(cli, list(words))


def test_the_command_writes_a_file_for_a_run_and_overwrites_nothing(image_folder, tmp_path):
    out = tmp_path / "mine.safetensors"
    arguments = ("calibrate", "test_vit", str(image_folder), "--out", str(out))
    weights = ("--weights", str(weights_of("test_vit", tmp_path)))
    done = invoke(*arguments, *weights)
    assert done.exit_code == 0, done.output
    assert FEATURE_COVARIANCE in load_file(out)
    again = invoke(*arguments, *weights)
    assert isinstance(again.exception, InputError)
    assert "exists already" in str(again.exception)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (("--weights", "random"), "no encoder to calibrate"),
        (("--out", "mine.pth"), "ends in .safetensors"),
        (("--limit", "1"), "one alone does not vary"),
    ],
)
def test_what_cannot_be_calibrated_is_one_sentence(changes, said, image_folder, tmp_path):
    weights = ("--weights", str(weights_of("test_vit", tmp_path)))
    out = ("--out", str(tmp_path / "mine.safetensors"))
    done = invoke("calibrate", "test_vit", str(image_folder), *weights, *out, *changes)
    assert isinstance(done.exception, InputError)
    assert said in str(done.exception)


def test_one_image_is_too_few(tmp_path, image_folder):
    source = open_all(str(image_folder)).subset(np.array([0]))
    with pytest.raises(InputError, match="one alone does not vary"):
        calibrate(
            EncoderSpec("test_vit", str(weights_of("test_vit", tmp_path)), "cls"),
            source, tmp_path, pytest.fail,
        )  # fmt: skip
