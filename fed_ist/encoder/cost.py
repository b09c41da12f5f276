"""What a vision transformer costs a node: multiply-adds of a forward pass, and its parameters."""

from collections.abc import Mapping
from dataclasses import dataclass

from fed_ist.images.bands import parse_bands


@dataclass(frozen=True)
class Vit:
    """The sizes of a plain ViT.

    depth: the number of blocks. width: of a token.
    n_patches: of a whole image. n_prefix: the number of further tokens, class and registers.
    patch_values: numbers in a patch, of all channels.
    n_block_weights: numbers in the matrices of all blocks; a usual ViT has 12 width² in each.
    n_params: the number of all trainable parameters.
    """

    depth: int
    width: int
    n_patches: int
    n_prefix: int
    patch_values: int
    n_block_weights: int
    n_params: int

    def multiply_adds(self, n_visible: int) -> int:
        """The multiply-adds of embedding one image with this number of visible patches.

        Each token is multiplied by every matrix of the blocks once, and attention multiplies tokens
        by tokens twice: that is 12 d² n + 2 n² d in each block, for n tokens of width d. Norms,
        biases and activations are not counted.
        """
        n_tokens = n_visible + self.n_prefix
        attention = self.depth * 2 * n_tokens**2 * self.width
        return (
            n_visible * self.patch_values * self.width + self.n_block_weights * n_tokens + attention
        )


def read_vit(settings: Mapping[str, object]) -> Vit | None:
    """The sizes of the encoder that a run's settings name; its weights are not fetched.

    settings: config key -> value. Returns None where it is no plain vision transformer. Raises
    `InputError` for an unknown encoder.
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
    linear = [layer for layer in model.blocks.modules() if isinstance(layer, torch.nn.Linear)]
    return Vit(
        depth=len(model.blocks),
        width=int(model.embed_dim),
        n_patches=int(model.patch_embed.num_patches),
        n_prefix=int(model.num_prefix_tokens),
        patch_values=kernel[0].numel(),
        n_block_weights=sum(layer.weight.numel() for layer in linear),
        n_params=sum(param.numel() for param in model.parameters()),
    )
