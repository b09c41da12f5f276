"""Masked autoencoding (MAE, He et al. 2022) of a small ViT, for a plain CPU or one GPU.

The result is an ordinary timm `VisionTransformer` state dict, which `fed_ist.encoder` loads. The
targets are the pixels of the hidden patches, each patch normalised by its own mean and deviation
(MAE, section 4.1). Images are decoded once and kept in memory.
"""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as transforms
from tqdm import tqdm

from fed_ist.encoder import FEATURE_MEAN, FEATURE_STD, VIT_MEAN, VIT_STD, VitShape, build_vit
from fed_ist.errors import InputError
from fed_ist.images import ImageSource, squares
from fed_ist.results import write_atomic
from fed_ist.rng import torch_seed


@dataclass(frozen=True)
class PretrainConfig:
    """What is trained and how; part of every checkpoint, so that a resumed run is the same run."""

    shape: VitShape = field(default_factory=VitShape)
    mask_ratio: float = 0.75
    epochs: int = 120
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup_fraction: float = 0.05
    decoder_dim: int = 128
    decoder_depth: int = 2
    min_crop_area: float = 0.35
    seed: int = 0


class MaskedAutoencoder(nn.Module):
    """The encoder sees the visible patches; a light decoder restores the hidden ones."""

    def __init__(self, config: PretrainConfig, fused_attention: bool) -> None:
        super().__init__()
        from timm.models.vision_transformer import Block

        shape = config.shape
        self.patch_px = shape.patch_px
        self.encoder = build_vit(shape)
        n_patches = (shape.img_px // shape.patch_px) ** 2
        self.n_visible = max(1, int(n_patches * (1 - config.mask_ratio)))
        dim = config.decoder_dim
        self.decoder_embed = nn.Linear(shape.embed_dim, dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.decoder_pos = nn.Parameter(torch.randn(1, n_patches + 1, dim) * 0.02)
        blocks = [Block(dim, max(1, dim // 32), qkv_bias=True) for _ in range(config.decoder_depth)]
        self.decoder_blocks = nn.Sequential(*blocks)
        self.decoder_norm = nn.LayerNorm(dim)
        self.decoder_out = nn.Linear(dim, shape.patch_px**2 * 3)
        nn.init.normal_(self.mask_token, std=0.02)
        for block in [*self.encoder.blocks, *self.decoder_blocks]:
            # The backward pass of torch's fused attention on a CPU takes longer than all the rest
            # of the step: 0.49 s a step with it against 0.21 s without (2 cores, bf16).
            block.attn.fused_attn = fused_attention

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        """Loss on the hidden patches. images: float (N, 3, H, W); noise: (N, n_patches)."""
        vit = self.encoder
        tokens = vit.patch_embed(images) + vit.pos_embed[:, 1:]
        order = noise.argsort(dim=1)
        visible, restore = order[:, : self.n_visible], order.argsort(dim=1)
        tokens = tokens.gather(1, visible[:, :, None].expand(-1, -1, tokens.shape[2]))
        cls = (vit.cls_token + vit.pos_embed[:, :1]).expand(len(tokens), -1, -1)
        tokens = vit.norm(vit.blocks(torch.cat([cls, tokens], dim=1)))

        tokens = self.decoder_embed(tokens)
        n_hidden = restore.shape[1] - self.n_visible
        hidden = self.mask_token.to(tokens.dtype).expand(len(tokens), n_hidden, -1)
        patches = torch.cat([tokens[:, 1:], hidden], dim=1)
        patches = patches.gather(1, restore[:, :, None].expand(-1, -1, tokens.shape[2]))
        tokens = torch.cat([tokens[:, :1], patches], dim=1) + self.decoder_pos
        predicted = self.decoder_out(self.decoder_norm(self.decoder_blocks(tokens)))[:, 1:]

        target = patch_pixels(images, self.patch_px)
        target = (target - target.mean(-1, keepdim=True)) / (
            target.var(-1, keepdim=True) + 1e-6
        ).sqrt()
        loss = ((predicted.float() - target) ** 2).mean(-1)
        is_hidden = (restore >= self.n_visible).to(loss.dtype)
        mean: Tensor = (loss * is_hidden).sum() / is_hidden.sum()
        return mean


def patch_pixels(images: Tensor, patch_px: int) -> Tensor:
    """(N, C, H, W) -> (N, patches, patch_px * patch_px * C), patches in raster order."""
    n, c, h, w = images.shape
    grid = images.reshape(n, c, h // patch_px, patch_px, w // patch_px, patch_px)
    return grid.permute(0, 2, 4, 3, 5, 1).reshape(n, -1, patch_px * patch_px * c)


def decode_all(source: ImageSource, side_px: int) -> NDArray[np.uint8]:
    """Every readable image as uint8 (n, side_px, side_px, 3), with a progress bar."""
    images = np.empty((len(source), side_px, side_px, 3), dtype=np.uint8)
    skipped: list[str] = []
    kept = 0
    bar = tqdm(squares(source, side_px, skipped.append), total=len(source), desc="decode")
    for _, pixels, _ in bar:
        images[kept] = pixels
        kept += 1
    if skipped:
        tqdm.write(f"skipped {len(skipped)} unreadable images, the first: {skipped[0]}")
    if kept == 0:
        raise InputError("None of the images could be decoded, so there is nothing to train on.")
    return images[:kept]


def augment(images: Tensor, img_px: int, min_area: float, rng: torch.Generator) -> Tensor:
    """Random resized crops, flips and quarter turns (seen from above there is no up).

    images: uint8 (N, 3, S, S) -> uint8 (N, 3, img_px, img_px).
    """
    side = images.shape[-1]
    out = []
    for image in images:
        area, aspect, x, y = torch.rand(4, generator=rng).tolist()
        area = min_area + (1 - min_area) * area
        aspect = math.exp((2 * aspect - 1) * math.log(4 / 3))
        height = min(side, max(8, round(side * math.sqrt(area / aspect))))
        width = min(side, max(8, round(side * math.sqrt(area * aspect))))
        top, left = int(y * (side - height + 1)), int(x * (side - width + 1))
        crop = transforms.resized_crop(
            image, top, left, height, width, [img_px, img_px], antialias=True
        )
        turns, flip = torch.randint(4, (1,), generator=rng), torch.rand(1, generator=rng) < 0.5
        crop = torch.rot90(crop, int(turns), (1, 2))
        out.append(crop.flip(2) if flip else crop)
    return torch.stack(out)


def learning_rate_at(step: int, n_steps: int, config: PretrainConfig) -> float:
    """Linear warm-up, then half a cosine down to zero."""
    warmup = max(1, int(n_steps * config.warmup_fraction))
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, n_steps - warmup)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def pretrain(source: ImageSource, out: Path, config: PretrainConfig, device: str) -> Path:
    """Train for `config.epochs`, resuming from `out/checkpoint.pt` if it is there.

    Writes a checkpoint after each epoch and, at the end, `out/encoder.safetensors` and
    `out/history.json`, each atomically. Returns the path of the weights.
    """
    out.mkdir(parents=True, exist_ok=True)
    checkpoint, weights = out / "checkpoint.pt", out / "encoder.safetensors"
    torch.manual_seed(torch_seed(config.seed, "pretrain-init"))
    model = MaskedAutoencoder(config, fused_attention=device != "cpu").to(device)
    decay = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": decay}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(
        groups, lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=config.weight_decay
    )
    history: list[float] = []
    if checkpoint.exists():
        history = resume(checkpoint, model, optimizer, config, device)
        tqdm.write(f"resuming after epoch {len(history)} of {config.epochs} from {checkpoint}")

    side_px = 2 * config.shape.img_px
    images = torch.from_numpy(decode_all(source, side_px)).permute(0, 3, 1, 2)
    steps_per_epoch = max(1, len(images) // config.batch_size)
    mean = torch.tensor(VIT_MEAN, device=device).view(1, 3, 1, 1)
    std = torch.tensor(VIT_STD, device=device).view(1, 3, 1, 1)
    n_patches = (config.shape.img_px // config.shape.patch_px) ** 2

    with tqdm(total=config.epochs * steps_per_epoch, desc="pretrain", unit="step") as bar:
        bar.update(len(history) * steps_per_epoch)
        for epoch in range(len(history), config.epochs):
            # One stream an epoch: a run resumed at an epoch draws what an unbroken one would.
            rng = torch.Generator().manual_seed(torch_seed(config.seed, "pretrain-epoch", epoch))
            order = torch.randperm(len(images), generator=rng)
            total = 0.0
            for step in range(steps_per_epoch):
                batch = images[order[step * config.batch_size : (step + 1) * config.batch_size]]
                crops = augment(batch, config.shape.img_px, config.min_crop_area, rng).to(device)
                noise = torch.rand(len(crops), n_patches, generator=rng).to(device)
                rate = learning_rate_at(
                    epoch * steps_per_epoch + step, config.epochs * steps_per_epoch, config
                )
                for group in optimizer.param_groups:
                    group["lr"] = rate
                with torch.autocast(device.split(":")[0], dtype=torch.bfloat16):
                    loss = model((crops.float() / 255 - mean) / std, noise)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                total += float(loss.detach())
                bar.update()
            history.append(total / steps_per_epoch)
            bar.set_postfix(epoch=epoch + 1, loss=f"{history[-1]:.4f}")
            save_checkpoint(checkpoint, model, optimizer, history, config)
    save_encoder(weights, model, images, history, config, device)
    return weights


@torch.inference_mode()
def feature_statistics(vit: Any, images: Tensor, img_px: int, device: str) -> dict[str, Tensor]:
    """Mean and deviation of each feature of the `cls` and `avg` embeddings: float32 (2, dim)."""
    mean = torch.tensor(VIT_MEAN, device=device).view(1, 3, 1, 1)
    std = torch.tensor(VIT_STD, device=device).view(1, 3, 1, 1)
    total = torch.zeros(2, 2, vit.embed_dim, dtype=torch.float64)  # (sum | squares, cls | avg, dim)
    vit.eval()
    for batch in tqdm(torch.split(images, 256), desc="feature statistics"):
        scaled = transforms.resize(batch, [img_px, img_px], antialias=True).to(device)
        tokens = vit.forward_features((scaled.float() / 255 - mean) / std)
        pooled = torch.stack([tokens[:, 0], tokens[:, 1:].mean(dim=1)]).double().cpu()
        total += torch.stack([pooled.sum(dim=1), pooled.square().sum(dim=1)])
    average, square = total / len(images)
    deviation = (square - average.square()).clamp(min=1e-6).sqrt()
    return {FEATURE_MEAN: average.float(), FEATURE_STD: deviation.float()}


def save_checkpoint(
    checkpoint: Path,
    model: MaskedAutoencoder,
    optimizer: torch.optim.Optimizer,
    history: list[float],
    config: PretrainConfig,
) -> None:
    """Write everything that resuming needs; a cut leaves the previous checkpoint whole."""
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "history": history,
        "config": json.dumps(asdict(config), sort_keys=True),
    }
    part = checkpoint.with_suffix(".part")
    torch.save(state, part)
    part.replace(checkpoint)


def save_encoder(
    weights: Path,
    model: MaskedAutoencoder,
    images: Tensor,
    history: list[float],
    config: PretrainConfig,
    device: str,
) -> None:
    """Write the encoder alone (fp16, with its feature statistics) and the history of losses."""
    features = feature_statistics(model.encoder, images, config.shape.img_px, device)
    half = {
        name: value.detach().cpu().half().contiguous()
        for name, value in model.encoder.state_dict().items()
    }
    # One entry: safetensors writes several in random order, and equal runs must give equal files.
    origin = json.dumps({"shape": asdict(config.shape), "epochs": len(history)})
    write_atomic(weights, save(half | features, metadata={"fed-ist": origin}))
    text = json.dumps({"config": asdict(config), "loss": history}, indent=1)
    write_atomic(weights.with_name("history.json"), text.encode())


def resume(
    checkpoint: Path,
    model: MaskedAutoencoder,
    optimizer: torch.optim.Optimizer,
    config: PretrainConfig,
    device: str,
) -> list[float]:
    """Load a checkpoint of the same configuration; returns the loss of each epoch done."""
    state = torch.load(checkpoint, map_location=device, weights_only=True)
    if state["config"] != json.dumps(asdict(config), sort_keys=True):
        raise InputError(
            f"'{checkpoint}' was written with other settings: {state['config']}. "
            "Repeat those, or choose another --out."
        )
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    history: list[float] = state["history"]
    return history
