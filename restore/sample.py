"""The one loop from noise to a clean latent; `predict(x, t)` is its one joint."""

from collections.abc import Callable

import torch
from diffusers import SchedulerMixin
from torch import Tensor

from restore.errors import NonFiniteError
from restore.windows import Predict

OnStep = Callable[[int, Tensor], None]


def ignore(step: int, x: Tensor) -> None:
    """Watch nothing."""


def sample(
    predict: Predict, x: Tensor, scheduler: SchedulerMixin, on_step: OnStep = ignore
) -> Tensor:
    """Walk from noise to a clean latent with any diffusers scheduler.

    predict    (x, t) -> model output; guidance, windows and conditions are wrapped round it.
    x          (B, C, h, w), noised to the scheduler's first timestep by `start`.
    scheduler  set_timesteps() has been called; its prediction type is the network's.
    Raises NonFiniteError with the step's number if a step leaves the finite numbers.
    """
    for step, t in enumerate(scheduler.timesteps):
        x = scheduler.step(predict(scheduler.scale_model_input(x, t), t), t, x).prev_sample
        if not torch.isfinite(x).all():
            raise NonFiniteError(f"step {step + 1}: the latent left the finite numbers")
        on_step(step, x)
    return x


def start(scheduler: SchedulerMixin, noise: Tensor, clean: Tensor, strength: float) -> Tensor:
    """The walk's first point: pure noise at strength 1, else `clean` noised part of the way.

    Below 1 the scheduler's leading timesteps are dropped, as diffusers' image to image does, so
    that int(steps * strength), at least one, remain.
    """
    if strength == 1:
        return noise * scheduler.init_noise_sigma
    steps = len(scheduler.timesteps)
    first = min(steps - 1, steps - int(steps * strength))
    scheduler.timesteps = scheduler.timesteps[first * scheduler.order :]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first * scheduler.order)
    return scheduler.add_noise(clean, noise, scheduler.timesteps[:1])
