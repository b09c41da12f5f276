"""From packed patches to embeddings: two ways to run a frozen model on a masked image.

`VisibleVit` runs a transformer on the visible patches alone. The order is that of MAE's reference
code (He et al. 2022, `forward_encoder`): embed the patches, add each one's position, then drop the
hidden ones, add the class token, and run the blocks. As only the visible patches are stored, only
they are embedded, which gives the same tokens. timm's own `PatchDropout` cannot be used here: in
evaluation mode it drops nothing.

`FilledImage` is for models that need a whole grid (convolutions, attention in windows, relative
positions): hidden patches get the mean colour and everything is computed.

Both take patches uint8 or float (N, K, patch_px * patch_px * channels) with values 0 to 255, pixels
channels last, and visible int64 (N, K) or (K,), and return float32 (N, embed_dim).
"""

from typing import Any

import torch
from torch import Tensor, nn

from fed_ist.encoder.features import FeatureMaps, apply_features


class WithFeatures(nn.Module):
    """A model whose pooled outputs become embeddings by statistics of these.

    features: see `features.feature_maps`; None to leave outputs as they are.
    """

    feature_mean: Tensor | None
    feature_std: Tensor | None
    feature_matrix: Tensor | None

    def __init__(self, features: FeatureMaps | None) -> None:
        super().__init__()
        mean, deviation, matrix = features or (None, None, None)
        self.register_buffer("feature_mean", mean)
        self.register_buffer("feature_std", deviation)
        # It follows from the covariance, and has other last bits on another processor.
        self.register_buffer("feature_matrix", matrix, persistent=False)

    def embeddings(self, pooled: Tensor) -> Tensor:
        """The embeddings of pooled outputs (N, dim): float32 (N, dim)."""
        if self.feature_mean is None or self.feature_std is None:
            return pooled.float()
        return apply_features(pooled, self.feature_mean, self.feature_std, self.feature_matrix)


class VisibleVit(WithFeatures):
    """A timm `VisionTransformer` or `Eva` that runs on the visible patches and nothing else.

    pooling: "cls", "avg" (the mean of the visible patch tokens), "map" (the model's own attention
        pooling, as SigLIP has) or "both" ("cls" and "avg", concatenated).
    mean, std: per channel, of pixels scaled to [0, 1].
    features: what the pooled outputs are made into, see `features.feature_maps`.
    """

    patch_weight: Tensor
    patch_bias: Tensor
    rope: Tensor | None

    def __init__(
        self,
        vit: Any,
        pooling: str,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        features: FeatureMaps,
    ) -> None:
        super().__init__(features)
        self.vit = vit
        self.pooling = pooling
        weight, bias = embedding_of_bytes(vit.patch_embed.proj, mean, std)
        self.register_buffer("patch_weight", weight)
        self.register_buffer("patch_bias", bias)
        self.compute_dtype = torch.float32
        self.register_buffer("rope", rotary_positions(vit))

    def compute_in(self, dtype: torch.dtype) -> None:
        """Let the blocks compute in another floating-point type."""
        self.vit.blocks.to(dtype)
        self.compute_dtype = dtype

    def tokens(self, patches: Tensor, visible: Tensor) -> Tensor:
        """The prefix tokens and visible patch tokens after the last norm.

        patches, visible: see the module. Returns float32 (N, prefix + K, dim).
        """
        vit = self.vit
        pixels = patches.to(self.patch_weight.dtype)
        x = vit.patch_embed.norm(nn.functional.linear(pixels, self.patch_weight, self.patch_bias))
        # Unless `no_embed_class`, the first positions belong to the prefix tokens.
        n_positioned = 0 if vit.no_embed_class else vit.num_prefix_tokens
        if vit.pos_embed is not None:
            x = x + vit.pos_embed[0][visible + n_positioned]
        prefix = [t[0] for t in (vit.cls_token, vit.reg_token) if t is not None]
        if prefix:
            first = torch.cat(prefix)
            if n_positioned and vit.pos_embed is not None:
                first = first + vit.pos_embed[0][:n_positioned]
            x = torch.cat([first.expand(len(x), -1, -1), x], dim=1)
        x = vit.norm_pre(x).to(self.compute_dtype)
        if self.rope is not None:
            for block, rope in zip(vit.blocks, self._ropes(self.rope, visible), strict=True):
                x = block(x, rope=rope)
        else:
            x = vit.blocks(x)
        tokens: Tensor = vit.norm(x.float())
        return tokens

    def _ropes(self, rope: Tensor, visible: Tensor) -> list[Tensor]:
        """The rotary positions of the visible patches for each block.

        Each is (N or 1, heads or 1, K, -), where - is the width of timm's table.
        """
        index = visible if visible.ndim == 2 else visible[None]
        rope = rope.to(self.compute_dtype)
        if rope.ndim == 2:  # (positions, -), the same in every block
            return [rope[index].unsqueeze(1)] * len(self.vit.blocks)
        # (blocks, heads, positions, -), learned for each block and head
        return [layer[:, index].transpose(0, 1) for layer in rope]

    def forward(self, patches: Tensor, visible: Tensor) -> Tensor:
        """The embeddings, float32 (N, embed_dim); for the arguments see the module."""
        vit = self.vit
        tokens = self.tokens(patches, visible)
        pooled = []
        if self.pooling in ("cls", "both"):
            pooled.append(vit.fc_norm(tokens[:, 0]))
        if self.pooling in ("avg", "both"):
            # timm moves the last norm behind an average pooling (`fc_norm`).
            pooled.append(vit.fc_norm(tokens[:, vit.num_prefix_tokens :].mean(dim=1)))
        if self.pooling == "map":
            pooled.append(vit.fc_norm(vit.pool(tokens)))
        return self.embeddings(torch.cat(pooled, dim=1))


def rotary_positions(vit: Any) -> Tensor | None:
    """timm's table of rotary positions, as its `_pos_embed` makes it; None where there is none.

    It is (positions, -), or (blocks, heads, positions, -) where each block and head has its own.
    """
    rope = getattr(vit, "rope", None)
    if rope is None:
        return None
    grid = tuple(vit.patch_embed.grid_size)
    with torch.no_grad():
        fixed = hasattr(rope, "feat_shape") and not vit.dynamic_img_size
        table: Tensor = rope.get_embed() if fixed else rope.get_embed(shape=grid)
    return table.detach().clone()


def embedding_of_bytes(
    projection: nn.Conv2d, mean: tuple[float, ...], std: tuple[float, ...]
) -> tuple[Tensor, Tensor]:
    """The patch embedding as one matrix over raw bytes, with the normalisation folded in.

    conv(((x / 255) - mean) / std) is linear in x, so the stored bytes x can be used as they are.
    Returns weight float32 (dim, patch_px * patch_px * channels), pixels channels last, and bias
    float32 (dim,).
    """
    kernel = projection.weight.detach().double()  # (dim, channels, patch_px, patch_px)
    channel_mean = torch.tensor(mean).double().view(1, -1, 1, 1)
    channel_std = torch.tensor(std).double().view(1, -1, 1, 1)
    scaled = kernel / (255 * channel_std)
    bias = -(kernel * (channel_mean / channel_std)).sum(dim=(1, 2, 3))
    if projection.bias is not None:
        bias = bias + projection.bias.detach().double()
    weight = scaled.permute(0, 2, 3, 1).reshape(len(kernel), -1)
    return weight.float().contiguous(), bias.float()


class FilledImage(WithFeatures):
    """Any model, run on the whole image with hidden patches in the mean colour.

    The mean colour is 0 after normalisation. The embedding is the output of the model's pooling.
    mean, std: per channel, of pixels scaled to [0, 1]. features: what that output is made into, see
    `features.feature_maps`; None to leave it as it is.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: Any,
        grid: tuple[int, int],
        patch_px: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        features: FeatureMaps | None = None,
    ) -> None:
        super().__init__(features)
        self.model = model
        self.grid = grid
        self.patch_px = patch_px
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def fill(self, patches: Tensor, visible: Tensor) -> Tensor:
        """The normalised images with hidden patches at 0: float32 (N, channels, H, W)."""
        n, k, _ = patches.shape
        rows, cols = self.grid
        pixels = patches.float().view(n, k, -1, len(self.mean)) / 255
        pixels = ((pixels - self.mean) / self.std).view(n, k, -1)
        index = (visible if visible.ndim == 2 else visible[None]).expand(n, k)
        canvas = pixels.new_zeros(n, rows * cols, pixels.shape[2])
        canvas = canvas.scatter(1, index[:, :, None].expand_as(pixels), pixels)
        tiles = canvas.view(n, rows, cols, self.patch_px, self.patch_px, -1)
        images = tiles.permute(0, 5, 1, 3, 2, 4)
        return images.reshape(n, -1, rows * self.patch_px, cols * self.patch_px)

    def forward(self, patches: Tensor, visible: Tensor) -> Tensor:
        """The embeddings, float32 (N, embed_dim); for the arguments see the module."""
        return self.embeddings(self.model(self.fill(patches, visible)))
