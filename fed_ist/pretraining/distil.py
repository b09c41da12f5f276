"""Distillation: the stage in which the student learns what a teacher makes of the whole image.

The student sees the visible patches of a view. A linear layer on its class token, which is dropped
after training, predicts the teacher's output of the whole view, whatever the mask hides; the loss
is one minus their cosine. So the embedding of an image comes to depend little on how much of it was
kept, and holds what the teacher tells images apart by.

What is predicted are the principal numbers of the teacher's outputs over the images: regression
onto all of them, each scaled to the same variance, spends the student on what is mostly noise.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from fed_ist.pretraining.mae import keep_tokens


class MaskedStudent(nn.Module):
    """A ViT with a linear layer from its class token to the teacher's principal numbers."""

    def __init__(self, encoder: Any, target_dim: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.predictor = nn.Linear(encoder.embed_dim, target_dim)

    def forward(self, views: Tensor, order: Tensor, n_visible: int, targets: Tensor) -> Tensor:
        """The loss, a scalar between 0 and 2.

        views: float (N, C, H, W). order: int64 (N, patches), of which the first n_visible are kept.
        targets: float (N, target_dim).
        """
        tokens = keep_tokens(self.encoder, views, order, n_visible)
        predicted = self.predictor(tokens[:, 0]).float()
        loss: Tensor = (1 - functional.cosine_similarity(predicted, targets, dim=1)).mean()
        return loss


@dataclass(frozen=True)
class Principal:
    """How outputs become principal numbers: projections on the directions of greatest variance.

    mean: float32 (output_dim,). directions: float32 (output_dim, k), orthonormal columns.
    """

    mean: Tensor
    directions: Tensor

    def of(self, outputs: NDArray[np.float16]) -> Tensor:
        """The principal numbers: float32 (..., k). outputs: (..., output_dim)."""
        found: Tensor = (torch.from_numpy(outputs).float() - self.mean) @ self.directions
        return found


def principal(outputs: NDArray[np.float16], k: int) -> Principal:
    """The k directions, or fewer where there are fewer outputs or numbers, of greatest variance.

    outputs: float16 (n, output_dim).
    """
    rows = torch.from_numpy(outputs).double()
    mean = rows.mean(dim=0)
    # The covariance's own directions: a decomposition of all rows would take far more memory.
    values, vectors = torch.linalg.eigh((rows - mean).T @ (rows - mean))
    largest = vectors.flip(1)[:, : min(k, len(rows), len(values))]
    # Which way a direction points is arbitrary: its largest part is made positive.
    sign = largest.gather(0, largest.abs().argmax(dim=0, keepdim=True)).sign()
    return Principal(mean.float(), (largest * sign).float())


def ridge(embeddings: Tensor, targets: Tensor, strength: float = 10.0) -> tuple[Tensor, Tensor]:
    """(weight, bias) of the linear layer that predicts targets best, by ridge regression.

    embeddings: float32 (n, dim); targets: float32 (n, k). weight: float32 (k, dim), bias: (k,).
    Distillation starts there: from a random layer, the first steps ruin what the encoder knows.
    """
    x, y = embeddings.double(), targets.double()
    x_mean, y_mean = x.mean(dim=0), y.mean(dim=0)
    x, y = x - x_mean, y - y_mean
    penalty = strength * torch.eye(x.shape[1], dtype=x.dtype)
    weight = torch.linalg.solve(x.T @ x + penalty, x.T @ y).T
    return weight.float(), (y_mean - weight @ x_mean).float()
