"""The one loop from noise to a clean latent; `predict(x, t)` is its one joint."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from diffusers import DDIMScheduler, SchedulerMixin
from torch import Tensor

from restore import spill
from restore.errors import NonFiniteError
from restore.windows import Predict, PredictRows

OnStep = Callable[[int, int, Tensor], None]
"""(steps done, steps of this walk, latent); what it raises ends the walk"""

Keep = Callable[[int, Tensor], Tensor]


def ignore(step: int, steps: int, x: Tensor) -> None:
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
    rng        of the noise that ancestral and stochastic schedulers add; on the CPU, so that it is
               the same for every device.
    eta        DDIM's share of fresh noise (Song et al. 2021); other schedulers do not ask.
    keep       may put back a part of each step's latent.
    Raises NonFiniteError with the step's number if a step leaves the finite numbers.
    """
    asks = inspect.signature(scheduler.step).parameters
    more: dict[str, Any] = {"generator": rng, "eta": eta}
    more = {name: value for name, value in more.items() if name in asks}
    timesteps = remaining(scheduler)
    for step, t in enumerate(timesteps):
        x = scheduler.step(predict(scheduler.scale_model_input(x, t), t), t, x, **more).prev_sample
        if not torch.isfinite(x).all():
            raise NonFiniteError(f"step {step + 1}: the latent left the finite numbers")
        x = keep(step, x)
        on_step(step + 1, len(timesteps), x)
    return x


def sample_rows(
    predict: PredictRows, x: Tensor, scheduler: SchedulerMixin, on_step: OnStep = ignore
) -> Tensor:
    """As `sample`, in place and row by row, for schedulers that go `by_point`."""
    timesteps = remaining(scheduler)
    for step, t in enumerate(timesteps):
        for rows, made in predict(x, t):
            later = scheduler.step(made, t, x[..., rows, :]).prev_sample
            if not torch.isfinite(later).all():
                raise NonFiniteError(f"step {step + 1}: the latent left the finite numbers")
            x[..., rows, :] = later
            spill.let_go()
        on_step(step + 1, len(timesteps), x)
    return x


def by_point(scheduler: SchedulerMixin, eta: float) -> bool:
    """Whether a step takes each point of the latent by itself, remembers none and draws nothing."""
    is_plain = isinstance(scheduler, DDIMScheduler) and eta == 0
    return is_plain and not scheduler.config.thresholding


def start(
    scheduler: SchedulerMixin, noise: Tensor, clean: Tensor | None = None, strength: float = 1
) -> Tensor:
    """The walk's first point: pure noise, or `clean` noised to where `strength` enters the walk."""
    if clean is None:
        return noise * scheduler.init_noise_sigma
    enter(scheduler, strength)
    return noised(scheduler, noise, clean)


def noised(scheduler: SchedulerMixin, noise: Tensor, clean: Tensor) -> Tensor:
    """`clean` as noisy as the walk begins."""
    return scheduler.add_noise(clean, noise, remaining(scheduler)[:1])


def enter(scheduler: SchedulerMixin, strength: float) -> None:
    """Leave the leading timesteps out, as diffusers' image to image does.

    Of them int(steps * strength), at least one, remain.
    """
    steps = scheduler.num_inference_steps
    first = min(steps - 1, steps - int(steps * strength)) * scheduler.order
    if hasattr(scheduler, "set_begin_index"):
        # Their own list stays whole: by its length multistep solvers know their last step.
        scheduler.set_begin_index(first)
    else:
        scheduler.timesteps = scheduler.timesteps[first:]


def remaining(scheduler: SchedulerMixin) -> Tensor:
    """The timesteps of the walk, from where `start` entered the schedule."""
    return scheduler.timesteps[getattr(scheduler, "begin_index", None) or 0 :]
