"""Pre-training learns, and a run that is cut and resumed is the run that was not cut."""

import json

import pytest
import torch
from safetensors.torch import load_file

from fed_ist.datasets import open_all
from fed_ist.encoder import VitShape, build_vit
from fed_ist.errors import InputError
from fed_ist.pretrain import MaskedAutoencoder, PretrainConfig, augment, learning_rate_at, pretrain

TINY = VitShape(img_px=32, patch_px=8, embed_dim=48, depth=1, num_heads=3)


def config(**changes) -> PretrainConfig:
    values = {"shape": TINY, "epochs": 4, "batch_size": 16, "decoder_dim": 32, "decoder_depth": 1}
    return PretrainConfig(**(values | changes))


def test_the_loss_falls_and_the_weights_are_an_encoder_in_fp16(image_folder, tmp_path):
    path = pretrain(open_all(str(image_folder)), tmp_path, config(epochs=12), "cpu")
    history = json.loads((tmp_path / "history.json").read_text())["loss"]
    assert len(history) == 12
    assert history[-1] < 0.95 * history[0]
    state = load_file(path)
    wanted = build_vit(TINY).state_dict()
    assert set(wanted) < set(state)
    assert state["blocks.0.mlp.fc1.weight"].dtype == torch.float16


def test_a_resumed_run_ends_where_an_unbroken_one_does(image_folder, tmp_path, monkeypatch):
    source = open_all(str(image_folder))
    unbroken = pretrain(source, tmp_path / "a", config(), "cpu")

    class CutError(Exception):
        pass

    def cut_in_epoch_3(step, n_steps, cfg):
        if step == 7:
            raise CutError
        return learning_rate_at(step, n_steps, cfg)

    monkeypatch.setattr("fed_ist.pretrain.learning_rate_at", cut_in_epoch_3)
    with pytest.raises(CutError):
        pretrain(source, tmp_path / "b", config(), "cpu")
    monkeypatch.undo()
    resumed = pretrain(source, tmp_path / "b", config(), "cpu")
    assert resumed.read_bytes() == unbroken.read_bytes()


def test_a_checkpoint_of_other_settings_is_refused(image_folder, tmp_path):
    source = open_all(str(image_folder))
    pretrain(source, tmp_path, config(epochs=1), "cpu")
    with pytest.raises(InputError, match="was written with other settings"):
        pretrain(source, tmp_path, config(epochs=2), "cpu")


def test_only_hidden_patches_count_in_the_loss():
    model = MaskedAutoencoder(config(), fused_attention=False).eval()
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


def test_augmented_crops_are_whole_and_follow_their_seed():
    images = torch.randint(0, 256, (6, 3, 64, 64), dtype=torch.uint8)
    first, same, other = (
        augment(images, 32, 0.35, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert first.shape == (6, 3, 32, 32)
    assert first.dtype == torch.uint8
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_the_rate_warms_up_and_falls_to_nothing():
    rates = [learning_rate_at(step, 1000, config()) for step in range(1000)]
    assert rates.index(max(rates)) == 49
    assert rates[0] < 1e-3 / 20
    assert rates[-1] < 1e-7
