"""A checkpoint is loaded by the encoder's own names, whatever is around and beside it."""

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from fed_ist.encoder.backbone import ORIGIN, VitShape, build_vit, create_backbone
from fed_ist.encoder.frozen import create_encoder
from fed_ist.encoder.spec import BUNDLED_ENCODER, BUNDLED_ENCODERS, EncoderSpec
from fed_ist.encoder.weight_packages import PACKAGES, packaged_weights
from fed_ist.errors import InputError

# One of each way in which timm's families name and shape what comes last.
AWKWARD = (
    "test_convnext",  # head.norm stays, head.fc does not
    "test_efficientnet",  # classifier
    "lcnet_035",  # classifier, after a convolution that stays
    "legacy_seresnet18",  # last_linear
    "densenet121",  # classifier
    "test_vit",
    "swin_tiny_patch4_window7_224",  # head.fc
    "deit_tiny_distilled_patch16_224",  # head and head_dist
    "vit_tiny_patch16_dinov3_qkvb",
)
# The smallest of each family; what has more weights than this takes too long to build.
SMALL = 150_000_000
VIT = "test_vit"  # timm's


def timms_own(name: str, num_classes: int = 7) -> torch.nn.Module:
    torch.manual_seed(3)
    model = timm.create_model(name, num_classes=num_classes).eval()
    for weight in model.parameters():  # some begin as zeros or ones
        weight.data += torch.randn_like(weight) * 0.01
    return model


def check_embedding(name: str, path: Path) -> None:
    """timm's own checkpoint of a model gives timm's own embedding, before the classifier."""
    model = timms_own(name)
    torch.save(model.state_dict(), path)
    loaded = create_backbone(name, str(path), 3, 0)
    path.unlink()  # there are many, of up to half a gigabyte
    images = torch.randn(1, 3, loaded.img_px, loaded.img_px)
    with torch.inference_mode():
        expected = model.forward_head(model.forward_features(images), pre_logits=True)
        found = loaded.model.eval()(images)
    if isinstance(expected, tuple):  # of distilled models, which average
        expected = sum(expected) / len(expected)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-5


@pytest.mark.parametrize("name", AWKWARD)
def test_timms_own_checkpoint_gives_timms_own_embedding(name, tmp_path):
    check_embedding(name, tmp_path / "w.pth")


def smallest(family: str) -> str | None:
    sizes = {}
    for name in timm.list_models(module=family):
        with torch.device("meta"):
            model = timm.create_model(name, num_classes=0)
        sizes[name] = sum(weight.numel() for weight in model.parameters())
    name = min(sizes, key=lambda each: sizes[each])
    return name if sizes[name] < SMALL else None


@pytest.mark.slow
@pytest.mark.parametrize("family", timm.list_modules())
def test_the_smallest_of_each_family_is_loaded_from_timms_own_checkpoint(family, tmp_path):
    name = smallest(family)
    if name is None:
        pytest.skip("none of it is small")
    check_embedding(name, tmp_path / "w.pth")


def under(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + key: value for key, value in state.items()}


def half(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value.half() for key, value in state.items()}


PROJECTION = {"weight": torch.zeros(4, 64), "bias": torch.zeros(4)}
WRAPPED = {
    "as it is": lambda own: own,
    "in a dict": lambda own: {"model": own},
    "of timm's training": lambda own: {
        "arch": VIT,
        "epoch": 3,
        "use_ema": True,
        "args": argparse.Namespace(lr=0.1),
        "state_dict": own,
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]},
    },
    "of data parallel": lambda own: {"state_dict": under("module.", own)},
    "compiled within data parallel": lambda own: under("module._orig_mod.", own),
    "of MoCo": lambda own: {
        "state_dict": under("module.encoder_q.", own)
        | under("module.encoder_q.fc.", PROJECTION)
        | {"module.queue": torch.zeros(4, 4), "module.queue_ptr": torch.zeros(1)}
    },
    "of DINO's teacher alone": lambda own: {
        "teacher": under("backbone.", own) | under("head.mlp.0.", PROJECTION)
    },
    "under a prefix that nobody foresaw": lambda own: under("a.b_c.trunk.", own),
    "with projections of contrastive methods": lambda own: (
        own | under("projector.0.", PROJECTION) | under("prototypes.", PROJECTION)
    ),
    "with a classifier": lambda own: own | under("head.", PROJECTION),
    "with MAE's decoder": lambda own: {
        "model": own
        | {"mask_token": torch.zeros(1, 1, 8), "decoder_pos_embed": torch.zeros(1, 9, 8)}
        | under("decoder_embed.", PROJECTION)
    },
    "deep in dicts": lambda own: {"run": {"student": {"state_dict": under("net.", own)}}},
}


def own_state() -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in timms_own(VIT, 0).state_dict().items()}


def loaded_state(path: Path, name: str = VIT) -> dict[str, torch.Tensor]:
    return create_encoder(EncoderSpec(name, str(path))).module.vit.state_dict()


def check_found(way: str, path: Path, save: Callable[..., None]) -> None:
    own = own_state()
    save(WRAPPED[way](own), path)
    loaded = loaded_state(path)
    assert all((loaded[key] == value).all() for key, value in own.items())


@pytest.mark.parametrize("way", WRAPPED)
def test_an_encoder_is_found_wherever_it_lies(way, tmp_path):
    check_found(way, tmp_path / "w.pth", torch.save)


@pytest.mark.parametrize("way", ["compiled within data parallel", "with a classifier"])
def test_an_encoder_is_found_in_safetensors_too(way, tmp_path):
    check_found(way, tmp_path / "w.safetensors", save_file)


@pytest.mark.parametrize("way", ["in a dict", "of data parallel", "with MAE's decoder"])
def test_the_bundled_encoder_is_found_in_wrappers_too(way, tmp_path):
    torch.manual_seed(3)
    own = build_vit(VitShape()).state_dict()
    torch.save(WRAPPED[way](own), tmp_path / "w.pth.tar")
    loaded = loaded_state(tmp_path / "w.pth.tar", BUNDLED_ENCODER)
    assert all((loaded[key] == value).all() for key, value in own.items())


def test_the_bundled_weights_given_by_their_path_are_the_bundled_encoder():
    path = Path(__file__).parent.parent.parent / BUNDLED_ENCODERS[BUNDLED_ENCODER]
    by_path = create_encoder(EncoderSpec(weights=str(path)))
    assert by_path.digest == create_encoder(EncoderSpec()).digest


# Names of ConvNeXt's authors for timm's, as patterns.
AUTHORS = {
    r"head\.fc\.": "head.",
    r"head\.norm\.": "norm.",
    r"stem\.": "downsample_layers.0.",
    r"stages\.(\d+)\.downsample\.": r"downsample_layers.\1.",
    r"stages\.(\d+)\.blocks\.": r"stages.\1.",
    r"conv_dw": "dwconv",
    r"mlp\.fc": "pwconv",
}


@pytest.mark.parametrize("prefix", ["", "module.", "teacher.backbone."])
def test_the_layout_of_others_is_converted_by_timm_under_a_prefix_too(prefix, tmp_path):
    own = timms_own("convnext_atto").state_dict()
    theirs = {}
    for name, value in own.items():
        for pattern, replacement in AUTHORS.items():
            name = re.sub(pattern, replacement, name)
        theirs[prefix + name] = value
    torch.save(theirs, tmp_path / "w.pth")
    loaded = create_backbone("convnext_atto", str(tmp_path / "w.pth"), 3, 0).model.state_dict()
    assert all((value == own[name]).all() for name, value in loaded.items())


def test_a_checkpoint_in_half_precision_is_computed_in_full(tmp_path):
    own = own_state()
    torch.save(half(own), tmp_path / "w.bin")
    loaded = loaded_state(tmp_path / "w.bin")
    assert all(value.dtype == torch.float32 for value in loaded.values())
    assert (loaded["pos_embed"] == own["pos_embed"].half().float()).all()


@pytest.mark.parametrize(
    ("taken", "left"),
    [
        ("teacher.backbone.", "student.module.backbone."),
        ("state_dict.", "state_dict_ema."),
        ("module.base_encoder.", "module.momentum_encoder."),
        ("target_encoder.module.", "encoder.module."),
    ],
)
def test_of_two_encoders_in_a_file_it_is_said_which_was_taken(taken, left, tmp_path):
    own = own_state()
    other = {key: torch.zeros_like(value) for key, value in own.items()}
    keys, _, prefix = left.partition(".")
    first_key, _, first_prefix = taken.partition(".")
    found: dict[str, object] = {keys: {}, first_key: {}}
    found[keys].update(under(prefix, other))
    found[first_key].update(under(first_prefix, own))
    torch.save(found, tmp_path / "w.pth")
    encoder = create_encoder(EncoderSpec(VIT, str(tmp_path / "w.pth")))
    assert (encoder.module.vit.state_dict()["pos_embed"] == own["pos_embed"]).all()
    assert f"taken are the weights under '{taken}', not those under '{left}'" in encoder.note


def refusal(path: Path, name: str = VIT, pooling: str = "cls") -> str:
    with pytest.raises(InputError) as caught:
        create_encoder(EncoderSpec(name, str(path), pooling))
    return str(caught.value)


@pytest.mark.parametrize("name", [VIT, "dla46x_c"])  # timm is not strict about the latter
@pytest.mark.parametrize("prefix", ["", "teacher.backbone."])
def test_what_is_missing_is_named(prefix, name, tmp_path):
    own = timms_own(name, 0).state_dict()
    key = next(key for key in reversed(own) if key.endswith("weight"))
    del own[key]
    torch.save(under(prefix, own), tmp_path / "w.pth")
    said = refusal(tmp_path / "w.pth", name, "cls" if name == VIT else "avg")
    assert "is of another architecture" in said
    assert key in said


@pytest.mark.parametrize("name", [VIT, "dla46x_c"])
def test_what_the_encoder_does_not_have_is_named(name, tmp_path):
    own = timms_own(name, 0).state_dict() | {"adapter.weight": torch.zeros(2)}
    torch.save(own, tmp_path / "w.pth")
    said = refusal(tmp_path / "w.pth", name, "cls" if name == VIT else "avg")
    assert "is of another architecture" in said
    assert "adapter.weight" in said


def test_what_has_another_shape_is_named(tmp_path):
    own = own_state()
    own["blocks.0.mlp.fc1.bias"] = torch.zeros(3)
    torch.save(own, tmp_path / "w.pth")
    assert "blocks.0.mlp.fc1.bias" in refusal(tmp_path / "w.pth")


def test_a_file_without_weights_is_told(tmp_path):
    torch.save({"epoch": 3, "losses": [1.0, 0.5]}, tmp_path / "w.pth")
    assert "holds no weights" in refusal(tmp_path / "w.pth")
    save_file({}, tmp_path / "w.safetensors")
    assert "holds no weights" in refusal(tmp_path / "w.safetensors")


def under_other_names(own: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights as a port of the same network names them: other layers, the same kinds."""
    layers = list(dict.fromkeys(key.rpartition(".")[0] for key in own))
    return {
        f"_layers.{layers.index(key.rpartition('.')[0])}.{key.rpartition('.')[2]}": value
        for key, value in own.items()
    }


@pytest.mark.parametrize("num_classes", [0, 1000])
def test_the_weights_of_a_port_are_matched_by_their_order(num_classes, tmp_path):
    model = timms_own("test_efficientnet", num_classes)
    torch.save(under_other_names(model.state_dict()), tmp_path / "w.pth")
    loaded = create_backbone("test_efficientnet", str(tmp_path / "w.pth"), 3, 0)
    assert "matched by their order" in loaded.note
    images = torch.randn(1, 3, loaded.img_px, loaded.img_px)
    with torch.inference_mode():
        expected = model.forward_head(model.forward_features(images), pre_logits=True)
        assert torch.equal(loaded.model.eval()(images), expected)


@pytest.mark.parametrize("change", ["a shape", "a kind", "the order", "one more", "one less"])
def test_a_port_that_differs_in_a_layer_is_refused(change, tmp_path):
    own = under_other_names(timms_own("test_efficientnet", 0).state_dict())
    items = list(own.items())
    if change == "a shape":
        items[3] = (items[3][0], torch.zeros(3))
    elif change == "a kind":
        items[2] = (items[2][0].replace("bias", "scale"), items[2][1])
    elif change == "the order":
        items[1], items[2] = items[2], items[1]
    elif change == "one more":
        items.insert(7, ("_layers.extra.weight", torch.zeros(2)))
    else:
        del items[-1]
    torch.save(dict(items), tmp_path / "w.pth")
    assert "is of another architecture" in refusal(tmp_path / "w.pth", "test_efficientnet", "avg")


def test_weights_of_a_package_are_found_where_it_is_installed(tmp_path, monkeypatch):
    name, package = next(iter(PACKAGES.items()))
    monkeypatch.setitem(PACKAGES, name, "fed_ist_test_weights")
    assert packaged_weights(name) is None
    assert packaged_weights("resnet18") is None
    models = tmp_path / "fed_ist_test_weights" / "models"
    models.mkdir(parents=True)
    (models.parent / "__init__.py").touch()
    (models / "some-weights.pth").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert packaged_weights(name) == models / "some-weights.pth"
    assert package.startswith("efficientnet_lite0")


@pytest.mark.parametrize("name", BUNDLED_ENCODERS)
def test_a_bundled_encoder_is_small_and_known_by_its_name(name):
    path = Path(__file__).parent.parent.parent / BUNDLED_ENCODERS[name]
    assert path.stat().st_size < 8_000_000
    assert path.with_suffix(".md").read_text().startswith(f"# {name}\n")
    encoder = create_encoder(EncoderSpec(name))
    assert (encoder.img_px, encoder.patch_px, encoder.embed_dim) == (64, 8, 192)
    assert sum(p.numel() for p in encoder.module.vit.parameters()) <= 4_000_000


@pytest.mark.parametrize("name", [BUNDLED_ENCODER, VIT])
@pytest.mark.parametrize("number", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused(name, number, tmp_path):
    model = create_backbone(name, "random", 3, 0).model
    next(iter(model.blocks)).attn.proj.bias.data[1] = number
    torch.save(model.state_dict(), tmp_path / "harmed.pth")
    words = r"harmed.pth' has numbers in 'blocks.0.attn.proj.bias' that are not finite"
    with pytest.raises(InputError, match=words):
        create_encoder(EncoderSpec(name, str(tmp_path / "harmed.pth")))


@pytest.mark.parametrize(
    "shape",
    [
        *(None, 5, [1], {"img_px": "64"}, {"img_px": 64.5}, {"img_px": -64}, {"depth": 10**9}),
        *({"patch_px": 7}, {"num_heads": 0}, {"num_heads": 5}, {"embed_dim": None}),
    ],
)
def test_a_file_that_says_it_is_of_no_encoders_shape_is_refused(shape, tmp_path):
    path = tmp_path / "odd.safetensors"
    weights = {key: value.contiguous() for key, value in build_vit(VitShape()).state_dict().items()}
    save_file(weights, path, {ORIGIN: json.dumps({"shape": shape})})
    with pytest.raises(InputError, match=r"which no encoder has\. Restore it from a copy"):
        create_encoder(EncoderSpec(weights=str(path)))


def test_each_bundled_encoder_has_its_own_digest():
    digests = {create_encoder(EncoderSpec(name)).digest for name in BUNDLED_ENCODERS}
    assert len(digests) == len(BUNDLED_ENCODERS)
