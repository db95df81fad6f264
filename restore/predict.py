"""From a UNet to predict(x, t): the condition, then guidance; windows and loop go round them."""

from dataclasses import dataclass

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from restore.layouts import TrustLayout
from restore.windows import Corner, WindowPredict


@dataclass(frozen=True)
class Condition:
    """What the UNet is told about the picture.

    known  (1, C, h, w) scaled latent of what the picture shows, mid grey where it shows nothing.
    trust  (1, 1, h, w): 0 keep, 0.5 restore, 1 repaint.
    """

    known: Tensor
    trust: Tensor


def conditioned(
    unet: UNet2DConditionModel, layout: TrustLayout, condition: Condition, text: Tensor
) -> WindowPredict:
    """The UNet's answer for windows of the canvas that `condition` describes.

    text  (1, tokens, width) embedding, the same for every window.
    """

    def predict(x: Tensor, t: Tensor, corners: list[Corner]) -> Tensor:
        height, width = x.shape[-2:]

        def cut(canvas: Tensor) -> Tensor:
            return torch.cat([canvas[..., r : r + height, c : c + width] for r, c in corners])

        shown = layout.unet_input(x, cut(condition.known), cut(condition.trust))
        made = unet(shown.to(unet.dtype), t, text.to(unet.dtype).expand(len(x), -1, -1)).sample
        return made.to(x.dtype)

    return predict


def guided(wanted: WindowPredict, unwanted: WindowPredict, guidance: float) -> WindowPredict:
    """Classifier-free guidance (Ho and Salimans 2022); at 1 `unwanted` is not even asked."""
    if guidance == 1:
        return wanted

    def predict(x: Tensor, t: Tensor, corners: list[Corner]) -> Tensor:
        away = unwanted(x, t, corners)
        return away + guidance * (wanted(x, t, corners) - away)

    return predict
