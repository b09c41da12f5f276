"""The two stages of pre-training: their settings, their models, and what these are shown."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fed_ist.encoder.backbone import VIT_MEAN, VIT_STD, VitShape, per_channel
from fed_ist.images.masks import count_visible
from fed_ist.pretraining.augment import crops, recolour
from fed_ist.pretraining.contrast import MaskedContrast
from fed_ist.pretraining.mae import MaskedAutoencoder


@dataclass(frozen=True)
class StageConfig:
    """One stage's schedule. min_area: the smallest random crop, as a share of the image."""

    epochs: int
    batch_size: int
    learning_rate: float
    min_area: float


@dataclass(frozen=True)
class PretrainConfig:
    """What is trained and how; part of every checkpoint, so that a resumed run is the same run.

    init: a checkpoint to start from; empty to start from random weights.
    tune_ratios: mask ratios that the second view takes in turn; the first has `mask_ratio`.
    """

    shape: VitShape = field(default_factory=VitShape)
    init: str = ""
    mae: StageConfig = StageConfig(120, 128, 1e-3, 0.35)
    contrast: StageConfig = StageConfig(50, 256, 1e-3, 0.2)
    mask_ratio: float = 0.75
    tune_ratios: tuple[float, ...] = (0.5, 0.75)
    weight_decay: float = 0.05
    warmup_fraction: float = 0.05
    decoder_dim: int = 128
    decoder_depth: int = 2
    projector_dim: int = 1024
    temperature: float = 0.2
    recolour: float = 0.3
    seed: int = 0


class Autoencoding:
    """Stage one: a crop of each image, three quarters hidden."""

    def __init__(self, vit: Any, config: PretrainConfig) -> None:
        self.schedule = config.mae
        self.n_patches = vit.patch_embed.num_patches
        self.model: nn.Module = MaskedAutoencoder(
            vit, config.mask_ratio, config.decoder_dim, config.decoder_depth
        )

    def inputs(
        self, batch: Tensor, img_px: int, step: int, rng: torch.Generator
    ) -> tuple[Any, ...]:
        """(normalised crops, noise)"""
        view = normalise(crops(batch, img_px, self.schedule.min_area, rng).float() / 255)
        return view, torch.rand(len(batch), self.n_patches, generator=rng)


class Contrasting:
    """Stage two: two recoloured crops of each image, each masked at a ratio of its own."""

    def __init__(self, vit: Any, config: PretrainConfig) -> None:
        self.schedule = config.contrast
        self.config = config
        self.n_patches = vit.patch_embed.num_patches
        self.model: nn.Module = MaskedContrast(vit, config.projector_dim, config.temperature)

    def inputs(
        self, batch: Tensor, img_px: int, step: int, rng: torch.Generator
    ) -> tuple[Any, ...]:
        """(two views, two noises, two numbers of visible patches)"""
        config = self.config
        ratios = (config.mask_ratio, config.tune_ratios[step % len(config.tune_ratios)])
        views, noise, n_visible = [], [], []
        for ratio in ratios:
            view = crops(batch, img_px, self.schedule.min_area, rng).float() / 255
            views.append(normalise(recolour(view, config.recolour, rng)))
            noise.append(torch.rand(len(batch), self.n_patches, generator=rng))
            n_visible.append(count_visible(self.n_patches, ratio))
        return views, noise, n_visible


Stage = Autoencoding | Contrasting
STAGES: dict[str, type[Autoencoding] | type[Contrasting]] = {
    "mae": Autoencoding,
    "contrast": Contrasting,
}


def normalise(images: Tensor) -> Tensor:
    """Pixels in [0, 1], float (N, C, H, W), by ImageNet's means and deviations, channel by channel.

    Beyond three channels they repeat, as `fed_ist.encoder.backbone` has it.
    """
    n = images.shape[1]
    mean, std = (torch.tensor(per_channel(v, n), device=images.device) for v in (VIT_MEAN, VIT_STD))
    return (images - mean.view(1, -1, 1, 1)) / std.view(1, -1, 1, 1)
