"""What a UNet's prediction stands for: v, the clean latent or the noise."""

import torch
from diffusers import SchedulerMixin
from torch import Tensor


def alpha_sigma(schedule: SchedulerMixin, t: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma, each (B, 1, 1, 1), of x_t = alpha * clean + sigma * noise."""
    kept = schedule.alphas_cumprod.to(t.device)[t].view(-1, 1, 1, 1)
    return kept.sqrt(), (1 - kept).sqrt()


def prediction_target(schedule: SchedulerMixin, clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """What a perfect UNet predicts about x_t: v, the clean latent or the noise, as the schedule
    says.

    Args:
        schedule: The noise schedule.
        clean: (B, C, h, w).
        noise: (B, C, h, w).
        t: (B,) timesteps.
    """
    kind = schedule.config.prediction_type
    if kind == "v_prediction":
        return schedule.get_velocity(clean, noise, t)
    return clean if kind == "sample" else noise


def to_clean(schedule: SchedulerMixin, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """The clean latent that a prediction stands for (diffusers' pred_original_sample).

    Args:
        schedule: The noise schedule.
        output: The UNet's prediction, (B, C, h, w).
        x: What it is about, (B, C, h, w).
        t: (B,) timesteps.
    """
    (alpha, sigma), kind = alpha_sigma(schedule, t), schedule.config.prediction_type
    if kind == "sample":
        return output
    return alpha * x - sigma * output if kind == "v_prediction" else (x - sigma * output) / alpha


def from_clean(schedule: SchedulerMixin, clean: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """The prediction that stands for a clean latent: the inverse of `to_clean`.

    Args:
        schedule: The noise schedule.
        clean: The clean latent, (B, C, h, w).
        x: The noised latent, (B, C, h, w).
        t: (B,) timesteps.
    """
    (alpha, sigma), kind = alpha_sigma(schedule, t), schedule.config.prediction_type
    if kind == "sample":
        return clean
    return (alpha * x - clean) / sigma if kind == "v_prediction" else (x - alpha * clean) / sigma


def min_snr(schedule: SchedulerMixin, t: Tensor, gamma: float) -> Tensor:
    """Weights min(SNR, gamma) of the clean latent's error (Hang et al. 2023), for the error of the
    prediction.

    At SNR 0 an error of v weighs nothing.

    Args:
        schedule: The noise schedule.
        t: (B,) timesteps.
        gamma: Largest weight.

    Returns:
        (B,).
    """
    alpha, sigma = (x.flatten() for x in alpha_sigma(schedule, t))
    snr, kind = (alpha / sigma) ** 2, schedule.config.prediction_type
    weight = snr.clamp(max=gamma)
    return weight / {"v_prediction": snr + 1, "epsilon": snr}.get(kind, torch.ones_like(snr))
