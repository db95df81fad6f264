"""From a UNet to predict(x, t): condition and guidance. Tiling and the sampling loop come after."""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import SchedulerMixin, UNet2DConditionModel, UNet2DModel
from torch import Tensor

from restore.diffusion.control import Control, Hint
from restore.diffusion.layouts import Layout
from restore.diffusion.tiling import Corner, WindowPredict


@dataclass(frozen=True)
class Condition:
    """What the UNet gets besides the noisy latent.

    Attributes:
        conditioning: (1, K, h, w): the scaled latent of the picture, encoded from mid grey where
            nothing is known. For layouts that read pixels, the picture itself in [-1, 1].
        trust: (1, 1, h, w): 0 keep, 0.5 restore, 1 repaint.
        labels: (1,) long: the class label, if the UNet has a class embedding. For SD's x4 upscaler
            it is the noise level.
        hint: Gives the ControlNet's input for a part of the canvas, in pixels.
    """

    conditioning: Tensor
    trust: Tensor
    labels: Tensor | None = None
    hint: Hint | None = None


def conditioned(
    unet: UNet2DConditionModel | UNet2DModel,
    layout: Layout,
    condition: Condition,
    context: Tensor | None,
    *,
    pooled: Tensor | None = None,
    control: Control | None = None,
    factor: int = 8,
) -> WindowPredict:
    """Make a predict function for windows of the canvas that `condition` describes.

    Args:
        unet: The network.
        layout: What its input channels mean.
        condition: For the whole canvas.
        context: (1, tokens, width) for cross-attention, the same for every window. None for a UNet
            without it.
        pooled: (1, width): SDXL's pooled prompt embedding.
        control: A ControlNet; it gets condition.hint.
        factor: Pixels per latent on a side.
    """

    def predict(x: Tensor, t: Tensor, corners: list[Corner]) -> Tensor:
        height, width = x.shape[-2:]

        def cut(canvas: Tensor) -> Tensor:
            return torch.cat([canvas[..., r : r + height, c : c + width] for r, c in corners])

        packed = layout.unet_input(x, cut(condition.conditioning), cut(condition.trust)).to(
            unet.dtype
        )
        labels = None if condition.labels is None else condition.labels.expand(len(x))
        if context is None:
            return unet(packed, t, class_labels=labels).sample.to(x.dtype)
        text = context.to(unet.dtype).expand(len(x), -1, -1)
        more: dict[str, Any] = {}
        if pooled is not None:
            more["added_cond_kwargs"] = with_sizes(pooled, (height * factor, width * factor), x)
        if control is not None and condition.hint is not None:
            hints = [
                condition.hint(pixels(r, height, factor), pixels(c, width, factor))
                for r, c in corners
            ]
            hint = torch.cat(hints).to(x.device, unet.dtype)
            inputs = x.to(unet.dtype), t, text, hint, control.scale
            downs, middle = control.net(*inputs, return_dict=False, **more)
            more |= {
                "down_block_additional_residuals": downs,
                "mid_block_additional_residual": middle,
            }
        return unet(packed, t, text, class_labels=labels, **more).sample.to(x.dtype)

    return predict


def with_sizes(pooled: Tensor, size: tuple[int, int], x: Tensor) -> dict[str, Tensor]:
    """Return SDXL's added conditions: the pooled prompt, and three sizes in pixels.

    The sizes are the original size, the top left corner of the crop, and the target size (Podell et
    al. 2023, section 2.2). Here each window is described as a whole picture of its own size,
    without a crop. The true numbers, such as a corner at (3072, 5120) of a picture of 8192, are far
    beyond those of the training. Also, corners other than (0, 0) make SDXL cut its subjects off. So
    the prediction depends neither on the place of the window nor on the size of the picture. If one
    window is the whole picture, these are diffusers' default values.

    Args:
        pooled: (1, width): the pooled prompt embedding.
        size: (height, width) of a window in pixels.
        x: (n, C, h, w): the windows; gives batch size, device and dtype.

    Returns:
        added_cond_kwargs of the UNet.
    """
    sizes = torch.tensor([[*size, 0, 0, *size]], device=x.device, dtype=torch.float32)
    text = pooled.to(x.device, x.dtype)
    return {"text_embeds": text.expand(len(x), -1), "time_ids": sizes.expand(len(x), -1)}


def pixels(first: int, count: int, factor: int) -> slice:
    """Convert a span of latents to a span of pixels."""
    return slice(first * factor, (first + count) * factor)


def as_velocity(predict: WindowPredict, schedule: SchedulerMixin) -> WindowPredict:
    """Convert predictions of the clean latent to v (Salimans and Ho 2022).

    All schedulers accept v_prediction, but some, such as Euler and Heun, do not accept sample.
    Other prediction types are returned unchanged.

    Args:
        predict: Predictions of the type that the schedule's config names.
        schedule: The checkpoint's scheduler.
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
    """Apply classifier-free guidance (Ho and Salimans 2022).

    Args:
        wanted: Predictions for the prompt.
        unwanted: Predictions for the negative prompt. They are not computed without guidance.
        guidance: The guidance scale; 1 and below is off, as in diffusers.
        rescale: The share of the prediction that is scaled back to the standard deviation of
            `wanted` (Lin et al. 2024, Common Diffusion Noise Schedules and Sample Steps are
            Flawed); 0 is off.
    """
    if guidance <= 1:  # published models that need none say 0; below 1 the prompt would fade
        return wanted

    def predict(x: Tensor, t: Tensor, corners: list[Corner]) -> Tensor:
        away, towards = unwanted(x, t, corners), wanted(x, t, corners)
        made = away + guidance * (towards - away)
        if not rescale:
            return made
        spread, meant = (y.std((1, 2, 3), keepdim=True) for y in (made, towards))
        return rescale * (made * (meant / spread)) + (1 - rescale) * made

    return predict
