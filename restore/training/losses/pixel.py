"""Pixel losses. Every function takes rgb tensors (B, 3, H, W) and returns a scalar."""

from collections.abc import Callable
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

PixelLoss = Literal["edges", "l1", "l2"]


def gradient(result: Tensor, truth: Tensor) -> Tensor:
    """L1 between the horizontal and vertical differences of two tensors: it asks for edges."""
    error = result - truth
    return error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()


def reconstruction(result: Tensor, truth: Tensor) -> Tensor:
    """L1 for fidelity, gradients for edges, half an MSE so that no large error stays."""
    return F.l1_loss(result, truth) + gradient(result, truth) + 0.5 * F.mse_loss(result, truth)


PIXEL_LOSSES: dict[PixelLoss, Callable[[Tensor, Tensor], Tensor]] = {
    "edges": reconstruction,
    "l1": F.l1_loss,
    "l2": F.mse_loss,
}
