"""Distillation of whole views into masked ones: the third stage of pre-training.

The encoder as it stood is the teacher and sees a whole crop; the encoder being trained sees a part
of the same crop and shall give the same class token (a regression onto the features of a fixed
teacher, as in FitNets, Romero et al. 2015, here from all patches to some, as MSN, Assran et al.
2022, has it for a moving teacher). What hiding patches costs in accuracy shrinks.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fed_ist.mae import keep_tokens


class MaskedDistillation(nn.Module):
    """A ViT and the frozen copy of it that it learns from."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder
        self.teacher = copy.deepcopy(encoder).requires_grad_(False)

    def forward(self, view: Tensor, noise: list[Tensor], n_visible: list[int]) -> Tensor:
        """Mean squared error, each feature in units of its deviation over the batch.

        view: float (N, C, H, W); noise: (N, patches) for each masked view of it; n_visible: patches
        kept in each.
        """
        with torch.no_grad():
            target = self.teacher.forward_features(view)[:, 0].float()
        deviation = target.std(dim=0) + 1e-6
        losses = [
            functional.mse_loss(
                keep_tokens(self.encoder, view, n.argsort(dim=1), k)[:, 0].float() / deviation,
                target / deviation,
            )
            for n, k in zip(noise, n_visible, strict=True)
        ]
        return torch.stack(losses).mean()
