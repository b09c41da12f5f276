"""On visible patches the encoder is timm's, and MAE's, where these can be compared."""

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer

from fed_ist.datasets.folders import folder_source
from fed_ist.encoder.backbone import Backbone, VitShape, build_vit
from fed_ist.encoder.embeddings import MaskSpec, embed
from fed_ist.encoder.frozen import Encoder, create_encoder, images_in_step
from fed_ist.encoder.spec import BUNDLED_ENCODER, EncoderSpec
from fed_ist.errors import InputError
from fed_ist.images.masks import visible_patches
from fed_ist.images.packing import PackedBatch, patchify, take_visible

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
SMALL = {
    "img_size": 64,
    "patch_size": 8,
    "embed_dim": 48,
    "depth": 2,
    "num_heads": 3,
    "num_classes": 0,
}
ROPE = {"use_rot_pos_emb": True, "use_abs_pos_emb": False, "global_pool": "token"}
VARIANTS = {
    "plain": (VisionTransformer, {}),
    "registers": (VisionTransformer, {"reg_tokens": 4}),
    "registers without position": (VisionTransformer, {"reg_tokens": 4, "no_embed_class": True}),
    "no class token": (VisionTransformer, {"class_token": False, "global_pool": "avg"}),
    "norm before the blocks": (VisionTransformer, {"pre_norm": True}),
    "average pooling": (VisionTransformer, {"global_pool": "avg"}),
    "attention pooling": (VisionTransformer, {"class_token": False, "global_pool": "map"}),
    "rotary": (Eva, ROPE),
    "rotary, as DINOv3": (
        Eva,
        ROPE
        | {"rope_type": "dinov3", "rope_rotate_half": True, "num_reg_tokens": 4}
        | {"dynamic_img_size": True, "init_values": 1e-5, "qkv_bias": False},
    ),
    "rotary, learned by block": (Eva, ROPE | {"rope_type": "mixed"}),
    "rotary and absolute": (Eva, ROPE | {"use_abs_pos_emb": True}),
}


def small(variant: str = "plain") -> VisionTransformer | Eva:
    torch.manual_seed(0)
    kind, options = VARIANTS[variant]
    model = kind(**(SMALL | options)).eval()
    for parameter in model.parameters():  # tokens and norms start at 0 and 1; stir them
        parameter.data += torch.randn_like(parameter) * 0.1
    return model


def encoder_of(model, pooling: str = "avg") -> Encoder:
    spec = EncoderSpec("small", "random", pooling)
    return Encoder(spec, Backbone(model, 64, MEAN, STD, "bicubic", {}))


def tokens_of(encoder: Encoder, patches: np.ndarray, visible: np.ndarray) -> torch.Tensor:
    with torch.inference_mode():
        return encoder.module.tokens(torch.from_numpy(patches), torch.from_numpy(visible))


def normalised(images: np.ndarray) -> torch.Tensor:
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    return (x - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)


@pytest.mark.parametrize("variant", VARIANTS)
def test_with_every_patch_visible_tokens_equal_timms_forward_features(variant, images):
    model = small(variant)
    tokens = tokens_of(encoder_of(model), patchify(images, 8), np.arange(64))
    with torch.inference_mode():
        expected = model.forward_features(normalised(images))
    assert tokens.shape == expected.shape
    assert (tokens - expected).abs().max() < 1e-5


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_mask_of_each_image_and_one_for_all_give_the_same_tokens(variant, images):
    encoder = encoder_of(small(variant))
    visible = np.array([3, 5, 17, 40])
    patches = take_visible(images, 8, visible)
    shared = tokens_of(encoder, patches, visible)
    each = tokens_of(encoder, patches, np.tile(visible, (5, 1)))
    assert (shared - each).abs().max() < 1e-5


@pytest.mark.parametrize("variant", ["rotary", "rotary, as DINOv3", "rotary, learned by block"])
def test_rotary_positions_stay_with_their_patches(variant, images):
    """The order of the visible patches is of no account, as attention sees positions alone."""
    encoder = encoder_of(small(variant), "cls")
    visible = np.array([3, 5, 17, 40])
    patches = take_visible(images, 8, visible)
    order = np.array([2, 0, 3, 1])
    there = encoder.encode(patches, visible)
    assert np.abs(encoder.encode(patches[:, order], visible[order]) - there).max() < 1e-5
    assert np.abs(encoder.encode(patches[:, order], visible) - there).max() > 1e-3


@pytest.mark.parametrize("mask", ["fixed", "shared", "saliency"])
def test_with_patches_hidden_tokens_equal_the_mae_encoder(mask, images):
    """MAE's forward_encoder: embed all, add positions, drop, then the class token."""
    model = small()
    visible = visible_patches(mask, images, (8, 8), 0.75, np.random.default_rng(0))
    index = torch.from_numpy(np.broadcast_to(visible, (5, 16)).copy())
    with torch.inference_mode():
        x = model.patch_embed(normalised(images)) + model.pos_embed[:, 1:]
        x = torch.gather(x, 1, index[:, :, None].expand(-1, -1, 48))
        cls = (model.cls_token + model.pos_embed[:, :1]).expand(5, -1, -1)
        expected = model.norm(model.blocks(torch.cat([cls, x], dim=1)))
    encoder = encoder_of(model, "cls")
    patches = take_visible(images, 8, visible)
    assert (tokens_of(encoder, patches, visible) - expected).abs().max() < 1e-5
    assert np.abs(encoder.encode(patches, visible) - expected[:, 0].numpy()).max() < 1e-5


@pytest.mark.parametrize(
    ("variant", "pooling"),
    [("plain", "avg"), ("average pooling", "avg"), ("attention pooling", "map"), ("rotary", "cls")],
)
def test_pooling_equals_timms(variant, pooling, images):
    model = small(variant)
    names = {"avg": "avg", "map": "map", "cls": "token"}
    with torch.inference_mode():
        tokens = model.forward_features(normalised(images))
        expected = model.fc_norm(model.pool(tokens, pool_type=names[pooling])).numpy()
    encoder = encoder_of(model, pooling)
    assert np.abs(encoder.encode(patchify(images, 8), np.arange(64)) - expected).max() < 1e-5


def test_both_poolings_are_concatenated(images):
    model, visible = small(), np.arange(0, 64, 2)
    patches = take_visible(images, 8, visible)
    cls, avg, both = (
        encoder_of(model, pooling).encode(patches, visible) for pooling in ("cls", "avg", "both")
    )
    assert (both == np.concatenate([cls, avg], axis=1)).all()


# What the field uses, by timm's names, as small as they come; the large ones are built alike.
FIELD = {
    "vit_base_patch16_224.mae": ("cls", 224, 16, 768),
    "vit_small_patch14_dinov2.lvd142m": ("cls", 518, 14, 384),
    "vit_small_patch14_reg4_dinov2.lvd142m": ("both", 518, 14, 768),
    "vit_small_patch16_dinov3.lvd1689m": ("cls", 256, 16, 384),
    "vit_base_patch16_siglip_224.webli": ("map", 224, 16, 768),
    "vit_tiny_patch16_224.augreg_in21k": ("cls", 224, 16, 192),
    "vit_small_patch16_224.dino": ("avg", 224, 16, 384),
}


@pytest.mark.parametrize("name", FIELD)
def test_the_fields_encoders_run_on_visible_patches_with_timms_preprocessing(name):
    pooling, img_px, patch_px, dim = FIELD[name]
    encoder = create_encoder(EncoderSpec(name, "random", pooling))
    assert (encoder.img_px, encoder.patch_px, encoder.embed_dim) == (img_px, patch_px, dim)
    assert encoder.note == ""
    config = timm.get_pretrained_cfg(name)
    assert encoder.interpolation == config.interpolation
    # A patch of the mean colour is embedded as the bias alone.
    mean = np.round(np.array(config.mean) * 255).astype(np.uint8)
    patch = torch.from_numpy(np.tile(mean, patch_px**2)).float()
    embedded = encoder.module.patch_weight @ patch + encoder.module.patch_bias
    bias = encoder.module.vit.patch_embed.proj.bias
    assert (embedded - bias).abs().max() < 0.1
    rng = np.random.default_rng(0)
    visible = np.sort(rng.permutation(encoder.grid[0] ** 2)[:5])
    patches = rng.integers(0, 256, (2, 5, patch_px**2 * 3), dtype=np.uint8)
    assert np.isfinite(encoder.encode(patches, visible)).all()


def test_the_satellite_dinov3_is_known_with_its_own_preprocessing():
    """1.2 GB of random weights say nothing more than those of the small one."""
    config = timm.get_pretrained_cfg("vit_large_patch16_dinov3.sat493m")
    assert config.mean == (0.430, 0.411, 0.296)
    model = timm.create_model(
        "vit_large_patch16_dinov3.sat493m", num_classes=0, depth=2, img_size=64
    )
    encoder = encoder_of(model.eval(), "cls")
    assert encoder.note == ""
    assert encoder.module.rope.shape[0] == 16


def test_a_smaller_image_size_is_the_models_own_at_that_size():
    spec = EncoderSpec("vit_small_patch14_dinov2.lvd142m", "random", "cls", img_px=224)
    encoder = create_encoder(spec)
    assert (encoder.img_px, encoder.grid) == (224, (16, 16))
    with pytest.raises(
        InputError, match=f"img-px = 96 does not go with encoder '{BUNDLED_ENCODER}'"
    ):
        create_encoder(EncoderSpec(img_px=96))


@pytest.mark.parametrize("name", ["resnet50.a1_in1k", "swin_tiny_patch4_window7_224.ms_in1k"])
def test_what_cannot_drop_patches_sees_the_image_filled_with_the_mean_colour(name):
    encoder = create_encoder(EncoderSpec(name, "random", "avg"))
    assert "cannot leave out patches" in encoder.note
    assert "saves bytes but no time" in encoder.note
    images = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    visible = visible_patches("fixed", images, encoder.grid, 0.5, np.random.default_rng(1))
    patches = take_visible(images, encoder.patch_px, visible)
    config = timm.get_pretrained_cfg(name)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (config.mean, config.std))
    whole = ((torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255) - mean) / std
    kept = torch.zeros(2, 14 * 14).scatter(1, torch.from_numpy(visible), 1.0).view(2, 1, 14, 14)
    kept = kept.repeat_interleave(16, 2).repeat_interleave(16, 3)
    with torch.inference_mode():
        filled = encoder.module.fill(torch.from_numpy(patches), torch.from_numpy(visible))
        expected = encoder.module.model(whole * kept).numpy()
    assert (filled - whole * kept).abs().max() < 1e-5
    assert np.abs(encoder.encode(patches, visible) - expected).max() < 1e-4


def test_weights_of_timm_names_follow_the_seed():
    def digest(pooling: str = "cls", seed: int = 0) -> str:
        return create_encoder(EncoderSpec("vit_tiny_patch16_224", "random", pooling, seed)).digest

    assert digest() == digest()
    assert len({digest(), digest(seed=1), digest("avg")}) == 3


@pytest.mark.parametrize(
    ("name", "pooling", "sentence"),
    [
        ("vit_enormous", "cls", "Unknown encoder 'vit_enormous'"),
        ("vit_tiny_patch16_2244", "cls", "Similar timm names: vit_tiny_patch16_224,"),
        ("vit_base_patch16_224.mea", "cls", r"no such weights.*vit_base_patch16_224\.mae"),
        ("resnet18", "cls", "cannot leave out patches and pools in its own way.*pooling = 'avg'"),
        ("vit_base_patch16_siglip_224", "cls", "no class token.*pooling = 'map' or 'avg'"),
        ("vit_tiny_patch16_224", "map", "no attention pooling.*'both' or 'avg' or 'cls'"),
        ("vit_tiny_patch16_224", "max", "Unknown pooling 'max'"),
    ],
)
def test_encoders_that_cannot_serve_are_refused(name, pooling, sentence):
    with pytest.raises(InputError, match=sentence):
        create_encoder(EncoderSpec(name, "random", pooling))


def test_weights_that_cannot_be_fetched_are_one_clear_error(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"could not be fetched.*encoder-weights .* the path of"):
        create_encoder(EncoderSpec("vit_tiny_patch16_224.augreg_in21k"))


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_a_local_checkpoint_is_loaded_without_its_head_and_decoder(ending, tmp_path):
    torch.manual_seed(3)
    state = build_vit(VitShape()).state_dict()
    path = tmp_path / f"w.{ending}"
    extras = {
        "head.weight": torch.zeros(5, 192),
        "decoder_embed.weight": torch.zeros(8, 192),
        "mask_token": torch.zeros(1, 1, 8),
    }
    if ending == "pth":
        torch.save({"model": state | extras, "epoch": 3}, path)
    else:
        save_file(state | extras, path)
    loaded = create_encoder(EncoderSpec(weights=str(path))).module.vit.state_dict()
    assert (loaded["blocks.7.mlp.fc2.weight"] == state["blocks.7.mlp.fc2.weight"]).all()


def test_a_local_checkpoint_of_a_timm_model_is_loaded_and_its_positions_are_interpolated(tmp_path):
    name = "vit_tiny_patch16_224"
    torch.manual_seed(3)
    model = timm.create_model(name, num_classes=7)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    weights = str(tmp_path / "w.safetensors")
    same = create_encoder(EncoderSpec(name, weights)).module.vit.state_dict()
    assert all((same[key] == value).all() for key, value in model.state_dict().items()
               if not key.startswith("head"))  # fmt: skip
    small_one = create_encoder(EncoderSpec(name, weights, img_px=96))
    assert small_one.module.vit.pos_embed.shape == (1, 37, 192)
    with pytest.raises(InputError, match="of another architecture than encoder 'vit_small"):
        create_encoder(EncoderSpec("vit_small_patch16_224", weights))


def test_checkpoints_that_do_not_fit_are_refused(tmp_path):
    def refusal(state, name: str) -> str:
        save_file(state, tmp_path / name)
        with pytest.raises(InputError) as caught:
            create_encoder(EncoderSpec(weights=str(tmp_path / name)))
        return str(caught.value)

    narrow = build_vit(VitShape(embed_dim=96)).state_dict()
    assert "of another architecture" in refusal(narrow, "narrow.safetensors")
    shallow = build_vit(VitShape(depth=2)).state_dict()
    assert "it lacks 'blocks.2" in refusal(shallow, "shallow.safetensors")
    (tmp_path / "text.safetensors").write_text("no checkpoint")
    for name, sentence in (("text", "cannot be read as a checkpoint"), ("gone", "is not a file")):
        with pytest.raises(InputError, match=sentence):
            create_encoder(EncoderSpec(weights=str(tmp_path / f"{name}.safetensors")))


@pytest.mark.parametrize("name", [BUNDLED_ENCODER, "vit_tiny_patch16_224", "resnet18"])
@pytest.mark.parametrize("in_chans", [1, 4, 13])
def test_any_number_of_bands_is_encoded(name, in_chans):
    weights = "pretrained" if name == BUNDLED_ENCODER else "random"
    encoder = create_encoder(EncoderSpec(name, weights, "avg", in_chans=in_chans))
    pixels = encoder.patch_px**2 * in_chans
    patches = np.random.default_rng(0).integers(0, 256, (2, 4, pixels), dtype=np.uint8)
    values = encoder.encode(patches, np.arange(4))
    assert values.shape == (2, encoder.embed_dim)
    assert np.isfinite(values).all()


def test_six_bands_that_repeat_rgb_are_embedded_as_rgb(images):
    """timm's `adapt_input_conv` repeats the kernels at half their size."""
    rgb = create_encoder(EncoderSpec())
    six = create_encoder(EncoderSpec(in_chans=6))
    twice = np.concatenate([images, images], axis=3)
    visible = np.arange(0, 64, 3)
    a = rgb.encode(take_visible(images, 8, visible), visible)
    b = six.encode(take_visible(twice, 8, visible), visible)
    assert np.abs(a - b).max() < 1e-3


def test_weights_of_four_bands_are_for_four_bands(tmp_path):
    save_file(build_vit(VitShape(in_chans=4)).state_dict(), tmp_path / "four.safetensors")
    weights = str(tmp_path / "four.safetensors")
    assert create_encoder(EncoderSpec(weights=weights, in_chans=4)).embed_dim == 192
    with pytest.raises(InputError, match=r"'patch_embed.proj.weight' is \(192, 4, 8, 8\) there"):
        create_encoder(EncoderSpec(weights=weights, in_chans=3))


@pytest.mark.parametrize("name", ["vit_tiny_r_s16_p8_224", "beit_base_patch16_224"])
def test_a_convolutional_stem_or_relative_positions_need_the_whole_image(name):
    assert "cannot leave out patches" in create_encoder(EncoderSpec(name, "random", "avg")).note


@pytest.mark.parametrize("precision", ["bf16", "int8"])
@pytest.mark.parametrize("name", [BUNDLED_ENCODER, "vit_small_patch16_dinov3.lvd1689m"])
def test_lower_precision_gives_nearly_the_same_embeddings(name, precision):
    weights = "pretrained" if name == BUNDLED_ENCODER else "random"
    exact = create_encoder(EncoderSpec(name, weights))
    rough = create_encoder(EncoderSpec(name, weights, precision=precision))
    assert exact.digest != rough.digest
    rng = np.random.default_rng(0)
    visible = np.arange(0, 64, 2)
    patches = rng.integers(0, 256, (8, 32, exact.patch_px**2 * 3), dtype=np.uint8)
    a, b = exact.encode(patches, visible), rough.encode(patches, visible)
    assert b.dtype == np.float32
    assert (a != b).any()
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosine.min() > 0.98


def test_lower_precision_is_for_transformers():
    with pytest.raises(InputError, match="precision = 'int8' is for transformers"):
        create_encoder(EncoderSpec("resnet18", "random", "avg", precision="int8"))
    with pytest.raises(InputError, match="Unknown precision 'fp8'"):
        EncoderSpec(precision="fp8")


def test_fewer_patches_make_larger_steps():
    sizes = [images_in_step(n) for n in (1, 16, 64, 196, 5000)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 1


@pytest.mark.parametrize("shared", [True, False])
def test_batches_are_encoded_in_order_and_the_number_of_threads_is_left_alone(shared):
    encoder = create_encoder(EncoderSpec(weights="random"))
    rng = np.random.default_rng(0)
    batches = []
    for n in (7, 1, 12):
        patches = rng.integers(0, 256, (n, 4, 192), dtype=np.uint8)
        each = np.stack([np.sort(rng.permutation(64)[:4]) for _ in range(n)])
        visible = np.array([3, 5, 17, 40]) if shared else each
        batches.append(PackedBatch(patches, visible, np.arange(n)))
    n_threads = torch.get_num_threads()
    found = list(encoder.encode_all(batches, 3))
    assert torch.get_num_threads() == n_threads
    assert [len(labels) for _, labels in found] == [3, 3, 1, 1, 3, 3, 3, 3]
    values = np.concatenate([values for values, _ in found])
    expected = np.concatenate([encoder.encode(b.patches, b.visible) for b in batches])
    assert np.abs(values - expected).max() < 1e-5
    again = np.concatenate([values for values, _ in encoder.encode_all(batches, 3)])
    assert (values == again).all()


def test_the_bundled_encoder_is_small_standardised_and_tells_scenes_apart(image_folder, tmp_path):
    encoder = create_encoder(EncoderSpec())
    assert sum(p.numel() for p in encoder.module.vit.parameters()) < 4_000_000
    spec = MaskSpec("fixed", 0.5, "raw", 64, 8, 0, (0,))
    found, _ = embed(folder_source(image_folder), spec, encoder, tmp_path, pytest.fail)
    values = found.values - found.values.mean(axis=0)
    centres = np.stack([values[found.labels == k].mean(axis=0) for k in range(4)])
    nearest = ((values[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
    assert (nearest == found.labels).mean() > 0.8
    assert 0.2 < found.values.std() < 5


@pytest.mark.parametrize("codec", ["raw", "webp"])
def test_embeddings_are_cached_and_a_second_run_encodes_nothing(
    codec, image_folder, tmp_path, monkeypatch
):
    encoder = create_encoder(EncoderSpec(weights="random"))
    spec = MaskSpec("fixed", 0.5, codec, 64, 8, 0, (0,))
    first, folder = embed(folder_source(image_folder), spec, encoder, tmp_path, pytest.fail)
    monkeypatch.setattr(Encoder, "encode_all", lambda *_: pytest.fail("encoded again"))
    second, again = embed(folder_source(image_folder), spec, encoder, tmp_path, pytest.fail)
    assert folder == again
    assert (first.values == second.values).all()
    assert isinstance(second.values, np.memmap)


@pytest.mark.parametrize("codec", ["raw", "webp"])
def test_encoding_while_packing_gives_what_encoding_the_packed_file_gives(
    codec, image_folder, tmp_path
):
    encoder = create_encoder(EncoderSpec(weights="random"))
    spec = MaskSpec("fixed", 0.5, codec, 64, 8, 0, (0,))
    first, folder = embed(folder_source(image_folder), spec, encoder, tmp_path, pytest.fail)
    expected = np.array(first.values)
    for file in folder.iterdir():
        file.unlink()
    again, _ = embed(folder_source(image_folder), spec, encoder, tmp_path, pytest.fail)
    assert (again.values == expected).all()
    assert again.counts == first.counts


def test_the_cache_key_follows_data_mask_and_encoder(image_folder, tmp_path):
    encoder = create_encoder(EncoderSpec(weights="random"))
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
        folder(spec=MaskSpec("fixed", 0.5, "raw", 64, 8, 0, (0,), interpolation="bilinear")),
        folder(encoder=create_encoder(EncoderSpec(weights="random", seed=1))),
        folder(encoder=create_encoder(EncoderSpec(weights="random", precision="bf16"))),
    }
    assert len(keys) == 8


@pytest.mark.parametrize("kept", [True, False])
def test_two_that_pack_the_same_images_at_once_leave_each_others_files_alone(
    kept, image_folder, tmp_path
):
    source, spec = folder_source(image_folder), MaskSpec("fixed", 0.5, "raw", 64, 8, 0, (0,))
    first, second = (create_encoder(EncoderSpec(weights="random", seed=seed)) for seed in (0, 1))
    encode_all = first.encode_all

    def then_the_second(batches, step=0):
        yield from encode_all(batches, step)  # all is packed, and not yet opened again
        embed(source, spec, second, tmp_path, pytest.fail, keep_packed=False)

    first.encode_all = then_the_second
    embed(source, spec, first, tmp_path, pytest.fail, keep_packed=kept)
    assert sum(".packed" in path.name for path in tmp_path.iterdir()) == kept
    assert sum(path.is_dir() for path in tmp_path.iterdir()) == 2  # an entry for each encoder


def test_a_damaged_cache_entry_is_encoded_again(image_folder, tmp_path):
    encoder = create_encoder(EncoderSpec(weights="random"))
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
