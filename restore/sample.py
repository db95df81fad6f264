"""The one loop from noise to a clean latent; `predict(x, t)` is its one joint."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from diffusers import SchedulerMixin
from torch import Tensor

from restore.errors import NonFiniteError
from restore.windows import Predict

OnStep = Callable[[int, Tensor], None]
Keep = Callable[[int, Tensor], Tensor]


def ignore(step: int, x: Tensor) -> None:
    """Watch nothing."""


def as_it_is(step: int, x: Tensor) -> Tensor:
    """Keep nothing."""
    return x


def sample(
    predict: Predict,
    x: Tensor,
    scheduler: SchedulerMixin,
    on_step: OnStep = ignore,
    rng: torch.Generator | None = None,
    eta: float = 0,
    keep: Keep = as_it_is,
) -> Tensor:
    """Walk from noise to a clean latent with any diffusers scheduler.

    predict    (x, t) -> model output; guidance, windows and conditions are wrapped round it.
    x          (B, C, h, w), noised to the scheduler's first timestep by `start`.
    scheduler  set_timesteps() has been called; its prediction type is the network's.
    on_step    sees each step's latent; what it raises ends the walk.
    rng        of the noise that ancestral and stochastic schedulers add; on the CPU, so that it is
               the same for every device.
    eta        DDIM's share of fresh noise (Song et al. 2021); other schedulers do not ask.
    keep       may put back a part of each step's latent.
    Raises NonFiniteError with the step's number if a step leaves the finite numbers.
    """
    asks = inspect.signature(scheduler.step).parameters
    more: dict[str, Any] = {"generator": rng, "eta": eta}
    more = {name: value for name, value in more.items() if name in asks}
    for step, t in enumerate(scheduler.timesteps):
        x = scheduler.step(predict(scheduler.scale_model_input(x, t), t), t, x, **more).prev_sample
        if not torch.isfinite(x).all():
            raise NonFiniteError(f"step {step + 1}: the latent left the finite numbers")
        x = keep(step, x)
        on_step(step, x)
    return x


def start(
    scheduler: SchedulerMixin, noise: Tensor, clean: Tensor | None = None, strength: float = 1
) -> Tensor:
    """The walk's first point: pure noise, or `clean` noised to where `strength` enters the walk.

    Below strength 1 the scheduler's leading timesteps are dropped, as diffusers' image to image
    does, so that int(steps * strength), at least one, remain.
    """
    if clean is None:
        return noise * scheduler.init_noise_sigma
    steps = scheduler.num_inference_steps
    first = min(steps - 1, steps - int(steps * strength))
    scheduler.timesteps = scheduler.timesteps[first * scheduler.order :]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first * scheduler.order)
    return scheduler.add_noise(clean, noise, scheduler.timesteps[:1])
