"""From noise to a clean latent: the sampling loop over `predict(x, t)`, and its start."""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, SchedulerMixin
from torch import Tensor

from restore.diffusion import watch
from restore.diffusion.canvas import Size, sketch
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


def keep_nothing(step: int, x: Tensor) -> Tensor:
    """Keep nothing: return x."""
    return x


def sample(
    predict: Predict,
    x: Tensor,
    scheduler: SchedulerMixin,
    on_step: OnStep = ignore,
    rng: torch.Generator | None = None,
    eta: float = 0,
    keep: Keep = keep_nothing,
) -> Tensor:
    """Run the sampling loop of any diffusers scheduler.

    Args:
        predict: (x, t) -> model output. Guidance, tiling and conditions are already applied.
        x: (B, C, h, w), noised to the scheduler's first timestep by `start`.
        scheduler: set_timesteps() has been called; its prediction type is that of the network.
        on_step: Called after each step.
        rng: For the noise of ancestral and stochastic schedulers; on the CPU, so that it is the
            same for every device.
        eta: DDIM's share of fresh noise (Song et al. 2021); other schedulers ignore it.
        keep: May replace a part of the latent after each step.

    Returns:
        The clean latent (B, C, h, w).

    Raises:
        NonFiniteError: If a step produces NaN or infinity; with the number of the step.
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
    """Sample as `sample` does, but in place and by rows, for schedulers that are `by_point`.

    Args:
        predict: Yields the UNet's output by bands of rows.
        x: (1, C, h, w), scaled to the scheduler's first step; it is overwritten.
        scheduler: `set_timesteps` has been called.
        on_step: Called after each step.

    Raises:
        NonFiniteError: If a step produces NaN or infinity.
    """
    timesteps = remaining(scheduler)
    for step, t in watch.laps(timesteps):
        for rows, made in predict(x, t):
            later = scheduler.step(made, t, x[..., rows, :]).prev_sample
            if not torch.isfinite(later).all():
                raise NonFiniteError(f"step {step + 1}: the latent left the finite numbers")
            x[..., rows, :] = later
            memmap.release_pages()
        on_step(step + 1, len(timesteps), x)
    return x


def by_point(scheduler: SchedulerMixin, eta: float) -> bool:
    """Whether a step treats each point of the latent alone, without memory and without noise."""
    is_plain = isinstance(scheduler, DDIMScheduler) and eta == 0
    return is_plain and not scheduler.config.thresholding


def start(
    scheduler: SchedulerMixin, noise: Tensor, clean: Tensor | None = None, strength: float = 1
) -> Tensor:
    """Return the first latent: pure noise, or `clean` noised to the timestep of `strength`.

    Args:
        scheduler: set_timesteps() has been called.
        noise: Standard normal (B, C, h, w).
        clean: The latent to start from, if any.
        strength: How much of the schedule is used; 1 is all of it.
    """
    if clean is None:
        return noise * scheduler.init_noise_sigma
    enter(scheduler, strength)
    return noised(scheduler, noise, clean)


def noised(scheduler: SchedulerMixin, noise: Tensor, clean: Tensor) -> Tensor:
    """Add noise to `clean`, as much as at the first timestep."""
    return scheduler.add_noise(clean, noise, remaining(scheduler)[:1])


def enter(scheduler: SchedulerMixin, strength: float) -> None:
    """Skip the first timesteps, as diffusers' image-to-image pipelines do.

    int(steps * strength) of them remain, at least one.
    """
    steps = scheduler.num_inference_steps
    first = min(steps - 1, steps - int(steps * strength)) * scheduler.order
    if hasattr(scheduler, "set_begin_index"):
        # Keep the list of timesteps whole: multistep solvers find their last step by its length.
        scheduler.set_begin_index(first)
    else:
        scheduler.timesteps = scheduler.timesteps[first:]


def remaining(scheduler: SchedulerMixin) -> Tensor:
    """Return the timesteps that are left after `enter`."""
    return scheduler.timesteps[getattr(scheduler, "begin_index", None) or 0 :]


@dataclass(frozen=True)
class Start:
    """Where sampling starts.

    Attributes:
        clean: (1, C, h, w): the scaled latent of a picture to start from, if any.
        strength: How far `clean` is noised; 1 is the whole schedule.
        is_pure: Start from noise alone; `clean` is then used only where the picture is kept.
        origin: (row, column) of the canvas in its picture, in latents.
    """

    clean: Tensor | None = None
    strength: float = 1
    is_pure: bool = False
    origin: tuple[int, int] = (0, 0)


def run_sampling(
    stack: Stack,
    condition: Condition,
    options: WalkOptions,
    seed: int,
    on_step: OnStep = ignore,
    begin: Start = Start(),
    size: Size | None = None,
) -> Tensor:
    """Sample a canvas.

    A canvas on disk is sampled by rows, if the scheduler allows it. It cannot be looked at then.

    Args:
        stack: The model.
        condition: For the whole canvas.
        options: Prompt, guidance, sampler, steps and so on.
        seed: Seed of the noise.
        on_step: Called after each step.
        begin: Where sampling starts; pure noise by default.
        size: (height, width) in pixels that the canvas is cut to, for those who look at it.

    Returns:
        The scaled latent (1, C, h, w).

    Raises:
        NonFiniteError: If a step produces NaN or infinity.
        ConfigError: If the strength is below 1 but there is only one step.
    """
    wanted = stack.predict(condition, options.prompt, options.clip_skip)
    unwanted = stack.predict(condition, options.negative, options.clip_skip, is_wanted=False)
    guidance = options.guidance if stack.tells_apart(options.prompt, options.negative) else 1
    predict = guided(wanted, unwanted, guidance, options.rescale)
    steps = count_steps(stack, options, begin.strength)
    scheduler = stack.scheduler(options.sampler, steps, options.sampler_options)
    shape = (1, stack.channels, *condition.trust.shape[-2:])
    is_bare = stack.layout.conditioning == "nothing"
    if memmap.is_on_disk(shape, stack.device) and by_point(scheduler, options.eta) and not is_bare:
        predict_rows = by_rows(predict, stack.windows, options.windows)
        x = first_point(stack, condition, scheduler, shape, seed, begin)
        x = sample_rows(predict_rows, x, scheduler, on_step)
        return finished(stack, x, condition.conditioning)
    noise = canvas_noise(shape, seed, begin.origin).to(stack.device)
    clean = None if begin.clean is None else stack.to_residual(begin.clean, condition.conditioning)
    x = start(scheduler, noise, None if begin.is_pure else clean, begin.strength)
    keep = keep_nothing
    if is_bare and clean is not None and (condition.trust == KEEP).any():
        keep = blended(scheduler, clean, noise, condition.trust == KEEP)
    predict_canvas = windowed(predict, stack.windows, options.windows)
    x = sample(
        looked_at(predict_canvas, stack, scheduler, condition.conditioning, size),
        x,
        scheduler,
        on_step,
        generator("cpu", seed, "steps", begin.origin),
        options.eta,
        keep,
    )
    return stack.from_residual(x, condition.conditioning)


def count_steps(stack: Stack, options: WalkOptions, strength: float) -> int:
    """Return the steps that were asked for, or the model's own.

    Raises:
        ConfigError: If the strength is below 1 but there is only one step.
    """
    # At low strength at least one step must remain, but no schedule is finer than its training.
    finest = stack.schedule.config.num_train_timesteps - 1
    needed = min(math.ceil(1 / max(strength, 1e-9)), finest)
    steps = options.steps or max(stack.steps, needed)
    if strength < 1 and steps == 1:
        problem = f"one step always begins at pure noise, whatever the strength ({strength:g})"
        raise ConfigError(f"{problem}; take 2 steps or more, or leave them out")
    return steps


def looked_at(
    predict: Predict,
    stack: Stack,
    scheduler: SchedulerMixin,
    conditioning: Tensor,
    size: Size | None = None,
) -> Predict:
    """Offer a look at where each step leads: the clean latent that its prediction amounts to.

    Args:
        predict: Returned with the same results.
        stack: The model.
        scheduler: Its prediction type is that of `predict`.
        conditioning: Of the condition.
        size: (height, width) in pixels that the canvas is cut to. None: all of it.
    """

    def predict_and_offer(x: Tensor, t: Tensor) -> Tensor:
        output = predict(x, t)

        def make() -> np.ndarray:
            latent = stack.from_residual(clean_estimate(x, output, t, scheduler), conditioning)
            height, width = (length * stack.factor for length in latent.shape[-2:])
            return sketch(latent, size or (height, width), stack)

        watch.offer(make)
        return output

    return predict_and_offer


def clean_estimate(x: Tensor, output: Tensor, t: Tensor, scheduler: SchedulerMixin) -> Tensor:
    """Return the clean latent that a prediction amounts to.

    Args:
        x: The input of the network, which schedulers scale to unit variance.
        output: Its prediction, of the scheduler's prediction type: epsilon or v.
        t: The timestep; fractions are rounded.
        scheduler: Gives the noise schedule.
    """
    kept = scheduler.alphas_cumprod.to(x.device)[torch.as_tensor(t).round().long()]
    signal, noise = kept.sqrt(), (1 - kept).sqrt()
    if scheduler.config.prediction_type == "v_prediction":
        return signal * x - noise * output
    return (x - noise * output) / signal.clamp(min=1e-3)


def first_point(
    stack: Stack,
    condition: Condition,
    scheduler: SchedulerMixin,
    shape: tuple[int, ...],
    seed: int,
    begin: Start,
) -> Tensor:
    """Make the latent that sampling starts from, as `start` does, but by bands of rows.

    Args:
        stack: The model.
        condition: Its conditioning turns a clean latent into a residual.
        scheduler: `set_timesteps` has been called; below strength 1 its first steps are left out.
        shape: (1, C, h, w) of the canvas.
        seed: Seed of the noise, which is a function of the position in the canvas.
        begin: The clean latent and the strength, if sampling does not start from pure noise.
    """
    x = memmap.empty_tensor(shape, stack.device)
    if begin.clean is not None and not begin.is_pure:
        enter(scheduler, begin.strength)
    for rows in memmap.iter_bands(x):
        watch.report_again()
        place = begin.origin[0] + rows.start, begin.origin[1]
        noise = canvas_noise((*shape[:2], rows.stop - rows.start, shape[3]), seed, place)
        if begin.clean is None or begin.is_pure:
            x[..., rows, :] = noise * scheduler.init_noise_sigma
        else:
            clean = stack.to_residual(
                begin.clean[..., rows, :], condition.conditioning[..., rows, :]
            )
            x[..., rows, :] = noised(scheduler, noise, clean)
    return x


def finished(stack: Stack, x: Tensor, conditioning: Tensor) -> Tensor:
    """Convert the result of sampling to a scaled latent, in place."""
    for rows in memmap.iter_bands(x):
        watch.report_again()
        x[..., rows, :] = stack.from_residual(x[..., rows, :], conditioning[..., rows, :])
    return x


def blended(scheduler: SchedulerMixin, clean: Tensor, noise: Tensor, kept: Tensor) -> Keep:
    """For a UNet without the picture as input: put the kept part back after each step, noised.

    It is a fallback (Lugmayr et al. 2022, RePaint, without its resampling), as in diffusers.

    Args:
        scheduler: set_timesteps() has been called.
        clean: (1, C, h, w): the latent of the picture.
        noise: The noise that sampling started from.
        kept: bool (1, 1, h, w): where the picture is kept.
    """

    timesteps = remaining(scheduler)

    def keep(step: int, x: Tensor) -> Tensor:
        later = timesteps[step + 1 : step + 2]
        noisy = scheduler.add_noise(clean, noise, later) if len(later) else clean
        return torch.where(kept, noisy, x)

    return keep
