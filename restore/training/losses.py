"""Pixel losses. Every function takes rgb tensors (B, 3, H, W) and returns a scalar."""

import torch.nn.functional as F
from torch import Tensor


def gradient(made: Tensor, wanted: Tensor) -> Tensor:
    """L1 between the horizontal and vertical differences of two tensors: it asks for edges."""
    error = made - wanted
    return error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()


def reconstruction(made: Tensor, wanted: Tensor) -> Tensor:
    """L1 for fidelity, gradients for edges, half an MSE so that no large error stays."""
    return F.l1_loss(made, wanted) + gradient(made, wanted) + 0.5 * F.mse_loss(made, wanted)
