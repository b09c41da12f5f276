"""Sides of images are checked against an encoder's patches before anything is fetched or read."""

import pytest
from typer.testing import CliRunner

from fed_ist.cli.main import cli
from fed_ist.encoder.frozen import check_encoder
from fed_ist.encoder.spec import MOST_IMG_PX, EncoderSpec
from fed_ist.errors import InputError

VIT, RESNET = "vit_tiny_patch16_224", "resnet18"


def refusal(name: str, img_px: int, pooling: str = "avg") -> str:
    """Of weights that would have to be fetched, which a test cannot."""
    with pytest.raises(InputError) as caught:
        check_encoder(EncoderSpec(name, "pretrained", pooling, img_px=img_px))
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "img_px", "patch_px", "nearest"),
    [
        (VIT, 100, 16, "96 or 112"),
        (VIT, 15, 16, "16"),
        ("vit_small_patch14_dinov2.lvd142m", 256, 14, "252 or 266"),
        ("vit_tiny_patch16_dinov3_qkvb", 300, 16, "288 or 304"),
        ("beit_base_patch16_224", 100, 16, "96 or 112"),
        ("swin_tiny_patch4_window7_224", 97, 4, "96 or 100"),
    ],
)
def test_a_side_that_is_not_whole_patches_is_told_with_the_nearest_that_are(
    name, img_px, patch_px, nearest
):
    assert refusal(name, img_px) == (
        f"img-px = {img_px} is no multiple of {patch_px} px, the side of a patch of '{name}': "
        f"give {nearest}."
    )


@pytest.mark.parametrize(
    ("name", "img_px", "nearest"),
    [("levit_128s", 100, "96, 128, or 0"), ("test_convnext", 5, "32, or 0")],
)
def test_a_side_on_which_another_model_fails_is_told_with_some_that_work(name, img_px, nearest):
    said = refusal(name, img_px)
    assert f"img-px = {img_px} does not go with encoder '{name}'" in said
    assert f"give {nearest} for its own" in said
    for side in (int(word) for word in nearest.split(", ")[:-1]):
        check_encoder(EncoderSpec(name, "pretrained", "avg", img_px=side))


@pytest.mark.parametrize(
    ("name", "img_px"), [(VIT, 0), (VIT, 224), (VIT, 96), (RESNET, 97), (RESNET, 0)]
)
def test_sides_that_a_model_can_take_pass(name, img_px):
    check_encoder(EncoderSpec(name, "pretrained", "avg", img_px=img_px))


def test_the_bundled_encoder_has_one_side():
    assert "img-px = 72 does not go with encoder 'vit_mae_patch8_64.aid'" in refusal(
        "vit_mae_patch8_64.aid", 72
    )


@pytest.mark.parametrize("img_px", [-1, MOST_IMG_PX + 1, 10**9])
def test_sides_of_no_image_are_refused_with_the_setting(img_px, make_config):
    with pytest.raises(InputError, match=f"img-px = {img_px} is not possible.*8192 at most"):
        make_config(img_px=img_px)


@pytest.mark.parametrize(
    "command",
    [
        ["probe", "GONE", "--encoder", VIT],
        ["export", "--onnx", "OUT", "--encoder", VIT],
        ["pack", "GONE", "--out", "OUT", "--patch-px", "16"],
        ["pretrain", "GONE", "--out", "OUT", "--patch-px", "16"],
    ],
    ids=lambda command: command[0],
)
def test_every_command_says_so_before_it_reads_or_writes(command, tmp_path):
    paths = {name: str(tmp_path / name) for name in ("GONE", "OUT")}
    words = [paths.get(word, word) for word in command]
    done = CliRunner().invoke(cli, [*words, "--img-px", "100"])
    assert isinstance(done.exception, InputError)
    assert "give 96 or 112." in str(done.exception)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["pack", "pretrain"])
def test_sides_of_no_image_are_refused_where_there_is_no_encoder(command, tmp_path):
    words = [command, str(tmp_path / "gone"), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(cli, [*words, "--img-px", "800000"])
    assert "--img-px 800000 is not possible: give a side of at most 8192 px." in str(done.exception)


def test_a_checkpoint_that_is_not_there_is_told_before_anything_else(tmp_path):
    spec = EncoderSpec("no_such_model", str(tmp_path / "gone.pth"), img_px=100)
    with pytest.raises(InputError, match=r"gone\.pth' \(--weights\) is not a file"):
        check_encoder(spec)


def test_a_path_in_place_of_an_encoders_name_is_told_as_such(tmp_path):
    path = tmp_path / "w.pth"
    path.touch()
    assert "It is a path: give a model's name, and the path as encoder-weights" in refusal(
        str(path), 0
    )
