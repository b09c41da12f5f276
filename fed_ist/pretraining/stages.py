"""The stages of pre-training: their settings, their models, and the inputs of these."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fed_ist.encoder.backbone import VIT_MEAN, VIT_STD, VitShape, per_channel
from fed_ist.images.masks import count_visible, visible_patches
from fed_ist.pretraining.augment import crops, numpy_rng, recolour, turned
from fed_ist.pretraining.contrast import MaskedContrast
from fed_ist.pretraining.distil import MaskedStudent, principal, ridge
from fed_ist.pretraining.mae import MaskedAutoencoder, keep_tokens
from fed_ist.pretraining.teacher import TeacherSpec
from fed_ist.pretraining.views import Views
from fed_ist.rng import generator


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
    shares: of each data set in an epoch; empty for all images alike.
    teacher: None for none, and then there is no third stage. n_views, n_blends: of each image of
    each data set, on which the teacher is asked, see `views.ViewSettings`. target_dim: the
    number of its outputs' principal numbers to learn.
    distil_ratios: mask ratios of the third stage, drawn with the weights of distil_weights.
    distil_masks: names of masks in `fed_ist.images.masks`, drawn alike. ema: by how much, at each
    step, the weights that are kept move towards those that are trained is 1 - ema.
    """

    shape: VitShape = field(default_factory=VitShape)
    init: str = ""
    mae: StageConfig = StageConfig(120, 128, 1e-3, 0.35)
    contrast: StageConfig = StageConfig(50, 256, 1e-3, 0.2)
    distil: StageConfig = StageConfig(0, 256, 1e-3, 0.35)
    teacher: TeacherSpec | None = None
    shares: tuple[float, ...] = ()
    mask_ratio: float = 0.75
    tune_ratios: tuple[float, ...] = (0.5, 0.75)
    weight_decay: float = 0.05
    warmup_fraction: float = 0.05
    decoder_dim: int = 128
    decoder_depth: int = 2
    projector_dim: int = 1024
    temperature: float = 0.2
    recolour: float = 0.3
    n_views: tuple[int, ...] = (2,)
    n_blends: tuple[int, ...] = (0,)
    target_dim: int = 256
    distil_ratios: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75)
    distil_weights: tuple[float, ...] = (0.12, 0.2, 0.35, 0.33)
    distil_masks: tuple[str, ...] = ("fixed", "fixed", "fixed", "grid", "block", "saliency")
    ema: float = 0.998
    seed: int = 0


class Autoencoding:
    """Stage one: masked autoencoding of a crop of each image.

    images: uint8 (n, C, S, S).
    """

    def __init__(self, vit: Any, images: Tensor, config: PretrainConfig) -> None:
        self.schedule = config.mae
        self._images = images
        self._img_px = config.shape.img_px
        self._n_patches = vit.patch_embed.num_patches
        self.model: nn.Module = MaskedAutoencoder(
            vit, config.mask_ratio, config.decoder_dim, config.decoder_depth
        )

    def inputs(self, rows: Tensor, step: int, rng: torch.Generator) -> tuple[Any, ...]:
        """(normalised crops, float (N, C, img_px, img_px), and noise, float (N, patches)).

        rows: int64 (N,), indices of images.
        """
        batch = self._images[rows]
        view = normalise(crops(batch, self._img_px, self.schedule.min_area, rng).float() / 255)
        return view, torch.rand(len(batch), self._n_patches, generator=rng)


class Contrasting:
    """Stage two: contrast of two recoloured crops of each image, masked at different ratios.

    images: uint8 (n, C, S, S).
    """

    def __init__(self, vit: Any, images: Tensor, config: PretrainConfig) -> None:
        self.schedule = config.contrast
        self._config = config
        self._images = images
        self._n_patches = vit.patch_embed.num_patches
        self.model: nn.Module = MaskedContrast(vit, config.projector_dim, config.temperature)

    def inputs(self, rows: Tensor, step: int, rng: torch.Generator) -> tuple[Any, ...]:
        """(views, noise, numbers of visible patches), each a list of two.

        rows: int64 (N,), indices of images. A view is float (N, C, img_px, img_px), noise
        (N, patches).
        """
        config, batch = self._config, self._images[rows]
        ratios = (config.mask_ratio, config.tune_ratios[step % len(config.tune_ratios)])
        views, noise, n_visible = [], [], []
        for ratio in ratios:
            view = crops(batch, config.shape.img_px, self.schedule.min_area, rng).float() / 255
            views.append(normalise(recolour(view, config.recolour, rng)))
            noise.append(torch.rand(len(batch), self._n_patches, generator=rng))
            n_visible.append(count_visible(self._n_patches, ratio))
        return views, noise, n_visible


class Distilling:
    """Stage three: from the visible patches of a view, what the teacher makes of all of it."""

    def __init__(self, vit: Any, views: Views, config: PretrainConfig) -> None:
        self.schedule = config.distil
        self._config = config
        self._pixels = views.pixels
        self._first, self._counts = views.starts[:-1], np.diff(views.starts)
        self._grid = tuple(vit.patch_embed.grid_size)
        numbers = principal(views.outputs[self._first], config.target_dim).of(views.outputs)
        # The loss looks at directions alone. One scale keeps the layer's weights of usual size.
        self._targets = numbers / numbers.square().mean().sqrt().clamp(min=1e-12)
        student = MaskedStudent(vit, numbers.shape[1])
        weight, bias = self._first_layer(vit)
        student.predictor.weight.data.copy_(weight)
        student.predictor.bias.data.copy_(bias)
        self.model: nn.Module = student

    def _first_layer(self, vit: Any, n_most: int = 4096) -> tuple[Tensor, Tensor]:
        """The layer that predicts the targets best before any step, from half of the patches."""
        n_images = len(self._first)
        images = torch.linspace(0, n_images - 1, min(n_most, n_images)).long()
        rows = torch.from_numpy(self._first)[images]
        rng = generator(self._config.seed, "distil-first-layer")
        device = vit.cls_token.device
        was_training = vit.training
        vit.eval()
        tokens = []
        with torch.inference_mode():
            for some in torch.split(rows, 128):
                pixels = self._pixels[some.numpy()]
                order = torch.from_numpy(visible_patches("fixed", pixels, self._grid, 0.5, rng))
                view = normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255)
                kept = keep_tokens(vit, view.to(device), order.to(device), order.shape[1])
                tokens.append(kept[:, 0].cpu())
        vit.train(was_training)
        return ridge(torch.cat(tokens), self._targets[rows])

    def inputs(self, rows: Tensor, step: int, rng: torch.Generator) -> tuple[Any, ...]:
        """(normalised views, float (N, C, img_px, img_px), kept patches, K, targets).

        rows: int64 (N,), indices of images. Kept patches are int64 (N, K), targets float
        (N, target_dim). Which view, how it is turned, and the mask are drawn.
        """
        config = self._config
        draw = numpy_rng(rng)
        images = rows.numpy()
        which = self._first[images] + draw.integers(self._counts[images])
        pixels = torch.from_numpy(self._pixels[which]).permute(0, 3, 1, 2)
        pixels = turned(pixels, rng)
        ratio = draw.choice(config.distil_ratios, p=config.distil_weights)
        mask = draw.choice(config.distil_masks)
        kept = visible_patches(
            str(mask), pixels.permute(0, 2, 3, 1).numpy(), self._grid, float(ratio), draw
        )
        order = torch.from_numpy(np.broadcast_to(kept, (len(rows), kept.shape[-1])).copy())
        view = normalise(recolour(pixels.float() / 255, config.recolour, rng))
        return view, order, order.shape[1], self._targets[torch.from_numpy(which)]


Stage = Autoencoding | Contrasting | Distilling


def normalise(images: Tensor) -> Tensor:
    """Images normalised by ImageNet's means and deviations of each channel: float (N, C, H, W).

    images: float (N, C, H, W), pixels in [0, 1]. For more than three channels, the means and
    deviations repeat, see `backbone.per_channel`.
    """
    n = images.shape[1]
    mean, std = (torch.tensor(per_channel(v, n), device=images.device) for v in (VIT_MEAN, VIT_STD))
    return (images - mean.view(1, -1, 1, 1)) / std.view(1, -1, 1, 1)
