"""The settings that decide an image's embedding, in a module that does not import torch."""

from dataclasses import dataclass
from pathlib import Path

from fed_ist.errors import InputError, require_choice

BUNDLED_ENCODER = "vit_distil_patch8_64.aid_eurosat_cifar"
BUNDLED_ENCODERS = {
    name: f"fed_ist/encoder/weights/{name}.safetensors"
    for name in (BUNDLED_ENCODER, "vit_distil_patch8_64.aid_cifar", "vit_mae_patch8_64.aid")
}
POOLINGS = ("cls", "avg", "map", "both")
PRECISIONS = ("fp32", "bf16", "int8")
MOST_IMG_PX = 8192  # a larger image takes more than 0.8 GB before it is encoded


@dataclass(frozen=True)
class EncoderSpec:
    """An encoder: which model, with which weights, and how it is run.

    name: a bundled encoder or a timm model.
    weights: "pretrained", "random" (drawn from `seed`) or the path of a checkpoint.
    pooling: "cls", "avg" (the mean of the visible patch tokens), "map" (the model's own attention
        pooling, as SigLIP has) or "both" ("cls" and "avg", concatenated).
    seed: for random weights.
    in_chans: channels of the images.
    img_px: side in pixels to which images are scaled; 0 for the model's own.
    precision: in which the blocks compute (see `fed_ist.encoder.precision`).
    Raises `InputError` for an unknown pooling or precision, and for an impossible side.
    """

    name: str = BUNDLED_ENCODER
    weights: str = "pretrained"
    pooling: str = "cls"
    seed: int = 0
    in_chans: int = 3
    img_px: int = 0
    precision: str = "fp32"

    def __post_init__(self) -> None:
        require_choice("pooling", self.pooling, POOLINGS)
        require_choice("precision", self.precision, PRECISIONS)
        require_img_px(self.img_px)


def require_img_px(img_px: int) -> None:
    """Raise `InputError` unless images can be scaled to this side, in pixels."""
    if not 0 <= img_px <= MOST_IMG_PX:
        raise InputError(
            f"img-px = {img_px} is not possible: give a side in pixels, {MOST_IMG_PX} at most, or "
            "0 for the encoder's own."
        )


def checkpoint_path(weights: str) -> Path | None:
    """The checkpoint that `EncoderSpec.weights` names; None for "pretrained" and "random".

    Raises `InputError` where there is no such file.
    """
    if weights in ("pretrained", "random"):
        return None
    path = Path(weights)
    if not path.is_file():
        raise InputError(
            f"encoder-weights = '{path}' (--weights) is not a file. "
            "Give 'pretrained', 'random', or the path of a checkpoint."
        )
    return path


def require_whole_patches(said: str, img_px: int, patch_px: int, patch: str) -> None:
    """Raise `InputError`, which names the nearest possible sides, unless a side is whole patches.

    said, patch: what the message calls the two, such as "--img-px 100" and "--patch-px 16".
    """
    if img_px > MOST_IMG_PX:
        raise InputError(f"{said} is not possible: give a side of at most {MOST_IMG_PX} px.")
    if img_px % patch_px:
        below = img_px - img_px % patch_px
        sides = [side for side in (below, below + patch_px) if 0 < side <= MOST_IMG_PX]
        raise InputError(f"{said} is no multiple of {patch}: give {' or '.join(map(str, sides))}.")
