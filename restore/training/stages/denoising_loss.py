"""Training targets and losses of the denoiser: the arithmetic of stage two."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from diffusers import SchedulerMixin
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from restore.config import Options
from restore.diffusion.layouts import REPAINT
from restore.diffusion.stack import Stack
from restore.training.data.loading import to_rgb
from restore.training.losses.perceptual import PerceptualOptions, distance
from restore.training.losses.pixel import gradient
from restore.training.losses.texture import TextureOptions, texture_losses
from restore.training.rng import WHOLE, Part
from restore.training.stages.decoding import decode_result
from restore.training.stages.prediction import min_snr, prediction_target, to_clean


class DenoisingOptions(Options):
    """How a denoiser is trained, whatever the networks and the data."""

    last_share: float = Field(0.5, ge=0, le=1)
    """Share of a batch at the last timestep."""
    lean: float = Field(1.0, ge=1)
    """How far the other timesteps lean towards noise; 1 is uniform."""
    walk_weight: float = Field(1.0, ge=0)
    """Weight of the loss at all timesteps but the last."""
    min_snr: float | None = Field(None, gt=0)
    """Gamma of the min-SNR weights of those timesteps (Hang et al. 2023); 5 is usual."""
    offset_noise: float = Field(0.0, ge=0)
    """Sigma of added noise that is one value a channel."""
    repaint_weight: float = Field(1.0, ge=0)
    """Weight of the loss where the trust map says repaint."""
    pixel_start: int = Field(0, ge=0)
    """Step from which decoded pictures are compared as well."""
    pixel_weight: float = Field(0.0, ge=0)
    """Weight of the L1 and gradient losses of decoded pictures."""
    pixel_samples: int = Field(8, ge=1)
    """Number of samples of a batch that are decoded."""
    perceptual: PerceptualOptions | None = None
    """The perceptual loss of decoded pictures, if any."""
    texture: TextureOptions | None = None
    """Losses of decoded pictures at all timesteps but the last, or at every one; None: the same as
    at the last.
    """

    @model_validator(mode="after")
    def _is_heard(self) -> Self:
        for name in ("perceptual", "texture"):
            if getattr(self, name) and not self.pixel_weight:
                raise ValueError(f"{name} is of decoded pictures; set pixel_weight above 0 too")
        if self.perceptual and self.texture and self.texture.every_step:
            raise ValueError(
                "with texture.every_step all decoded pictures have the losses of texture; "
                "perceptual has no effect here: give texture.perceptual instead"
            )
        return self


def timesteps(count: int, share: float, last: int, rng: torch.Generator, lean: float = 1) -> Tensor:
    """(count,) timesteps: the first `share` of them the last one, the others random.

    Args:
        count: Number of timesteps.
        share: Share of the last timestep.
        last: The last timestep.
        rng: Draws the others; the result is on its device.
        lean: 1 is uniform; above, the density grows as t ** (lean - 1).
    """
    t = torch.randint(0, last + 1, (count,), generator=rng, device=rng.device)
    if lean != 1:
        t = (last * ((t + 0.5) / (last + 1)) ** (1 / lean)).round().long()
    t[: round(count * share)] = last
    return t


def match_memory_format(x: Tensor, weight: Tensor) -> Tensor:
    """The input in the memory format of the first layer's weight."""
    is_last = weight.is_contiguous(memory_format=torch.channels_last)
    return x.contiguous(memory_format=torch.channels_last if is_last else torch.contiguous_format)


@dataclass(frozen=True)
class Draw:
    """What is drawn at random for one batch."""

    t: Tensor
    """(B,) timesteps."""
    noise: Tensor
    """(B, C, h, w)."""
    decoded: Tensor
    """Rows of this part of the batch whose predictions are decoded to pixels."""
    of_all: Tensor
    """Timesteps of the rows of the whole batch that are decoded, here or in other parts."""
    parts: int
    """Parts of the whole batch."""
    continued: Tensor
    """Those of `decoded` that start from the model's own first prediction, not from the target."""


Ask = Callable[[Tensor, Tensor, Tensor | slice], Tensor]
"""(x, t, rows of the batch) -> the UNet's prediction for these rows."""


def train_step(
    stack: Stack,
    batch: dict[str, Tensor],
    options: DenoisingOptions,
    step: int,
    rng: torch.Generator,
    part: Part = WHOLE,
    discriminator: nn.Module | None = None,
) -> dict[str, Tensor]:
    """The losses of one batch.

    What is diffused is the residual r = (target - conditioning) / residual_scale, at zero terminal
    SNR (Lin et al. 2024). At the last timestep x_t holds nothing of r, so that share of the batch
    is a plain regression: one step of sampling gives the faithful average.

    Args:
        stack: The networks and the noise schedule.
        batch: What `prepare_batch` returns: target and conditioning (B, C, h, w), trust
            (B, 1, h, w), tokens as the context's `inputs` returns them and, where pixels count,
            truth and a first stage's shown, uint8 (B, H, W, 3).
        options: Weights and shares of the losses.
        step: Number of the update, from 0.
        rng: The generator of all draws, on the device of the batch.
        part: Which part of the step's samples the batch is.
        discriminator: The discriminator, if options.texture has an adversary.

    Returns:
        Scalar losses by name, already weighted: their sum is minimised.
    """
    schedule = stack.schedule
    residual = stack.to_residual(batch["target"], batch["conditioning"])
    draws = draw(residual, schedule, options, step, rng, part)
    ask = _asking(stack, batch)
    start = residual
    if options.texture and options.texture.own:
        first = predict_first(ask, schedule, residual, draws.noise, draws.continued)
        start = residual.index_copy(0, draws.continued, first)
    x = schedule.add_noise(start, draws.noise, draws.t)
    output = ask(x, draws.t, slice(None)).float()
    losses = {"latent": latent_loss(output, residual, draws, batch["trust"], schedule, options)}
    if len(draws.decoded):
        losses |= pixel_losses(
            stack, batch, output, x, draws, options, step=step, discriminator=discriminator
        )
    return losses


def draw(
    like: Tensor,
    schedule: SchedulerMixin,
    options: DenoisingOptions,
    step: int,
    rng: torch.Generator,
    part: Part,
) -> Draw:
    """Draw timesteps, noise and the rows that are decoded.

    Args:
        like: The residual of this process's part of the batch, (B, C, h, w).
        schedule: The noise schedule.
        options: Shares and weights.
        step: The training step; decoding starts at `pixel_start`.
        rng: Draws for the whole batch, so that the parts do not depend on the number of processes.
        part: Which rows of the whole batch are here.
    """
    last = schedule.config.num_train_timesteps - 1
    count = part.of * len(like)
    whole = timesteps(count, options.last_share, last, rng, options.lean)
    t = part.cut(whole)
    noise = part.normal(like, rng)
    if options.offset_noise:  # so that the mean of a picture is learnt too (Guttenberg 2023)
        noise = noise + options.offset_noise * part.normal(like[..., :1, :1], rng)
    is_decoded = options.pixel_weight and step >= options.pixel_start
    # of the whole batch: the first rows of every part are at the last timestep
    chosen = spaced_indices(count, options.pixel_samples if is_decoded else 0).to(t.device)
    decoded = part.own(chosen)
    continued = decoded[:0]
    if options.texture and options.texture.own:
        chance = part.cut(torch.rand(count, generator=rng, device=t.device))[decoded]
        continued = decoded[(chance < options.texture.own) & (t[decoded] < last)]
    return Draw(t, noise, decoded, whole[chosen], part.of, continued)


def _asking(stack: Stack, batch: dict[str, Tensor]) -> Ask:
    """The UNet with the batch's conditioning, trust and words."""
    said, which = batch["tokens"].unique(dim=0, return_inverse=True)  # most captions are empty
    tokens = stack.reader.tokens(said)[which]

    def ask(x: Tensor, t: Tensor, rows: Tensor | slice) -> Tensor:
        inputs = stack.layout.unet_input(x, batch["conditioning"][rows], batch["trust"][rows])
        inputs = match_memory_format(inputs, stack.unet.conv_in.weight)
        return stack.unet(inputs, t, tokens[rows]).sample

    return ask


def latent_loss(
    output: Tensor,
    residual: Tensor,
    draws: Draw,
    trust: Tensor,
    schedule: SchedulerMixin,
    options: DenoisingOptions,
) -> Tensor:
    """The weighted mean squared error of the predictions, a scalar.

    Fresh noise and the content of holes are large and mostly cannot be predicted. At full weight
    they would drown the small errors that restoring is about.

    Args:
        output: The UNet's predictions, (B, C, h, w).
        residual: The clean latents as the UNet sees them, (B, C, h, w).
        draws: Timesteps and noise.
        trust: The trust map at latent size, (B, 1, h, w).
        schedule: Its prediction type decides what is predicted.
        options: The weights.
    """
    last = schedule.config.num_train_timesteps - 1
    weight = options.walk_weight
    if options.min_snr:
        weight = weight * min_snr(schedule, draws.t, options.min_snr)
    weight = torch.where(draws.t == last, 1.0, weight).index_fill(0, draws.continued, 0)
    weight = weight.view(-1, 1, 1, 1) * torch.where(trust == REPAINT, options.repaint_weight, 1.0)
    wanted = prediction_target(schedule, residual, draws.noise, draws.t)
    return (weight * (output - wanted).square()).mean()


def pixel_losses(
    stack: Stack,
    batch: dict[str, Tensor],
    output: Tensor,
    x: Tensor,
    draws: Draw,
    options: DenoisingOptions,
    *,
    step: int,
    discriminator: nn.Module | None,
) -> dict[str, Tensor]:
    """The losses of the decoded rows: faithful, or textured as the options say at which timesteps.

    Args:
        stack: The networks and the noise schedule.
        batch: As in `train_step`.
        output: The UNet's predictions (B, C, h, w) about x.
        x: The noisy residuals (B, C, h, w).
        draws: Timesteps, and which rows are decoded.
        options: Weights of the losses.
        step: Number of the update, from 0.
        discriminator: As in `train_step`.
    """
    rows, last = draws.decoded, stack.schedule.config.num_train_timesteps - 1
    t = draws.t[rows]
    end = to_clean(stack.schedule, output[rows], x[rows], t)
    latents = stack.from_residual(end, batch["conditioning"][rows])
    rgb = decode_result(stack, latents, batch, rows)
    truth = to_rgb(batch["truth"][rows])
    losses: dict[str, Tensor] = {}
    is_textured, in_whole = (_is_textured(some, last, options) for some in (t, draws.of_all))
    if not is_textured.all():
        found = faithful_losses(rgb[~is_textured], truth[~is_textured], options)
        losses |= _share(found, ~is_textured, ~in_whole, draws.parts)
    if options.texture and is_textured.any():
        pair = rgb[is_textured], truth[is_textured]
        layer = stack.unet.conv_out.weight
        given = to_rgb(batch["shown"][rows][is_textured]) if "shown" in batch else None
        found = texture_losses(*pair, options.texture, step, layer, discriminator, given)
        losses |= _share(found, is_textured, in_whole, draws.parts)
    return losses


def _is_textured(t: Tensor, last: int, options: DenoisingOptions) -> Tensor:
    """Whether decoded rows at these timesteps have the losses of texture."""
    if not options.texture:
        return torch.zeros_like(t).bool()
    return (t < last) | options.texture.every_step


def _share(losses: dict[str, Tensor], here: Tensor, whole: Tensor, parts: int) -> dict[str, Tensor]:
    """Means over the rows here, so weighted that the mean over all parts is that over all rows."""
    weight = parts * here.sum() / whole.sum()
    return {name: weight * loss for name, loss in losses.items()}


def spaced_indices(count: int, some: int) -> Tensor:
    """`some` of the numbers below count, or all, evenly spaced."""
    return torch.linspace(0, count - 1, min(some, count)).round().long()


@torch.no_grad()
def predict_first(
    ask: Ask, schedule: SchedulerMixin, residual: Tensor, noise: Tensor, rows: Tensor
) -> Tensor:
    """Predict what the first step of sampling gives for some rows, where its second step starts.

    Args:
        ask: Runs the UNet: (x, t, rows) -> its output.
        schedule: The noise schedule.
        residual: The clean latents of the batch, (B, C, h, w).
        noise: Of the same shape.
        rows: Indices into the batch, (n,).

    Returns:
        Clean latents, (n, C, h, w).
    """
    last = torch.full_like(rows, schedule.config.num_train_timesteps - 1)
    x = schedule.add_noise(residual[rows], noise[rows], last)
    return to_clean(schedule, ask(x, last, rows).float(), x, last) if len(rows) else residual[rows]


def faithful_losses(rgb: Tensor, truth: Tensor, options: DenoisingOptions) -> dict[str, Tensor]:
    """The losses of decoded pictures at the last timestep; rgb and truth are (B, 3, H, W)."""
    losses = {"pixel": options.pixel_weight * (F.l1_loss(rgb, truth) + gradient(rgb, truth))}
    if options.perceptual:
        apart = distance(options.perceptual, rgb.device)(rgb.clamp(0, 1), truth)
        losses["perceptual"] = options.perceptual.weight * apart
    return losses
