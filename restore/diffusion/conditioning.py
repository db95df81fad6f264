"""From a UNet to predict(x, t): the condition, then guidance; windows and loop go round them."""

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
    """What the UNet is told about the picture.

    known   (1, K, h, w): the scaled latent of what the picture shows, mid grey where it shows
            nothing; or the picture itself, where the layout reads that.
    trust   (1, 1, h, w): 0 keep, 0.5 restore, 1 repaint.
    labels  (1,) long, what class embedding a UNet asks for: SD's x4 upscaler, the noise level.
    hint    what a ControlNet is shown, by pixels of the canvas.
    """

    known: Tensor
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
    """The UNet's answer for windows of the canvas that `condition` describes.

    context  (1, tokens, width) for cross-attention, the same for every window; None without it.
    pooled   (1, width), what SDXL reads of the prompt as a whole, beside sizes.
    control  a ControlNet that steers the UNet by condition.hint.
    factor   pixels a latent, on a side.
    """

    def predict(x: Tensor, t: Tensor, corners: list[Corner]) -> Tensor:
        height, width = x.shape[-2:]

        def cut(canvas: Tensor) -> Tensor:
            return torch.cat([canvas[..., r : r + height, c : c + width] for r, c in corners])

        shown = layout.unet_input(x, cut(condition.known), cut(condition.trust)).to(unet.dtype)
        labels = None if condition.labels is None else condition.labels.expand(len(x))
        if context is None:
            return unet(shown, t, class_labels=labels).sample.to(x.dtype)
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
            told = x.to(unet.dtype), t, text, hint, control.scale
            downs, middle = control.net(*told, return_dict=False, **more)
            more |= {
                "down_block_additional_residuals": downs,
                "mid_block_additional_residual": middle,
            }
        return unet(shown, t, text, class_labels=labels, **more).sample.to(x.dtype)

    return predict


def with_sizes(pooled: Tensor, size: tuple[int, int], x: Tensor) -> dict[str, Tensor]:
    """What SDXL reads beside tokens: the pooled prompt, and three sizes in pixels.

    They are the original size, the corner where it was cropped, and the target's size. Each window
    is told that it is a whole picture of its own size, cropped nowhere. The literal truth, such as
    a corner at (3072, 5120) of a picture of 8192, is far beyond the sizes of training, and told of
    other corners than (0, 0), SDXL cuts its subjects off (Podell et al. 2023, section 2.2). So an
    answer also depends neither on where its window lies nor on how large the picture is. Where one
    window is the picture, this is what diffusers tells by default.
    """
    told = torch.tensor([[*size, 0, 0, *size]], device=x.device, dtype=torch.float32)
    text = pooled.to(x.device, x.dtype)
    return {"text_embeds": text.expand(len(x), -1), "time_ids": told.expand(len(x), -1)}


def pixels(first: int, count: int, factor: int) -> slice:
    """A span of latents in pixels."""
    return slice(first * factor, (first + count) * factor)


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
