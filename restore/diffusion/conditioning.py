"""From a UNet to predict(x, t): the condition, then guidance; windows and loop go round them."""

from dataclasses import dataclass

import torch
from diffusers import SchedulerMixin, UNet2DConditionModel, UNet2DModel
from torch import Tensor

from restore.diffusion.layouts import Layout
from restore.diffusion.tiling import Corner, WindowPredict


@dataclass(frozen=True)
class Condition:
    """What the UNet is told about the picture.

    known   (1, K, h, w): the scaled latent of what the picture shows, mid grey where it shows
            nothing; or the picture itself, where the layout reads that.
    trust   (1, 1, h, w): 0 keep, 0.5 restore, 1 repaint.
    labels  (1,) long, what class embedding a UNet asks for: SD's x4 upscaler, the noise level.
    """

    known: Tensor
    trust: Tensor
    labels: Tensor | None = None


def conditioned(
    unet: UNet2DConditionModel | UNet2DModel,
    layout: Layout,
    condition: Condition,
    context: Tensor | None,
) -> WindowPredict:
    """The UNet's answer for windows of the canvas that `condition` describes.

    context  (1, tokens, width) for cross-attention, the same for every window; None without it.
    """

    def predict(x: Tensor, t: Tensor, corners: list[Corner]) -> Tensor:
        height, width = x.shape[-2:]

        def cut(canvas: Tensor) -> Tensor:
            return torch.cat([canvas[..., r : r + height, c : c + width] for r, c in corners])

        shown = layout.unet_input(x, cut(condition.known), cut(condition.trust)).to(unet.dtype)
        labels = None if condition.labels is None else condition.labels.expand(len(x))
        if context is None:
            made = unet(shown, t, class_labels=labels).sample
        else:
            text = context.to(unet.dtype).expand(len(x), -1, -1)
            made = unet(shown, t, text, class_labels=labels).sample
        return made.to(x.dtype)

    return predict


def as_velocity(predict: WindowPredict, schedule: SchedulerMixin) -> WindowPredict:
    """Answers in v (Salimans and Ho 2022) of a UNet that names the clean latent itself.

    Every scheduler walks by v, but Euler's and Heun's kind not by the latter.
    """
    if schedule.config.prediction_type != "sample":
        return predict
    kept = schedule.alphas_cumprod

    def velocity(x: Tensor, t: Tensor, corners: list[Corner]) -> Tensor:
        share = kept.to(x.device)[torch.as_tensor(t).round().long()].view(-1, 1, 1, 1)
        return (share.sqrt() * x - predict(x, t, corners)) / (1 - share).sqrt()

    return velocity


def guided(
    wanted: WindowPredict, unwanted: WindowPredict, guidance: float, rescale: float = 0
) -> WindowPredict:
    """Classifier-free guidance (Ho and Salimans 2022); at 1 `unwanted` is not even asked.

    rescale  share of the answer whose spread is brought back to the unguided one's (Lin et al.
             2024, Common Diffusion Noise Schedules and Sample Steps are Flawed); 0 is off.
    """
    if guidance == 1:
        return wanted

    def predict(x: Tensor, t: Tensor, corners: list[Corner]) -> Tensor:
        away, towards = unwanted(x, t, corners), wanted(x, t, corners)
        made = away + guidance * (towards - away)
        if not rescale:
            return made
        spread, meant = (y.std((1, 2, 3), keepdim=True) for y in (made, towards))
        return rescale * (made * (meant / spread)) + (1 - rescale) * made

    return predict
