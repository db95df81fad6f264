"""What a denoiser is asked, and what its answer costs: the arithmetic of stage two."""

from typing import Self

import torch
from diffusers import SchedulerMixin
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from restore.config import Options
from restore.diffusion import vae
from restore.diffusion.layouts import REPAINT
from restore.diffusion.stack import Stack
from restore.training.data.crops import to_rgb
from restore.training.losses.perceptual import PerceptualOptions, distance
from restore.training.losses.pixel import gradient
from restore.training.losses.texture import TextureOptions, texture
from restore.training.rng import WHOLE, Part


class DenoisingOptions(Options):
    """How a walk is learnt, whatever the networks and the data."""

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
    """Losses of decoded pictures at all timesteps but the last; None: the same as at the last."""

    @model_validator(mode="after")
    def _is_heard(self) -> Self:
        if self.texture and not self.pixel_weight:
            raise ValueError("texture is of decoded pictures; set pixel_weight above 0 too")
        return self


def timesteps(count: int, share: float, last: int, rng: torch.Generator, lean: float = 1) -> Tensor:
    """(count,) timesteps: the first `share` of them the last one, the rest over all of them.

    Args:
        lean: 1 is uniform; above, the density grows as t ** (lean - 1).
    """
    t = torch.randint(0, last + 1, (count,), generator=rng, device=rng.device)
    if lean != 1:
        t = (last * ((t + 0.5) / (last + 1)) ** (1 / lean)).round().long()
    t[: round(count * share)] = last
    return t


def levels(schedule: SchedulerMixin, t: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma, each (B, 1, 1, 1), of x_t = alpha * clean + sigma * noise."""
    kept = schedule.alphas_cumprod.to(t.device)[t].view(-1, 1, 1, 1)
    return kept.sqrt(), (1 - kept).sqrt()


def answer(schedule: SchedulerMixin, clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """What a perfect UNet says of x_t: v, the clean latent or the noise, as the schedule has it."""
    kind = schedule.config.prediction_type
    if kind == "v_prediction":
        return schedule.get_velocity(clean, noise, t)
    return clean if kind == "sample" else noise


def clean(schedule: SchedulerMixin, made: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """The clean latent that an answer `made` about x (B, C, h, w) at t (B,) amounts to."""
    (alpha, sigma), kind = levels(schedule, t), schedule.config.prediction_type
    if kind == "sample":
        return made
    return alpha * x - sigma * made if kind == "v_prediction" else (x - sigma * made) / alpha


def answer_for(schedule: SchedulerMixin, clean: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """The answer about x at t that amounts to the clean latent: the inverse of `clean`."""
    (alpha, sigma), kind = levels(schedule, t), schedule.config.prediction_type
    if kind == "sample":
        return clean
    return (alpha * x - clean) / sigma if kind == "v_prediction" else (x - alpha * clean) / sigma


def min_snr(schedule: SchedulerMixin, t: Tensor, gamma: float) -> Tensor:
    """(B,) weights min(SNR, gamma) of the clean latent's error (Hang et al. 2023).

    Turned into those of the error of what the UNet answers with; at SNR 0 v weighs nothing.
    """
    alpha, sigma = (x.flatten() for x in levels(schedule, t))
    snr, kind = (alpha / sigma) ** 2, schedule.config.prediction_type
    weight = snr.clamp(max=gamma)
    return weight / {"v_prediction": snr + 1, "epsilon": snr}.get(kind, torch.ones_like(snr))


def as_weights(x: Tensor, weight: Tensor) -> Tensor:
    """The input in the order in memory that the weights of its first layer have."""
    is_last = weight.is_contiguous(memory_format=torch.channels_last)
    return x.contiguous(memory_format=torch.channels_last if is_last else torch.contiguous_format)


def train_step(
    stack: Stack,
    batch: dict[str, Tensor],
    options: DenoisingOptions,
    step: int,
    rng: torch.Generator,
    part: Part = WHOLE,
    judge: nn.Module | None = None,
) -> dict[str, Tensor]:
    """The losses of one batch.

    v, the noise or the residual itself is asked for, over the residual r = (target - known) /
    residual_scale at zero terminal SNR (Lin et al. 2024). At the last timestep nothing of r is left
    in x_t, so that part of the batch is a plain regression: one step of sampling is the faithful
    average.

    Args:
        batch: Target and known (B, C, h, w), trust (B, 1, h, w), tokens as the context's `inputs`
            gives them, and truth, uint8 (B, H, W, 3), where pixels count: as `ready` gives it.
        judge: The adversary's network, if options.texture has one.
    """
    known, trust, schedule = batch["known"], batch["trust"], stack.schedule
    residual = stack.to_walk(batch["target"], known)
    last = schedule.config.num_train_timesteps - 1
    count = part.of * len(known)
    t = part.cut(timesteps(count, options.last_share, last, rng, options.lean))
    noise = part.normal(known, rng)
    if options.offset_noise:  # so that the mean of a picture is learnt too (Guttenberg 2023)
        noise = noise + options.offset_noise * part.normal(known[..., :1, :1], rng)
    said, which = batch["tokens"].unique(dim=0, return_inverse=True)  # most often nothing is
    tokens = stack.reader.tokens(said)[which]

    def ask(x: Tensor, t: Tensor, rows: Tensor | slice) -> Tensor:
        shown = stack.layout.unet_input(x, known[rows], trust[rows])
        return stack.unet(as_weights(shown, stack.unet.conv_in.weight), t, tokens[rows]).sample

    begun, is_decoded = residual, options.pixel_weight and step >= options.pixel_start
    here = max(1, options.pixel_samples // part.of)
    decoded = spaced(len(t), here).to(t.device) if is_decoded else t[:0]
    own = decoded[:0]
    if options.texture and options.texture.own:
        drawn = part.cut(torch.rand(count, generator=rng, device=t.device))[decoded]
        own = decoded[(drawn < options.texture.own) & (t[decoded] < last)]
        begun = residual.index_copy(0, own, first_answer(ask, schedule, residual, noise, own))
    x = schedule.add_noise(begun, noise, t)
    made = ask(x, t, slice(None)).float()
    # Fresh noise and what a hole hid are large and mostly unknowable: at full weight they drown the
    # small errors that restoring is about.
    walk = options.walk_weight
    if options.min_snr:
        walk = walk * min_snr(schedule, t, options.min_snr)
    weight = torch.where(t == last, 1.0, walk).index_fill(0, own, 0).view(-1, 1, 1, 1)
    weight = weight * torch.where(trust == REPAINT, options.repaint_weight, 1.0)
    wanted = answer(schedule, residual, noise, t)
    losses = {"latent": (weight * (made - wanted).square()).mean()}
    if len(decoded):
        end = clean(schedule, made[decoded], x[decoded], t[decoded])
        rgb = vae.decode_freely(stack.vae, stack.from_walk(end, known[decoded])).float()
        truth = to_rgb(batch["truth"][decoded])
        on_walk = (t[decoded] < last) if options.texture else torch.zeros_like(decoded).bool()
        if not on_walk.all():
            losses |= faithful(rgb[~on_walk], truth[~on_walk], options)
        if options.texture and on_walk.any():
            layer = stack.unet.conv_out.weight
            losses |= texture(rgb[on_walk], truth[on_walk], options.texture, step, layer, judge)
    return losses


def spaced(count: int, some: int) -> Tensor:
    """`some` of the numbers below count, or all, evenly spaced."""
    return torch.linspace(0, count - 1, min(some, count)).round().long()


@torch.no_grad()
def first_answer(ask, schedule, residual: Tensor, noise: Tensor, rows: Tensor) -> Tensor:
    """What the walk's first step says of these rows: where its second one begins."""
    last = torch.full_like(rows, schedule.config.num_train_timesteps - 1)
    x = schedule.add_noise(residual[rows], noise[rows], last)
    return clean(schedule, ask(x, last, rows).float(), x, last) if len(rows) else residual[rows]


def faithful(rgb: Tensor, truth: Tensor, options: DenoisingOptions) -> dict[str, Tensor]:
    """The losses of decoded pictures, rgb as truth."""
    losses = {"pixel": options.pixel_weight * (F.l1_loss(rgb, truth) + gradient(rgb, truth))}
    if options.perceptual:
        apart = distance(options.perceptual, rgb.device)(rgb.clamp(0, 1), truth)
        losses["perceptual"] = options.perceptual.weight * apart
    return losses
