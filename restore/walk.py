"""What every task shares: from a condition to a clean latent, by the options that all have."""

import math
from dataclasses import dataclass

import torch
from diffusers import SchedulerMixin
from torch import Tensor

from restore import spill
from restore.errors import ConfigError
from restore.layouts import KEEP
from restore.noise import canvas_noise, generator
from restore.options import WalkOptions
from restore.predict import Condition, guided
from restore.sample import (
    Keep,
    OnStep,
    as_it_is,
    by_point,
    enter,
    ignore,
    noised,
    remaining,
    sample,
    sample_rows,
    start,
)
from restore.stack import Stack
from restore.windows import by_rows, windowed


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
    wanted, unwanted = (
        stack.predict(condition, prompt, options.clip_skip)
        for prompt in (options.prompt, options.negative)
    )
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
    if spill.takes(shape, stack.device) and by_point(scheduler, options.eta) and not is_bare:
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
    x = spill.canvas(shape, stack.device)
    if begin.clean is not None and not begin.is_pure:
        enter(scheduler, begin.strength)
    for rows in spill.bands(x):
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
    for rows in spill.bands(x):
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
