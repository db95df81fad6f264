"""From noise to a clean latent: the one loop, whose joint is `predict(x, t)`, and its start."""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDIMScheduler, SchedulerMixin
from torch import Tensor

from restore.diffusion import watch
from restore.diffusion.conditioning import Condition, guided
from restore.diffusion.layouts import KEEP
from restore.diffusion.noise import canvas_noise, generator
from restore.diffusion.stack import Stack
from restore.diffusion.tiling import Predict, PredictRows, by_rows, windowed
from restore.diffusion.watch import OnStep, ignore
from restore.errors import ConfigError, NonFiniteError
from restore.images import memmap
from restore.options import WalkOptions

Keep = Callable[[int, Tensor], Tensor]


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
    for step, t in watch.laps(timesteps):
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
    for step, t in watch.laps(timesteps):
        for rows, made in predict(x, t):
            later = scheduler.step(made, t, x[..., rows, :]).prev_sample
            if not torch.isfinite(later).all():
                raise NonFiniteError(f"step {step + 1}: the latent left the finite numbers")
            x[..., rows, :] = later
            memmap.let_go()
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


@dataclass(frozen=True)
class Start:
    """Where a walk begins.

    clean     (1, C, h, w) scaled latent of a picture that is there already; None: there is none.
    strength  how far `clean` is noised; 1 is as far as the schedule goes.
    is_pure   begin from noise alone all the same; `clean` then only fills what is kept.
    origin    (row, column) in latents where the canvas lies in its picture.
    """

    clean: Tensor | None = None
    strength: float = 1
    is_pure: bool = False
    origin: tuple[int, int] = (0, 0)


def walk(
    stack: Stack,
    condition: Condition,
    options: WalkOptions,
    seed: int,
    on_step: OnStep = ignore,
    begin: Start = Start(),
) -> Tensor:
    """The scaled latent (1, C, h, w) that a walk over the condition's canvas ends at.

    A canvas on disk is gone over by rows, where the scheduler allows it.
    Raises NonFiniteError if the walk leaves the finite numbers.
    """
    wanted = stack.predict(condition, options.prompt, options.clip_skip)
    unwanted = stack.predict(condition, options.negative, options.clip_skip, is_wanted=False)
    same = options.prompt == options.negative
    predict = guided(wanted, unwanted, 1 if same else options.guidance, options.rescale)
    # a walk that is entered late has a step left to take
    steps = options.steps or max(stack.steps, math.ceil(1 / begin.strength))
    if begin.strength < 1 and steps == 1:
        told = f"one step always begins at pure noise, whatever the strength ({begin.strength:g})"
        raise ConfigError(f"{told}; take 2 steps or more, or leave them out")
    scheduler = stack.scheduler(options.sampler, steps, options.sampler_options)
    shape = (1, stack.channels, *condition.trust.shape[-2:])
    is_bare = stack.layout.known == "nothing"
    if memmap.takes(shape, stack.device) and by_point(scheduler, options.eta) and not is_bare:
        predict_rows = by_rows(predict, stack.windows, options.windows)
        x = first_point(stack, condition, scheduler, shape, seed, begin)
        return finished(stack, sample_rows(predict_rows, x, scheduler, on_step), condition.known)
    noise = canvas_noise(shape, seed, begin.origin).to(stack.device)
    clean = None if begin.clean is None else stack.to_walk(begin.clean, condition.known)
    x = start(scheduler, noise, None if begin.is_pure else clean, begin.strength)
    keep = as_it_is
    if is_bare and clean is not None and (condition.trust == KEEP).any():
        keep = blended(scheduler, clean, noise, condition.trust == KEEP)
    x = sample(
        windowed(predict, stack.windows, options.windows),
        x,
        scheduler,
        on_step,
        generator("cpu", seed, "steps", begin.origin),
        options.eta,
        keep,
    )
    return stack.from_walk(x, condition.known)


def first_point(
    stack: Stack,
    condition: Condition,
    scheduler: SchedulerMixin,
    shape: tuple[int, ...],
    seed: int,
    begin: Start,
) -> Tensor:
    """Where `start` lets a walk begin, made by bands."""
    x = memmap.canvas(shape, stack.device)
    if begin.clean is not None and not begin.is_pure:
        enter(scheduler, begin.strength)
    for rows in memmap.bands(x):
        watch.breathe()
        place = begin.origin[0] + rows.start, begin.origin[1]
        noise = canvas_noise((*shape[:2], rows.stop - rows.start, shape[3]), seed, place)
        if begin.clean is None or begin.is_pure:
            x[..., rows, :] = noise * scheduler.init_noise_sigma
        else:
            clean = stack.to_walk(begin.clean[..., rows, :], condition.known[..., rows, :])
            x[..., rows, :] = noised(scheduler, noise, clean)
    return x


def finished(stack: Stack, x: Tensor, known: Tensor) -> Tensor:
    """What the walk ended at as a scaled latent, in place."""
    for rows in memmap.bands(x):
        watch.breathe()
        x[..., rows, :] = stack.from_walk(x[..., rows, :], known[..., rows, :])
    return x


def blended(scheduler: SchedulerMixin, clean: Tensor, noise: Tensor, kept: Tensor) -> Keep:
    """For a UNet that is told of no picture: what is kept is put back, as noisy as the walk is.

    A fallback (Lugmayr et al. 2022, RePaint, without its resampling; diffusers does the same).
    """

    timesteps = remaining(scheduler)

    def keep(step: int, x: Tensor) -> Tensor:
        later = timesteps[step + 1 : step + 2]
        noisy = scheduler.add_noise(clean, noise, later) if len(later) else clean
        return torch.where(kept, noisy, x)

    return keep
