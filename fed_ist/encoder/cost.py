"""What a vision transformer costs a node: multiply-adds of a forward pass, and its parameters."""

from collections.abc import Mapping
from dataclasses import dataclass

from fed_ist.images.bands import parse_bands


@dataclass(frozen=True)
class Vit:
    """A plain ViT, as its timm model says.

    n_patches: of a whole image. n_prefix: class and register tokens beside them.
    patch_values: numbers in a patch, of all channels.
    n_block_weights: numbers in the matrices of all blocks, 12 width² for each of a usual ViT.
    n_params: trainable numbers in all.
    """

    depth: int
    width: int
    n_patches: int
    n_prefix: int
    patch_values: int
    n_block_weights: int
    n_params: int

    def multiply_adds(self, n_visible: int) -> int:
        """Of embedding one image of which so many patches are kept.

        Each token passes every matrix of the blocks once, and attention multiplies tokens by
        tokens twice: in each block 12 d² n + 2 n² d for n tokens of width d. Norms, biases and
        activations are not counted.
        """
        n_tokens = n_visible + self.n_prefix
        attention = self.depth * 2 * n_tokens**2 * self.width
        return (
            n_visible * self.patch_values * self.width + self.n_block_weights * n_tokens + attention
        )


def read_vit(settings: Mapping[str, object]) -> Vit | None:
    """The encoder that run-config keys name, built without its weights.

    None where it is no plain vision transformer. Raises `InputError` for one that is not known.
    """
    import torch  # only here, as it takes seconds to load

    from fed_ist.encoder.backbone import (
        check_encoder_name,
        check_img_px,
        create_backbone,
        may_drop_patches,
    )

    name, weights = str(settings["encoder"]), str(settings.get("encoder-weights", "pretrained"))
    check_encoder_name(name)
    if not may_drop_patches(name):
        return None
    bands = parse_bands(str(settings.get("bands", "")), str(settings.get("band-range", "")))
    if weights == "pretrained":
        weights = "random"  # the shape is the same, and no download
    in_chans, img_px = bands.n_channels if bands else 3, int(str(settings.get("img-px", 0)))
    check_img_px(name, weights, in_chans, img_px)
    model = create_backbone(name, weights, in_chans, img_px).model
    kernel = model.patch_embed.proj.weight
    linear = [part for part in model.blocks.modules() if isinstance(part, torch.nn.Linear)]
    return Vit(
        depth=len(model.blocks),
        width=int(model.embed_dim),
        n_patches=int(model.patch_embed.num_patches),
        n_prefix=int(model.num_prefix_tokens),
        patch_values=kernel[0].numel(),
        n_block_weights=sum(part.weight.numel() for part in linear),
        n_params=sum(param.numel() for param in model.parameters()),
    )
