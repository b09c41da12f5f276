"""What decides an image's embedding, in a module that costs no import of torch."""

from dataclasses import dataclass

from fed_ist.errors import InputError, require_choice

BUNDLED_ENCODER = "vit_mae_patch8_64.aid"
BUNDLED_ENCODERS = {
    BUNDLED_ENCODER: "fed_ist/weights/vit_mae_patch8_64.aid.safetensors",
}
POOLINGS = ("cls", "avg", "map", "both")
PRECISIONS = ("fp32", "bf16", "int8")


@dataclass(frozen=True)
class EncoderSpec:
    """Which model, with which weights, run how.

    name: a bundled encoder or a timm model.
    weights: "pretrained", "random" (drawn from `seed`) or the path of a checkpoint.
    pooling: "cls", "avg" (the mean of the visible patch tokens), "map" (the model's own attention
        pooling, as SigLIP has) or "both" ("cls" and "avg", concatenated).
    in_chans: channels of the images.
    img_px: side to which images are scaled; 0 for the model's own.
    precision: what the blocks compute in (see `fed_ist.precision`).
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
        if self.img_px < 0:
            raise InputError(
                f"img-px = {self.img_px} is not possible: give a side in pixels, or 0."
            )
