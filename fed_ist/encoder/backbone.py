"""Models by name, with their weights: bundled encoders, and any image model of timm.

The preprocessing of a model (size, mean, deviation, interpolation) is that of timm's data config.
"""

import difflib
import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from fed_ist.encoder.build import build, check_sides, model_options
from fed_ist.encoder.features import take_features
from fed_ist.encoder.spec import BUNDLED_ENCODERS, MOST_IMG_PX, checkpoint_path
from fed_ist.encoder.timm_weights import fetch_model, load_model
from fed_ist.encoder.weight_files import find_weights, require_finite
from fed_ist.errors import InputError
from fed_ist.files.installed import package_file
from fed_ist.files.sealed_tensors import require_unharmed
from fed_ist.images.decoding import RGB

VIT_MEAN = (0.485, 0.456, 0.406)
VIT_STD = (0.229, 0.224, 0.225)

# The key in the metadata of fed-ist's own checkpoints under which their shape stands.
ORIGIN = "fed-ist"


@dataclass(frozen=True)
class VitShape:
    """The architecture of a plain ViT with a class token.

    img_px, patch_px: sides in pixels. in_chans: channels of the images.
    """

    img_px: int = 64
    patch_px: int = 8
    embed_dim: int = 192
    depth: int = 8
    num_heads: int = 6
    in_chans: int = 3


@dataclass(frozen=True)
class Backbone:
    """A model and the preparation of its images.

    mean, std: per channel, of pixels scaled to [0, 1].
    features: statistics of its embeddings, where the checkpoint has them, see `features`.
    note: a sentence for the user on the weights that were taken; empty where there is no need.
    """

    model: Any
    img_px: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    features: dict[str, Tensor]
    note: str = ""


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
    if not is_of_timm(name):
        raise InputError(
            f"Unknown encoder '{name}'. Choose from: {', '.join(BUNDLED_ENCODERS)}, or any timm "
            f"image model (timm.list_models()).{meant(name, 'encoder-weights')}"
        )
    known = timm.list_models(f"{architecture}.*", pretrained=True)
    if tag and name not in known:
        raise InputError(
            f"Unknown encoder '{name}': timm has no such weights of {architecture}. "
            f"Choose from: {', '.join(known) or 'none'}."
        )


def is_of_timm(name: str) -> bool:
    """Whether timm has an image model of this name, whatever its weights."""
    import timm

    return bool(timm.is_model(name.partition(".")[0]))


def meant(name: str, weights: str) -> str:
    """What may have been meant by the name of no model: a sentence after a space, or nothing.

    weights: the setting that takes the path of a file.
    """
    import timm

    if Path(name).exists():
        return f" It is a path: give a model's name, and the path as {weights}."
    close = difflib.get_close_matches(name.partition(".")[0], timm.list_models(), n=5)
    return f" Similar timm names: {', '.join(close)}." if close else ""


def may_drop_patches(name: str) -> bool:
    """Whether a known encoder is of a family that can encode without some of its patches.

    Neither builds nor fetches the model.
    """
    import timm

    if name in BUNDLED_ENCODERS:
        return True
    family: str = timm.models.model_entrypoint(name.partition(".")[0]).__module__
    return family.removeprefix("timm.models.") in ("vision_transformer", "deit", "eva")


def check_img_px(name: str, weights: str, in_chans: int, img_px: int) -> None:
    """Raise `InputError` unless a known encoder can take images of this side.

    Nothing is fetched. The arguments are those of `create_backbone`.
    """
    if name not in BUNDLED_ENCODERS:
        check_sides(name, in_chans, img_px)
        return
    own_px = _bundled_shape(name, checkpoint_path(weights)).img_px
    if img_px not in (0, own_px):
        raise InputError(
            f"img-px = {img_px} does not go with encoder '{name}', which was trained on images of "
            f"{own_px} px. Leave img-px at 0."
        )


def create_backbone(name: str, weights: str, in_chans: int, img_px: int) -> Backbone:
    """A model with its weights, and the preparation of its images.

    name: a bundled encoder or a timm model, which `check_encoder_name` has accepted.
    weights: "pretrained" (bundled, or timm's from the hub), "random" (drawn from torch's global
        seed), or the path of a checkpoint (.safetensors, .pth) of the same architecture.
    in_chans: channels of the images. Where the weights are for another number, timm's
        `adapt_input_conv` repeats or sums the kernels of the patch embedding.
    img_px: side of the images, which `check_img_px` has accepted; 0 for the model's own. Positions
        are interpolated.
    Raises `InputError` for weights that cannot be had, or a checkpoint that does not fit.
    """
    path = checkpoint_path(weights)
    if name in BUNDLED_ENCODERS:
        if weights == "pretrained":
            path = package_file(BUNDLED_ENCODERS[name])
        return _bundled(name, path, in_chans)
    return _timm(name, path, weights == "pretrained", in_chans, img_px)


def _bundled(name: str, path: Path | None, in_chans: int) -> Backbone:
    if path is not None and path.suffix == ".safetensors":
        require_unharmed(path)
    shape = _bundled_shape(name, path)
    model = build_vit(replace(shape, in_chans=in_chans))
    features, note = load_weights(model, path) if path is not None else ({}, "")
    mean, std = per_channel(VIT_MEAN, in_chans), per_channel(VIT_STD, in_chans)
    return Backbone(model, shape.img_px, mean, std, "bicubic", features, note)


def _bundled_shape(name: str, path: Path | None) -> VitShape:
    return read_shape(path or package_file(BUNDLED_ENCODERS[name])) or VitShape()


def read_shape(path: Path) -> VitShape | None:
    """The shape in the metadata of one of fed-ist's own checkpoints; None where there is none.

    Raises `InputError` where no encoder has that shape.
    """
    try:
        with safe_open(path, framework="pt") as file:
            shape = json.loads((file.metadata() or {})[ORIGIN])["shape"]
    except (SafetensorError, OSError, KeyError, ValueError, TypeError):
        return None
    names = {f.name for f in fields(VitShape)}
    sides = {k: v for k, v in shape.items() if k in names} if isinstance(shape, dict) else None
    if sides is not None and all(type(v) is int and 0 < v <= MOST_IMG_PX for v in sides.values()):
        found = VitShape(**sides)
        if found.img_px % found.patch_px == 0 and found.embed_dim % found.num_heads == 0:
            return found
    raise InputError(
        f"Checkpoint '{path}' says of itself that it is of shape {json.dumps(shape)}, which no "
        "encoder has. Restore it from a copy."
    )


def load_weights(vit: Any, path: Path) -> tuple[dict[str, Tensor], str]:
    """Load a checkpoint into a ViT that `build_vit` made, adapting it to the number of channels.

    Returns its features (see `Backbone`) and a sentence for the user, or an empty one. Raises
    `InputError`, which names the first weight that does not fit.
    """
    from timm.models import adapt_input_conv

    wanted = vit.state_dict()
    encoder = find_weights(path, wanted)
    found = encoder.weights
    features = take_features(found)
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
    require_finite(vit, path)
    return features, encoder.note


def _timm(name: str, path: Path | None, pretrained: bool, in_chans: int, img_px: int) -> Backbone:
    from timm.data import resolve_model_data_config

    options = model_options(in_chans, img_px)
    note = ""
    features: dict[str, Tensor] = {}
    if path is not None:
        model, features, note = load_model(name, path, options)
    elif pretrained:
        model = fetch_model(name, options)
    else:
        model = build(name, options)
    data = resolve_model_data_config(model)
    return Backbone(
        model=model,
        img_px=img_px or int(data["input_size"][-1]),
        mean=per_channel(data["mean"], in_chans),
        std=per_channel(data["std"], in_chans),
        interpolation=data["interpolation"],
        features=features,
        note=note,
    )


def per_channel(values: Any, in_chans: int) -> tuple[float, ...]:
    """One value for each channel, repeated in the order in which timm repeats the kernels."""
    return tuple(float(values[i % len(values)]) for i in range(in_chans))
