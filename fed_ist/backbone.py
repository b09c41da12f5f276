"""Names become models here: bundled encoders, and any image model of timm, with their weights.

The preprocessing (size, mean, deviation, interpolation) is what timm's data config says of a model.
"""

import difflib
import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from fed_ist.bundled import package_file
from fed_ist.encoder_spec import BUNDLED_ENCODER, BUNDLED_ENCODERS
from fed_ist.errors import InputError

VIT_MEAN = (0.485, 0.456, 0.406)
VIT_STD = (0.229, 0.224, 0.225)
RGB = 3

# Names, in a checkpoint of ours, of the mean and deviation of each embedding feature over the
# pre-training images: float32 (2, dim), first of the `cls`, then of the `avg` embedding.
FEATURE_MEAN, FEATURE_STD = "fed_ist.feature_mean", "fed_ist.feature_std"

# The key of a checkpoint of ours, in its metadata, that tells its shape.
ORIGIN = "fed-ist"


@dataclass(frozen=True)
class VitShape:
    """The architecture of a plain ViT with a class token."""

    img_px: int = 64
    patch_px: int = 8
    embed_dim: int = 192
    depth: int = 8
    num_heads: int = 6
    in_chans: int = 3


@dataclass(frozen=True)
class Backbone:
    """A model and how its images are to be prepared.

    mean, std: per channel, of pixels scaled to [0, 1].
    features: `FEATURE_MEAN` and `FEATURE_STD`, where the weights came with them.
    """

    model: Any
    img_px: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    features: dict[str, Tensor]


def build_vit(shape: VitShape) -> Any:
    """A timm `VisionTransformer` of this shape, randomly initialised, without a classifier."""
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        img_size=shape.img_px,
        patch_size=shape.patch_px,
        embed_dim=shape.embed_dim,
        depth=shape.depth,
        num_heads=shape.num_heads,
        in_chans=shape.in_chans,
        num_classes=0,
    )


def check_encoder_name(name: str) -> None:
    """Raise `InputError` unless `name` is a bundled encoder or a timm model."""
    if name in BUNDLED_ENCODERS:
        return
    import timm

    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        close = difflib.get_close_matches(architecture, timm.list_models(), n=5)
        hint = f" Similar timm names: {', '.join(close)}." if close else ""
        raise InputError(
            f"Unknown encoder '{name}'. Choose from: {', '.join(BUNDLED_ENCODERS)}, or any timm "
            f"image model (timm.list_models()).{hint}"
        )
    known = timm.list_models(f"{architecture}.*", pretrained=True)
    if tag and name not in known:
        raise InputError(
            f"Unknown encoder '{name}': timm has no such weights of {architecture}. "
            f"Choose from: {', '.join(known) or 'none'}."
        )


def may_drop_patches(name: str) -> bool:
    """Whether a known name is of a family that can: told without building or fetching the model."""
    import timm

    if name in BUNDLED_ENCODERS:
        return True
    family: str = timm.models.model_entrypoint(name.partition(".")[0]).__module__
    return family.removeprefix("timm.models.") in ("vision_transformer", "deit", "eva")


def create_backbone(name: str, weights: str, in_chans: int, img_px: int) -> Backbone:
    """Make any model.

    name: a bundled encoder or a timm model name, which `check_encoder_name` let pass.
    weights: "pretrained" (bundled, or timm's from the hub), "random" (drawn from torch's global
        seed), or the path of a checkpoint (.safetensors, .pth) of the same architecture.
    in_chans: channels of the images. Where the weights are of another number, timm's
        `adapt_input_conv` repeats or sums the kernels of the patch embedding.
    img_px: side of the images; 0 for the model's own. Positions are interpolated.
    Raises `InputError` for weights that cannot be had, or a checkpoint that does not fit.
    """
    path = Path(weights) if weights not in ("pretrained", "random") else None
    if path is not None and not path.is_file():
        raise InputError(
            f"encoder-weights = '{path}' (--weights) is not a file. "
            "Give 'pretrained', 'random', or the path of a checkpoint."
        )
    if name in BUNDLED_ENCODERS:
        if weights == "pretrained":
            path = package_file(BUNDLED_ENCODERS[name])
        return _bundled(name, path, in_chans, img_px)
    return _timm(name, path, weights == "pretrained", in_chans, img_px)


def _bundled(name: str, path: Path | None, in_chans: int, img_px: int) -> Backbone:
    shape = read_shape(path or package_file(BUNDLED_ENCODERS[name])) or VitShape()
    if img_px not in (0, shape.img_px):
        raise InputError(
            f"img-px = {img_px} does not go with encoder '{name}', which was trained on images of "
            f"{shape.img_px} px. Leave img-px at 0."
        )
    model = build_vit(replace(shape, in_chans=in_chans))
    features = {}
    if path is not None:
        features = load_weights(model, path)
    mean, std = per_channel(VIT_MEAN, in_chans), per_channel(VIT_STD, in_chans)
    return Backbone(model, shape.img_px, mean, std, "bicubic", features)


def read_shape(path: Path) -> VitShape | None:
    """The shape that a checkpoint of ours tells in its metadata; None where it tells none."""
    try:
        with safe_open(path, framework="pt") as file:
            shape = json.loads((file.metadata() or {})[ORIGIN])["shape"]
    except (SafetensorError, OSError, KeyError, ValueError, TypeError):
        return None
    return VitShape(**{f.name: shape[f.name] for f in fields(VitShape) if f.name in shape})


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The encoder's weights in float32, without classifiers and MAE decoders.

    Raises `InputError` where the file cannot be read; nothing in it is ever executed.
    """
    from timm.models import load_state_dict

    try:
        found = load_state_dict(str(path), use_ema=False, weights_only=True)
    except Exception as error:  # torch, pickle and safetensors raise many kinds
        raise InputError(
            f"'{path}' cannot be read as a checkpoint ({type(error).__name__}). Give a "
            ".safetensors file, or a .pth file that holds weights and nothing else."
        ) from error
    others: tuple[str, ...] = ("head.", "head_dist.", "decoder", "fc.")
    if "decoder_embed.weight" in found:  # an MAE's; DINOv2 has a mask token of another use
        others += ("mask_token",)
    return {k: v.float() if isinstance(v, Tensor) and v.is_floating_point() else v
            for k, v in found.items() if not k.startswith(others)}  # fmt: skip


def load_weights(vit: Any, path: Path) -> dict[str, Tensor]:
    """Load a checkpoint into a ViT of `build_vit`, adapting its channels; returns its features.

    Raises `InputError` naming the first weight that does not fit.
    """
    from timm.models import adapt_input_conv

    found, wanted = read_checkpoint(path), vit.state_dict()
    features = {key: found.pop(key) for key in (FEATURE_MEAN, FEATURE_STD) if key in found}
    stem = "patch_embed.proj.weight"
    if stem in found and found[stem].shape[1] == RGB:
        found[stem] = adapt_input_conv(wanted[stem].shape[1], found[stem])
    problem = next(
        (f"it lacks '{key}'" for key in wanted if key not in found),
        next(
            (f"it has '{key}', which the encoder has not" for key in found if key not in wanted), ""
        ),
    ) or next(
        (
            f"'{key}' is {tuple(found[key].shape)} there and {tuple(wanted[key].shape)} here"
            for key in wanted
            if found[key].shape != wanted[key].shape
        ),
        "",
    )
    if problem:
        raise InputError(
            f"Checkpoint '{path}' is of another architecture than the encoder's: {problem}."
        )
    vit.load_state_dict(found)
    return features


def _timm(name: str, path: Path | None, pretrained: bool, in_chans: int, img_px: int) -> Backbone:
    from timm.data import resolve_model_data_config

    options: dict[str, Any] = {"num_classes": 0, "in_chans": in_chans}
    if img_px:
        options["img_size"] = img_px
    if path is not None:
        # timm's own loader takes a dict of weights in place of a download, converts the layouts
        # of other projects, interpolates positions and adapts the channels. Strictly, as long as
        # the number of classes does not change.
        options["pretrained_cfg_overlay"] = {
            "state_dict": read_checkpoint(path),
            "num_classes": 0,
            "custom_load": False,
        }
    model = _create(name, path, pretrained, options)
    data = resolve_model_data_config(model)
    return Backbone(
        model=model,
        img_px=img_px or int(data["input_size"][-1]),
        mean=per_channel(data["mean"], in_chans),
        std=per_channel(data["std"], in_chans),
        interpolation=data["interpolation"],
        features={},
    )


def _create(name: str, path: Path | None, pretrained: bool, options: dict[str, Any]) -> Any:
    import timm

    given = pretrained or path is not None
    try:
        try:
            return timm.create_model(name, pretrained=given, **options)
        except TypeError:  # a convolutional network has no size of its own to be told
            if "img_size" not in options:
                raise
            rest = {key: value for key, value in options.items() if key != "img_size"}
            return timm.create_model(name, pretrained=given, **rest)
    except Exception as error:  # the hub client raises many kinds when there is no network
        reason = " ".join(str(error).split())[:300]
        if path is not None:
            raise InputError(
                f"Checkpoint '{path}' is of another architecture than encoder '{name}': {reason}"
            ) from error
        if not pretrained:
            raise InputError(f"timm cannot build encoder '{name}': {reason}") from error
        raise InputError(
            f"The weights of encoder '{name}' could not be fetched ({type(error).__name__}). "
            "Check the network, or download them elsewhere and give encoder-weights (--weights) "
            f"the path of the file, or use the bundled encoder {BUNDLED_ENCODER}."
        ) from error


def per_channel(values: Any, in_chans: int) -> tuple[float, ...]:
    """One value a channel, repeated in the order in which timm repeats the kernels."""
    return tuple(float(values[i % len(values)]) for i in range(in_chans))
