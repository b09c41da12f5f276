"""Masked autoencoding (MAE, He et al. 2022): the first stage of pre-training.

The encoder sees the visible patches; a light decoder restores the hidden ones. The targets are
their pixels, each patch normalised by its own mean and deviation (MAE, section 4.1).
"""

from typing import Any

import torch
from torch import Tensor, nn

from fed_ist.images.masks import count_visible


def without_fused_attention(model: nn.Module) -> None:
    """Switch off torch's fused attention in a model, as its backward pass is very slow on a CPU.

    A pre-training step took 0.49 s with it and 0.21 s without (2 cores, bf16).
    """
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False  # type: ignore[assignment]


def keep_tokens(vit: Any, images: Tensor, order: Tensor, n_visible: int) -> Tensor:
    """The class token and visible patch tokens after the last norm: float (N, 1 + n_visible, dim).

    images: float (N, C, H, W). order: int64 (N, patches), a permutation of the patches of each
    image, of which the first n_visible are kept.
    """
    tokens = vit.patch_embed(images) + vit.pos_embed[:, 1:]
    kept = order[:, :n_visible, None].expand(-1, -1, tokens.shape[2])
    cls = (vit.cls_token + vit.pos_embed[:, :1]).expand(len(tokens), -1, -1)
    visible: Tensor = vit.norm(vit.blocks(torch.cat([cls, tokens.gather(1, kept)], dim=1)))
    return visible


class MaskedAutoencoder(nn.Module):
    """A ViT of timm, with learned positions and a class token, and its decoder."""

    def __init__(self, encoder: Any, mask_ratio: float, dim: int, depth: int) -> None:
        super().__init__()
        from timm.models.vision_transformer import Block

        self.encoder = encoder
        self.patch_px, n_patches = (
            encoder.patch_embed.patch_size[0],
            encoder.patch_embed.num_patches,
        )
        self.n_visible = count_visible(n_patches, mask_ratio)
        self.decoder_embed = nn.Linear(encoder.embed_dim, dim)
        self.mask_token = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.decoder_pos = nn.Parameter(torch.randn(1, n_patches + 1, dim) * 0.02)
        self.decoder_blocks = nn.Sequential(
            *[Block(dim, max(1, dim // 32), qkv_bias=True) for _ in range(depth)]
        )
        self.decoder_norm = nn.LayerNorm(dim)
        self.decoder_out = nn.Linear(dim, encoder.patch_embed.proj.weight[0].numel())

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        """The loss on the hidden patches, a scalar.

        images: float (N, C, H, W). noise: float (N, patches), whose order picks the visible ones.
        """
        order = noise.argsort(dim=1)
        restore = order.argsort(dim=1)
        tokens = self.decoder_embed(keep_tokens(self.encoder, images, order, self.n_visible))
        n_hidden = restore.shape[1] - self.n_visible
        hidden = self.mask_token.to(tokens.dtype).expand(len(tokens), n_hidden, -1)
        patches = torch.cat([tokens[:, 1:], hidden], dim=1)
        patches = patches.gather(1, restore[:, :, None].expand(-1, -1, tokens.shape[2]))
        tokens = torch.cat([tokens[:, :1], patches], dim=1) + self.decoder_pos
        predicted = self.decoder_out(self.decoder_norm(self.decoder_blocks(tokens)))[:, 1:]

        target = patch_pixels(images, self.patch_px)
        deviation = (target.var(-1, keepdim=True) + 1e-6).sqrt()
        target = (target - target.mean(-1, keepdim=True)) / deviation
        loss = ((predicted.float() - target) ** 2).mean(-1)
        is_hidden = (restore >= self.n_visible).to(loss.dtype)
        mean: Tensor = (loss * is_hidden).sum() / is_hidden.sum()
        return mean


def patch_pixels(images: Tensor, patch_px: int) -> Tensor:
    """All patches of images, row by row: (N, patches, patch_px * patch_px * C).

    images: (N, C, H, W), of any dtype.
    """
    n, c, h, w = images.shape
    grid = images.reshape(n, c, h // patch_px, patch_px, w // patch_px, patch_px)
    return grid.permute(0, 2, 4, 3, 5, 1).reshape(n, -1, patch_px * patch_px * c)
