"""Losses for texture. A first step of sampling that was not asked for any gives an average."""

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from restore.config import Options
from restore.training.losses.discriminator import AdversaryOptions, adversarial_losses
from restore.training.losses.perceptual import PerceptualOptions, distance
from restore.training.losses.pixel import gradient


class TextureOptions(Options):
    """Losses of decoded pictures at all timesteps but the last, or at every one.

    Sampling in few steps continues from the model's own predictions, so a share of the samples does
    so in training too. With an adversary this is adversarial diffusion distillation (Sauer et al.
    2023) without a teacher.
    """

    own: float = Field(0.5, ge=0, le=1)
    """Share of the decoded samples that continues from the model's own first prediction."""
    every_step: bool = False
    """Also at the last timestep, where sampling starts: for models that sample in one step."""
    pixel_weight: float = Field(0.2, ge=0)
    """Weight of the L1 and gradient losses."""
    perceptual: PerceptualOptions | None = None
    """The perceptual loss, if any."""
    adversary: AdversaryOptions | None = None
    """The discriminator, if any."""


def texture_losses(
    rgb: Tensor,
    truth: Tensor,
    options: TextureOptions,
    step: int,
    last_layer: Tensor,
    discriminator: nn.Module | None,
    given: Tensor | None = None,
) -> dict[str, Tensor]:
    """The losses of decoded pictures.

    Args:
        rgb: Decoded pictures (B, 3, H, W).
        truth: rgb of the same shape.
        options: Weights of the losses.
        step: Number of the update, from 0.
        last_layer: The UNet's last weight, where the adversarial gradient is balanced against the
            others. Balanced at the picture itself, it outweighed them: there the gradients of
            errors cancel, those of the adversary add up.
        discriminator: The discriminator, if the options have an adversary.
        given: What a discriminator sees beside each picture, of the same shape; None: nothing.
    """
    losses = {"walk_pixel": options.pixel_weight * (F.l1_loss(rgb, truth) + gradient(rgb, truth))}
    if options.perceptual:
        apart = distance(options.perceptual, rgb.device)(rgb.clamp(0, 1), truth)
        losses["walk_perceptual"] = options.perceptual.weight * apart
    if discriminator and options.adversary and step >= options.adversary.start:
        fidelity = torch.stack([*losses.values()]).sum()
        losses |= adversarial_losses(
            discriminator, rgb, truth, fidelity, last_layer, options.adversary, given
        )
    return losses
