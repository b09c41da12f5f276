"""Contrast of masked views: the second stage of pre-training.

The loss asks that two crops of an image, each with other patches hidden, get class tokens that are
nearer to each other than to those of other images in the batch (InfoNCE, van den Oord et al. 2018;
SimCLR, Chen et al. 2020; on masked views as in CAN, Mishra et al. 2022). A masked autoencoder
learns textures; a short contrastive tuning after it groups them into scenes (MAE-CT, Lehner et al.
2023). As the views are masked at several ratios, the embedding of an image then depends little on
how much of it was kept.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fed_ist.pretraining.mae import keep_tokens


class MaskedContrast(nn.Module):
    """A ViT with a projector, which is dropped after training (SimCLR, section 4.2)."""

    def __init__(self, encoder: Any, dim: int, temperature: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.temperature = temperature
        self.projector = nn.Sequential(
            nn.Linear(encoder.embed_dim, dim, bias=False),
            nn.BatchNorm1d(dim),
            nn.ReLU(),
            nn.Linear(dim, 128, bias=False),
        )

    def forward(self, views: list[Tensor], noise: list[Tensor], n_visible: list[int]) -> Tensor:
        """The loss, a scalar.

        views: two, each float (N, C, H, W). noise: for each view float (N, patches), whose order
        picks the visible patches. n_visible: for each view the number of these.
        """
        first, second = (
            self.projector(keep_tokens(self.encoder, view, n.argsort(dim=1), k)[:, 0])
            for view, n, k in zip(views, noise, n_visible, strict=True)
        )
        return info_nce(first, second, self.temperature)


def info_nce(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """The mean cross-entropy of matching each row to the same row of the other, in both directions.

    first, second: float (N, dim).
    """
    first, second = (functional.normalize(z.float(), dim=1) for z in (first, second))
    logits = first @ second.T / temperature
    rows = torch.arange(len(logits), device=logits.device)
    there, back = (functional.cross_entropy(z, rows) for z in (logits, logits.T))
    return (there + back) / 2
