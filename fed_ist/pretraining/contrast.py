"""Contrast of masked views: the second stage of pre-training.

Two crops of an image, each with other patches hidden, shall get class tokens that are nearer to
each other than to those of the other images in the batch (InfoNCE, van den Oord et al. 2018;
SimCLR, Chen et al. 2020; on masked views as in CAN, Mishra et al. 2022). A masked autoencoder
learns textures; a short contrastive tuning of it sorts them into scenes (MAE-CT, Lehner et al.
2023). As the views are masked at several ratios, an image's embedding comes to depend little on how
much of it was kept.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fed_ist.pretraining.mae import keep_tokens


class MaskedContrast(nn.Module):
    """A ViT with a projector that is thrown away afterwards (SimCLR, section 4.2)."""

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
        """views: two of float (N, C, H, W); noise: (N, patches) each; n_visible: patches kept."""
        first, second = (
            self.projector(keep_tokens(self.encoder, view, n.argsort(dim=1), k)[:, 0])
            for view, n, k in zip(views, noise, n_visible, strict=True)
        )
        return info_nce(first, second, self.temperature)


def info_nce(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy, both ways, of finding row i of one in row i of the other."""
    first, second = (functional.normalize(z.float(), dim=1) for z in (first, second))
    logits = first @ second.T / temperature
    rows = torch.arange(len(logits), device=logits.device)
    there, back = (functional.cross_entropy(z, rows) for z in (logits, logits.T))
    return (there + back) / 2
