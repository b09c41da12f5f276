"""The two stages of pre-training: their settings, their models, and the inputs of these."""

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
    """The schedule of one stage; min_area: of a random crop, as a share of the image."""

    epochs: int
    batch_size: int
    learning_rate: float
    min_area: float


@dataclass(frozen=True)
class PretrainConfig:
    """All settings of pre-training; a checkpoint holds them, and is resumed with no others.

    init: the path of a checkpoint to start from; empty to start from random weights.
    mask_ratio: of the first stage, and of the first view in the second. tune_ratios: mask ratios
    that the second view takes in turn.
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
    """Stage one: masked autoencoding of a crop of each image."""

    def __init__(self, vit: Any, config: PretrainConfig) -> None:
        self.schedule = config.mae
        self.n_patches = vit.patch_embed.num_patches
        self.model: nn.Module = MaskedAutoencoder(
            vit, config.mask_ratio, config.decoder_dim, config.decoder_depth
        )

    def inputs(
        self, batch: Tensor, img_px: int, step: int, rng: torch.Generator
    ) -> tuple[Any, ...]:
        """(normalised crops, float (N, C, img_px, img_px), and noise, float (N, patches)).

        batch: uint8 (N, C, S, S).
        """
        view = normalise(crops(batch, img_px, self.schedule.min_area, rng).float() / 255)
        return view, torch.rand(len(batch), self.n_patches, generator=rng)


class Contrasting:
    """Stage two: contrast of two recoloured crops of each image, masked at different ratios."""

    def __init__(self, vit: Any, config: PretrainConfig) -> None:
        self.schedule = config.contrast
        self.config = config
        self.n_patches = vit.patch_embed.num_patches
        self.model: nn.Module = MaskedContrast(vit, config.projector_dim, config.temperature)

    def inputs(
        self, batch: Tensor, img_px: int, step: int, rng: torch.Generator
    ) -> tuple[Any, ...]:
        """(views, noise, numbers of visible patches), each a list of two.

        batch: uint8 (N, C, S, S). A view is float (N, C, img_px, img_px), noise (N, patches).
        """
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
    """Images normalised by ImageNet's means and deviations of each channel: float (N, C, H, W).

    images: float (N, C, H, W), pixels in [0, 1]. For more than three channels, the means and
    deviations repeat, see `backbone.per_channel`.
    """
    n = images.shape[1]
    mean, std = (torch.tensor(per_channel(v, n), device=images.device) for v in (VIT_MEAN, VIT_STD))
    return (images - mean.view(1, -1, 1, 1)) / std.view(1, -1, 1, 1)
