"""Pre-training learns, and a run that is cut and resumed is the run that was not cut."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from cut_training import cut_in_training
from hypothesis import given
from hypothesis import strategies as st
from programs import within
from safetensors.torch import load_file

from fed_ist.datasets.data_set import open_all
from fed_ist.encoder.backbone import VitShape, build_vit
from fed_ist.encoder.frozen import create_encoder
from fed_ist.encoder.spec import EncoderSpec
from fed_ist.errors import InputError
from fed_ist.pretraining.augment import crops, recolour, turned
from fed_ist.pretraining.average import MovingAverage
from fed_ist.pretraining.checks import check_config
from fed_ist.pretraining.contrast import MaskedContrast, info_nce
from fed_ist.pretraining.loop import epoch_order, learning_rate_at
from fed_ist.pretraining.mae import MaskedAutoencoder
from fed_ist.pretraining.pretrain import check_device, pretrain
from fed_ist.pretraining.stages import PretrainConfig, StageConfig, normalise

TINY = VitShape(img_px=32, patch_px=8, embed_dim=48, depth=1, num_heads=3)


def config(epochs: int = 2, tune_epochs: int = 2, **changes) -> PretrainConfig:
    mae = StageConfig(epochs, 16, 1e-3, 0.35)
    contrast = StageConfig(tune_epochs, 16, 1e-3, 0.2)
    small = PretrainConfig(shape=TINY, mae=mae, contrast=contrast, decoder_dim=32, decoder_depth=1)
    return replace(small, **changes)


def test_both_losses_fall_and_the_weights_are_an_encoder_in_fp16(image_folder, tmp_path):
    easy = config(12, 20, mask_ratio=0.25, tune_ratios=(0.25,))
    path = pretrain([open_all(str(image_folder))], tmp_path, easy, "cpu")
    loss = json.loads((tmp_path / "history.json").read_text())["loss"]
    assert {name: len(values) for name, values in loss.items()} == {"mae": 12, "contrast": 20}
    assert loss["mae"][-1] < 0.95 * loss["mae"][0]
    assert sum(loss["contrast"][-5:]) < 0.92 * sum(loss["contrast"][:5])
    state = load_file(path)
    wanted = build_vit(TINY).state_dict()
    assert set(wanted) < set(state)
    assert state["blocks.0.mlp.fc1.weight"].dtype == torch.float16


@pytest.mark.parametrize("cut_at", [1, 4, 7, 10])  # steps; each stage has two epochs of three
def test_a_run_resumed_in_either_stage_ends_where_an_unbroken_one_does(
    cut_at, image_folder, tmp_path
):
    source = [open_all(str(image_folder))]
    unbroken = pretrain(source, tmp_path / "a", config(), "cpu")

    with cut_in_training(cut_at):
        pretrain(source, tmp_path / "b", config(), "cpu")
    resumed = pretrain(source, tmp_path / "b", config(), "cpu")
    assert resumed.read_bytes() == unbroken.read_bytes()


def test_the_result_is_used_whatever_its_shape(image_folder, tmp_path):
    path = pretrain([open_all(str(image_folder))], tmp_path, config(1, 1), "cpu")
    encoder = create_encoder(EncoderSpec(weights=str(path)))
    assert (encoder.img_px, encoder.patch_px, encoder.embed_dim) == (32, 8, 48)


def test_training_can_start_from_weights(image_folder, tmp_path):
    source = [open_all(str(image_folder))]
    first = pretrain(source, tmp_path / "a", config(1, 0), "cpu")
    tuned = config(0, 1, init=str(first), contrast=StageConfig(1, 16, 1e-9, 0.2))
    second = load_file(pretrain(source, tmp_path / "b", tuned, "cpu"))
    for name, value in load_file(first).items():
        assert (value.float() - second[name].float()).abs().max() < 2e-3, name


def test_a_checkpoint_of_other_settings_or_a_broken_one_is_refused(image_folder, tmp_path):
    source = [open_all(str(image_folder))]
    pretrain(source, tmp_path, config(1, 0), "cpu")
    with pytest.raises(InputError, match="was written with other settings"):
        pretrain(source, tmp_path, config(2, 0), "cpu")
    (tmp_path / "checkpoint.pt").write_bytes(b"half")
    with pytest.raises(InputError, match=r"cannot be read as a checkpoint.*Move it away"):
        pretrain(source, tmp_path, config(1, 0), "cpu")


def test_a_checkpoint_of_other_images_is_refused(image_folder, tmp_path):
    source = open_all(str(image_folder))
    kept = pretrain([source], tmp_path, config(1, 0), "cpu").read_bytes()
    with pytest.raises(InputError, match=r"was written with other images\. Give the former"):
        pretrain([source.subset(np.arange(40))], tmp_path, config(1, 0), "cpu")
    assert pretrain([source], tmp_path, config(1, 0), "cpu").read_bytes() == kept


def test_a_stage_whose_loss_is_not_finite_ends_in_a_sentence_and_writes_nothing(
    image_folder, tmp_path
):
    wild = config(3, 0, mae=StageConfig(3, 16, 1e30, 0.35))
    with pytest.raises(InputError, match="The loss became nan in epoch 1 of 'mae'"):
        pretrain([open_all(str(image_folder))], tmp_path, wild, "cpu")
    assert list(tmp_path.iterdir()) == []


def test_images_that_are_all_the_same_make_no_encoder(image_folder, tmp_path):
    same = open_all(str(image_folder)).subset(np.zeros(4, dtype=np.int64))
    with pytest.raises(InputError, match="All images have the same embedding"):
        pretrain([same], tmp_path, config(1, 0), "cpu")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mask_ratio": 0.0}, "--mask-ratio 0.0 hides none of the 16 patches"),
        ({"mask_ratio": 1.0}, "mask-ratio = 1.0 is not possible"),
        ({"mae": StageConfig(1, 16, float("nan"), 0.35)}, "--learning-rate nan is not possible"),
        ({"contrast": StageConfig(1, 16, -1.0, 0.2)}, "--tune-learning-rate -1.0 is not possible"),
        ({"shape": replace(TINY, num_heads=5)}, "--embed-dim 48 is no multiple of --num-heads 5"),
        ({"shape": replace(TINY, patch_px=5)}, "--img-px 32 is no multiple of --patch-px 5"),
        ({"init": "absent.pth"}, "--init 'absent.pth' is not a file"),
    ],
)
def test_settings_that_cannot_train_are_refused(changes, words):
    check_config(config())
    with pytest.raises(InputError, match=words):
        check_config(config(**changes))


def test_a_folder_in_the_place_of_a_file_is_told_by_the_files_own_name(image_folder, tmp_path):
    (tmp_path / "out" / "encoder.safetensors").mkdir(parents=True)
    small = ("--img-px", 16, "--embed-dim", 32, "--num-heads", 1, "--depth", 1, "--limit", 4)
    done = within(
        *("pretrain", image_folder, "--out", tmp_path / "out"),
        *("--epochs", 1, "--tune-epochs", 0, *small),
    )
    assert done.returncode == 2
    assert "out/encoder.safetensors': Is a directory. Make room" in done.stderr.splitlines()[-1]


def test_a_device_that_is_not_there_is_refused():
    check_device("cpu")
    for name in ("cuda:77", "toaster", "meta"):
        with pytest.raises(InputError, match=f"--device {name} is not possible"):
            check_device(name)


def test_only_hidden_patches_count_in_the_loss_of_autoencoding():
    model = MaskedAutoencoder(build_vit(TINY), 0.75, 32, 1).eval()
    model.decoder_out.weight.data.zero_()
    model.decoder_out.bias.data.zero_()  # predicts 0 everywhere: the loss is the mean square target
    noise = torch.rand(1, 16)
    visible = noise.argsort(dim=1)[0, : model.n_visible]
    assert len(visible) == 4
    is_visible = torch.zeros(16).scatter(0, visible, 1.0).view(1, 1, 4, 4)
    is_visible = is_visible.repeat_interleave(8, 2).repeat_interleave(8, 3)
    texture = torch.randn(1, 3, 32, 32)
    assert float(model(texture * is_visible, noise)) == 0  # flat patches have targets of 0
    assert abs(float(model(texture * (1 - is_visible), noise)) - 1) < 0.02


def test_info_nce_by_hand():
    """Two rows at right angles: each finds its own at exp(1 / t) against exp(0)."""
    z = torch.tensor([[2.0, 0.0], [0.0, 3.0]])  # lengths are of no account
    expected = -torch.log(torch.exp(torch.tensor(2.0)) / (torch.exp(torch.tensor(2.0)) + 1))
    assert abs(float(info_nce(z, z, 0.5)) - float(expected)) < 1e-6
    assert float(info_nce(z, z.flip(0), 0.5)) > 2


def test_contrast_sees_the_visible_patches_alone():
    torch.manual_seed(0)
    model = MaskedContrast(build_vit(TINY), 32, 0.2).eval()
    views, noise = [torch.randn(4, 3, 32, 32) for _ in range(2)], [torch.rand(4, 16)] * 2
    hidden = torch.zeros(4, 16).scatter(1, noise[0].argsort(dim=1)[:, 4:], 1.0).view(4, 1, 4, 4)
    hidden = hidden.repeat_interleave(8, 2).repeat_interleave(8, 3)
    loss = model(views, noise, [4, 4])
    assert float(loss) == float(model([view + hidden for view in views], noise, [4, 4]))
    assert float(loss) != float(model([view + 1 - hidden for view in views], noise, [4, 4]))


def test_augmented_crops_are_whole_and_follow_their_seed():
    images = torch.randint(0, 256, (6, 3, 64, 64), dtype=torch.uint8)
    first, same, other = (
        crops(images, 32, 0.35, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert first.shape == (6, 3, 32, 32)
    assert first.dtype == torch.uint8
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_recoloured_images_stay_in_range_keep_their_shape_and_follow_their_seed(channels):
    images = torch.rand(40, channels, 8, 8)
    first, same = (recolour(images, 0.3, torch.Generator().manual_seed(0)) for _ in range(2))
    assert first.shape == images.shape
    assert 0 <= float(first.min()) <= float(first.max()) <= 1
    assert torch.equal(first, same)
    unchanged = recolour(images, 0.0, torch.Generator().manual_seed(0))
    differs = (unchanged - images).abs().amax(dim=(1, 2, 3)) > 1e-5
    # At no strength only what is turned grey changes: about one RGB image in ten.
    assert 0 < int(differs.sum()) < 12 if channels == 3 else not differs.any()


def test_bands_beyond_three_repeat_the_means():
    six = normalise(torch.rand(1, 3, 4, 4).repeat(1, 2, 1, 1))
    assert torch.equal(six[:, :3], six[:, 3:])


def test_the_rate_warms_up_and_falls_to_nothing():
    rates = [learning_rate_at(step, 1000, 1e-3, 0.05) for step in range(1000)]
    assert rates.index(max(rates)) == 49
    assert rates[0] < 1e-3 / 20
    assert rates[-1] < 1e-7


@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    parts=st.lists(st.integers(0, 9), min_size=4, max_size=4),
)
def test_an_epoch_holds_the_shares_and_no_image_twice_before_all_came(sizes, parts):
    shares = parts[: len(sizes)]
    if not any(shares):
        shares = []
    order = epoch_order(sizes, shares, torch.Generator().manual_seed(0))
    assert len(order) == sum(sizes)
    counts = torch.bincount(order, minlength=sum(sizes)).split(sizes)
    for i, times in enumerate(counts):
        assert int(times.max() - times.min()) <= 1
        if shares:
            assert abs(int(times.sum()) - sum(sizes) * shares[i] / sum(shares)) <= 1
        else:
            assert int(times.min()) == int(times.max()) == 1


def test_turned_images_come_in_all_eight_ways():
    image = torch.arange(16).reshape(1, 1, 4, 4)
    found = turned(image.repeat(200, 1, 1, 1), torch.Generator().manual_seed(0))
    ways = {tuple(way.flatten().tolist()) for way in found}
    wanted = [torch.rot90(image, i, (2, 3)) for i in range(4)]
    wanted += [way.flip(3) for way in wanted]
    assert ways == {tuple(way.flatten().tolist()) for way in wanted}


def test_the_moving_average_follows_the_weights():
    model = torch.nn.Linear(1, 1)
    model.weight.data.fill_(0.0)
    average = MovingAverage(model, 0.9)
    model.weight.data.fill_(1.0)
    average.follow(model, 0)
    assert float(average.weights["weight"]) == pytest.approx(0.9)  # fast at first
    for step in range(200, 203):
        model.weight.data.fill_(0.0)
        average.follow(model, step)
    assert float(average.weights["weight"]) == pytest.approx(0.9**4)
