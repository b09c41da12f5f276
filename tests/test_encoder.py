"""On visible patches the encoder is timm's, and MAE's, where these can be compared."""

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

from fed_ist.embeddings import MaskSpec, embed
from fed_ist.encoder import BUNDLED_ENCODERS, Encoder, VitShape, build_vit, create_encoder
from fed_ist.errors import InputError
from fed_ist.images import folder_source
from fed_ist.masks import visible_patches
from fed_ist.packing import patchify, take_visible

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
BUNDLED = next(iter(BUNDLED_ENCODERS))
SMALL = {
    "img_size": 64,
    "patch_size": 8,
    "embed_dim": 48,
    "depth": 2,
    "num_heads": 3,
    "num_classes": 0,
}
VARIANTS = {
    "plain": {},
    "registers": {"reg_tokens": 4},
    "registers without position": {"reg_tokens": 4, "no_embed_class": True},
    "no class token": {"class_token": False, "global_pool": "avg"},
    "norm before the blocks": {"pre_norm": True},
    "average pooling": {"global_pool": "avg"},
}


def small_vit(**options) -> VisionTransformer:
    torch.manual_seed(0)
    model = VisionTransformer(**(SMALL | options)).eval()
    for parameter in model.parameters():  # tokens and norms start at 0 and 1; stir them
        parameter.data += torch.randn_like(parameter) * 0.1
    return model


def normalised(images: np.ndarray) -> torch.Tensor:
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    return (x - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)


@pytest.mark.parametrize("variant", VARIANTS)
def test_with_every_patch_visible_tokens_equal_timms_forward_features(variant, images):
    model = small_vit(**VARIANTS[variant])
    encoder = Encoder("small", model, "avg", MEAN, STD)
    tokens = encoder.tokens(patchify(images, 8), np.arange(64))
    with torch.inference_mode():
        expected = model.forward_features(normalised(images))
    assert tokens.shape == expected.shape
    assert (tokens - expected).abs().max() < 1e-5


@pytest.mark.parametrize("mask", ["fixed", "shared", "saliency"])
def test_with_patches_hidden_tokens_equal_the_mae_encoder(mask, images):
    """MAE's forward_encoder: embed all, add positions, drop, then the class token."""
    model = small_vit()
    visible = visible_patches(mask, images, (8, 8), 0.75, np.random.default_rng(0))
    index = torch.from_numpy(np.broadcast_to(visible, (5, 16)).copy())
    with torch.inference_mode():
        x = model.patch_embed(normalised(images)) + model.pos_embed[:, 1:]
        x = torch.gather(x, 1, index[:, :, None].expand(-1, -1, 48))
        cls = (model.cls_token + model.pos_embed[:, :1]).expand(5, -1, -1)
        expected = model.norm(model.blocks(torch.cat([cls, x], dim=1)))
    encoder = Encoder("small", model, "cls", MEAN, STD)
    patches = take_visible(images, 8, visible)
    assert (encoder.tokens(patches, visible) - expected).abs().max() < 1e-5
    assert np.abs(encoder.encode(patches, visible) - expected[:, 0].numpy()).max() < 1e-5


@pytest.mark.parametrize("variant", ["plain", "average pooling"])
def test_average_pooling_equals_timms(variant, images):
    model = small_vit(**VARIANTS[variant])
    encoder = Encoder("small", model, "avg", MEAN, STD)
    with torch.inference_mode():
        tokens = model.forward_features(normalised(images))
        expected = model.fc_norm(tokens[:, 1:].mean(dim=1)).numpy()
    assert np.abs(encoder.encode(patchify(images, 8), np.arange(64)) - expected).max() < 1e-5


def test_both_poolings_are_concatenated(images):
    model, visible = small_vit(), np.arange(0, 64, 2)
    patches = take_visible(images, 8, visible)
    cls, avg, both = (
        Encoder("small", model, pooling, MEAN, STD).encode(patches, visible)
        for pooling in ("cls", "avg", "both")
    )
    assert (both == np.concatenate([cls, avg], axis=1)).all()


def test_timm_names_are_built_with_their_own_preprocessing(images):
    encoder = create_encoder("vit_tiny_patch16_224", "random", "cls", 0)
    assert (encoder.img_px, encoder.patch_px, encoder.embed_dim) == (224, 16, 192)
    assert encoder.digest == create_encoder("vit_tiny_patch16_224", "random", "cls", 0).digest
    assert encoder.digest != create_encoder("vit_tiny_patch16_224", "random", "cls", 1).digest
    assert encoder.digest != create_encoder("vit_tiny_patch16_224", "random", "avg", 0).digest


@pytest.mark.parametrize(
    ("name", "pooling", "sentence"),
    [
        ("vit_enormous", "cls", "Unknown encoder 'vit_enormous'"),
        ("resnet18", "avg", "of the kind 'resnet', which cannot run on visible patches"),
        ("swin_tiny_patch4_window7_224", "avg", "cannot run on visible patches"),
        ("vit_base_patch16_siglip_224", "cls", "has no class token.*pooling = 'avg'"),
    ],
)
def test_encoders_that_cannot_serve_are_refused(name, pooling, sentence):
    with pytest.raises(InputError, match=sentence):
        create_encoder(name, "random", pooling, 0)


def test_weights_that_cannot_be_fetched_are_one_clear_error(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"could not be fetched.*encoder-weights the path"):
        create_encoder("vit_tiny_patch16_224.augreg_in21k", "pretrained", "cls", 0)


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_a_local_checkpoint_is_loaded_without_its_head_and_decoder(ending, tmp_path, images):
    torch.manual_seed(3)
    state = build_vit(VitShape()).state_dict()
    path = tmp_path / f"w.{ending}"
    extras = {"head.weight": torch.zeros(5, 192), "decoder_embed.weight": torch.zeros(8, 192)}
    if ending == "pth":
        torch.save({"model": state | extras, "epoch": 3}, path)
    else:
        save_file(state | extras, path)
    encoder = create_encoder(BUNDLED, str(path), "cls", 0)
    assert (
        encoder.model.state_dict()["blocks.7.mlp.fc2.weight"] == state["blocks.7.mlp.fc2.weight"]
    ).all()


def test_checkpoints_that_do_not_fit_are_refused(tmp_path):
    narrow = build_vit(VitShape(embed_dim=96)).state_dict()
    save_file(narrow, tmp_path / "narrow.safetensors")
    with pytest.raises(InputError, match="of another architecture than encoder"):
        create_encoder(BUNDLED, str(tmp_path / "narrow.safetensors"), "cls", 0)
    shallow = build_vit(VitShape(depth=2)).state_dict()
    save_file(shallow, tmp_path / "shallow.safetensors")
    with pytest.raises(InputError, match=r"it lacks 'blocks\.2"):
        create_encoder(BUNDLED, str(tmp_path / "shallow.safetensors"), "cls", 0)
    (tmp_path / "text.safetensors").write_text("no checkpoint")
    with pytest.raises(InputError, match="cannot be read as a checkpoint"):
        create_encoder(BUNDLED, str(tmp_path / "text.safetensors"), "cls", 0)
    with pytest.raises(InputError, match="is not a file"):
        create_encoder(BUNDLED, str(tmp_path / "absent.safetensors"), "cls", 0)


def test_the_bundled_encoder_is_small_standardised_and_tells_scenes_apart(image_folder, tmp_path):
    encoder = create_encoder(BUNDLED, "pretrained", "cls", 0)
    assert sum(p.numel() for p in encoder.model.parameters()) < 4_000_000
    spec = MaskSpec("fixed", 0.5, "raw", 64, 8, 0, (0,))
    found, _ = embed(folder_source(image_folder), spec, encoder, tmp_path, pytest.fail)
    values = found.values - found.values.mean(axis=0)
    centres = np.stack([values[found.labels == k].mean(axis=0) for k in range(4)])
    nearest = ((values[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
    assert (nearest == found.labels).mean() > 0.8
    assert 0.2 < found.values.std() < 5


def test_embeddings_are_cached_and_a_second_run_encodes_nothing(
    image_folder, tmp_path, monkeypatch
):
    encoder = create_encoder(BUNDLED, "random", "cls", 0)
    spec = MaskSpec("fixed", 0.5, "raw", 64, 8, 0, (0,))
    first, folder = embed(folder_source(image_folder), spec, encoder, tmp_path, pytest.fail)
    monkeypatch.setattr(Encoder, "encode", lambda *_: pytest.fail("encoded again"))
    second, again = embed(folder_source(image_folder), spec, encoder, tmp_path, pytest.fail)
    assert folder == again
    assert (first.values == second.values).all()
    assert isinstance(second.values, np.memmap)


def test_the_cache_key_follows_data_mask_and_encoder(image_folder, tmp_path):
    encoder = create_encoder(BUNDLED, "random", "cls", 0)
    source = folder_source(image_folder)
    spec = MaskSpec("fixed", 0.5, "raw", 64, 8, 0, (0,))

    def folder(source=source, spec=spec, encoder=encoder):
        return embed(source, spec, encoder, tmp_path, pytest.fail)[1]

    keys = {
        folder(),
        folder(source=source.subset(np.arange(10))),
        folder(spec=MaskSpec("fixed", 0.75, "raw", 64, 8, 0, (0,))),
        folder(spec=MaskSpec("block", 0.5, "raw", 64, 8, 0, (0,))),
        folder(spec=MaskSpec("fixed", 0.5, "raw", 64, 8, 1, (0,))),
        folder(encoder=create_encoder(BUNDLED, "random", "cls", 1)),
    }
    assert len(keys) == 6


def test_a_damaged_cache_entry_is_encoded_again(image_folder, tmp_path):
    encoder = create_encoder(BUNDLED, "random", "cls", 0)
    spec = MaskSpec("fixed", 0.5, "raw", 64, 8, 0, (0,))
    first, folder = embed(folder_source(image_folder), spec, encoder, tmp_path, pytest.fail)
    expected = np.array(first.values)
    data = (folder / "embeddings.npy").read_bytes()
    (folder / "embeddings.npy").write_bytes(data[: len(data) // 2])
    again, _ = embed(folder_source(image_folder), spec, encoder, tmp_path, pytest.fail)
    assert (again.values == expected).all()


def test_timms_own_patch_dropout_drops_nothing_in_evaluation():
    """Why the encoder gathers the patches itself."""
    drop = timm.layers.PatchDropout(0.5).eval()
    assert drop(torch.zeros(1, 65, 8)).shape == (1, 65, 8)
