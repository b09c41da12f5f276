"""timm models without a classifier, for images of a given side and number of channels.

A sketch is such a model without weights: it takes no memory and little time, and shows names of
weights and possible sides before anything is fetched or read.
"""

from typing import Any, TypeAlias

import torch

from fed_ist.encoder.spec import MOST_IMG_PX, require_whole_patches
from fed_ist.errors import InputError

Options: TypeAlias = dict[str, Any]

STRIDE = 32  # sides of most models whose layers halve the image are multiples of this
TRIES = 4  # in each direction; each takes less than a second


def model_options(in_chans: int, img_px: int) -> Options:
    """The options for timm's `create_model`; img_px: 0 for the model's own side."""
    options: Options = {"num_classes": 0, "in_chans": in_chans}
    return options | {"img_size": img_px} if img_px else options


def build(name: str, options: Options) -> Any:
    """A timm model with these options; raises what timm raises."""
    import timm

    try:
        return timm.create_model(name, **options)
    except TypeError:  # a convolutional network has no option for the side
        if "img_size" not in options:
            raise
        rest = {key: value for key, value in options.items() if key != "img_size"}
        return timm.create_model(name, **rest)


def sketch(name: str, options: Options) -> Any:
    """A timm model without weights, on torch's meta device.

    Raises `InputError` where timm cannot build it.
    """
    try:
        with torch.device("meta"):
            return build(name, options).eval()
    except Exception as error:  # each model has checks of its own
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"timm cannot build encoder '{name}': {reason}") from error


def check_sides(name: str, in_chans: int, img_px: int) -> None:
    """Raise `InputError` unless a timm model can take images of this side; 0 is its own.

    Where the model has patches, the side must be a whole number of them: otherwise timm would fail,
    or leave out the rest at two edges of the image. Other models are tried on a sketch.
    """
    model = sketch(name, model_options(in_chans, 0))
    own_px = int(model.default_cfg["input_size"][-1])
    if img_px in (0, own_px):
        return
    patch_px = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    if patch_px:
        side = int(patch_px[0] if isinstance(patch_px, tuple | list) else patch_px)
        require_whole_patches(
            f"img-px = {img_px}", img_px, side, f"{side} px, the side of a patch of '{name}'"
        )
    if _takes(name, in_chans, img_px) or not _takes(name, in_chans, own_px):
        return
    sides = [f"{side}, " for side in _nearest(name, in_chans, img_px)]
    raise InputError(
        f"img-px = {img_px} does not go with encoder '{name}', which fails on images of that side: "
        f"give {''.join(sides)}or 0 for its own, {own_px} px."
    )


def _takes(name: str, in_chans: int, img_px: int) -> bool:
    """Whether a model can be built for images of a side, and encode one."""
    try:
        with torch.inference_mode():
            image = torch.zeros(1, in_chans, img_px, img_px, device="meta")
            sketch(name, model_options(in_chans, img_px))(image)
    except Exception:  # each model has checks of its own
        return False
    return True


def _nearest(name: str, in_chans: int, img_px: int) -> list[int]:
    """The next multiples of a usual stride, below and above a side, that a model can take."""
    below = range(img_px // STRIDE * STRIDE, 0, -STRIDE)
    above = range((img_px // STRIDE + 1) * STRIDE, MOST_IMG_PX + 1, STRIDE)
    first = (
        next((side for side in sides[:TRIES] if _takes(name, in_chans, side)), None)
        for sides in (below, above)
    )
    return [side for side in first if side is not None]
