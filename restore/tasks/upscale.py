"""Enlarge a picture, or restore it at its own size: trust 0.5 everywhere."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from restore.diffusion.canvas import added, canvas_rows, nothing, render, shown, trust_map
from restore.diffusion.conditioning import Condition
from restore.diffusion.layouts import REPAINT, RESTORE
from restore.diffusion.noise import canvas_noise, seed_of
from restore.diffusion.sampling import OnStep, Start, ignore, walk
from restore.diffusion.stack import Stack
from restore.errors import ConfigError
from restore.images.masks import mended, resized
from restore.images.picture import Picture, bleed
from restore.options import InpaintOptions, UpscaleOptions, WalkOptions
from restore.tasks.colour import match
from restore.tasks.first_stage import restored
from restore.tasks.inpaint import filled


@torch.inference_mode()
def upscale(
    low: Picture,
    options: UpscaleOptions,
    stack: Stack,
    seed: int,
    on_step: OnStep = ignore,
    damage: np.ndarray | None = None,
) -> Picture:
    """The picture at round(scale * size), with its depth, alpha, profile and EXIF.

    Memory grows with the canvas's latents and with the finished picture; pixels in floating point
    are held for one block only.

    damage  bool (H, W) of the picture: scratches and the like, filled in the same pass.
    Raises ModelError if the layout cannot upscale, NonFiniteError if the walk leaves the finite
    numbers.
    """
    stack.require("upscale")
    if options.scale == 1 and options.colour == "lowpass":
        raise ConfigError("at scale 1 lowpass gives back the input itself: choose wavelet or adain")
    size = options.output_size(low.size)
    if stack.restorer is not None:
        return in_two_stages(low, size, options, stack, seed, on_step, damage)
    if options.fidelity is not None:
        raise ConfigError(f"fidelity is for models with a first stage; {stack.name} has none")
    if options.steps == 0:
        raise ConfigError(f"0 steps are for models with a first stage; {stack.name} has none")
    if stack.control is not None:
        return by_control(low, size, options, stack, seed, on_step, damage)
    if stack.layout.known == "rgb":
        seen = low if damage is None else replace(low, pixels=mended(low.pixels, damage))
        condition = as_pixels(seen, options, stack, seed)
    else:
        known = shown(low, size, stack, damage)
        hole = None if damage is None else resized(damage, size)
        condition = Condition(known, trust_map(hole, size, stack, RESTORE))
    begin = Start() if options.strength == 1 else Start(condition.known, options.strength)
    made = render(walk(stack, condition, options, seed, on_step, begin), size, low, stack)
    if damage is not None and options.colour != "none":  # its colours are not to come back
        low = replace(low, pixels=mended(low.pixels, damage))
    return match(made, low, options.colour)


def by_control(
    low: Picture,
    size: tuple[int, int],
    options: UpscaleOptions,
    stack: Stack,
    seed: int,
    on_step: OnStep,
    damage: np.ndarray | None,
) -> Picture:
    """A picture made anew at `size`, which a ControlNet holds to what `low` shows.

    Below strength 1 it starts from `low` resized, as diffusers' image to image does.
    """
    if damage is not None:
        low = replace(low, pixels=mended(low.pixels, damage))
    hint, trust = stack.hint(size, low), trust_map(None, size, stack, REPAINT)
    condition = Condition(nothing(size, stack), trust, hint=hint)
    begin = Start()
    if options.strength < 1:
        begin = Start(shown(low, size, stack), options.strength)
    made = render(walk(stack, condition, options, seed, on_step, begin), size, low, stack)
    return match(made, low, options.colour)


def in_two_stages(
    low: Picture,
    size: tuple[int, int],
    options: UpscaleOptions,
    stack: Stack,
    seed: int,
    on_step: OnStep,
    damage: np.ndarray | None,
) -> Picture:
    """The first stage's answer, mended by a walk over it and filled where there was damage.

    What the walk changes is added in pixels, so that nothing shows of what the autoencoder loses.
    """
    assert stack.restorer is not None
    if damage is not None:
        low = replace(low, pixels=mended(low.pixels, damage))
    fidelity = stack.fidelity if options.fidelity is None else options.fidelity
    steps = stack.restore_steps if options.steps is None else options.steps
    told = ignore if steps else on_step
    made = restored(low, size, stack.restorer, fidelity, told, options.unfade)
    if options.prompt and not steps:
        note = "the prompt is heard by the walk alone, which this model leaves out; add --steps 1"
        made = replace(made, warnings=(*made.warnings, note))
    if steps:
        known = shown(made, size, stack)
        condition = Condition(known, trust_map(None, size, stack, RESTORE))
        begin = Start() if options.strength == 1 else Start(known, options.strength)
        told = options.model_copy(update={"steps": steps})
        latent = walk(stack, condition, told, seed, on_step, begin)
        made = added(made, render(latent, size, made, stack), known, stack)
    if damage is not None and stack.fills:
        hole = resized(damage, size)
        fields = WalkOptions.model_fields.keys() - {"steps"}
        told = InpaintOptions(**{name: getattr(options, name) for name in fields})
        made = filled(made, hole, told, stack, seed, on_step)
    return match(made, low, options.colour)


def as_pixels(low: Picture, options: UpscaleOptions, stack: Stack, seed: int) -> Condition:
    """What an upscaler that reads pixels is shown: the picture in [-1, 1], and noise on it.

    Stable Diffusion's x4 upscaler wants noise of a level that it is told (Rombach et al. 2022).
    """
    if (options.scale, options.strength) != (stack.factor, 1):
        raise ConfigError(
            f"{stack.name} enlarges by {stack.factor} and starts from noise: set scale "
            f"{stack.factor} and strength 1, not {options.scale:g} and {options.strength:g}"
        )
    height, width = (stack.windows.canvas(n) for n in low.size)
    rgb = canvas_rows(bleed(low), low.size, width, (0, height)).to(stack.device) * 2 - 1
    trust = torch.full_like(rgb[:, :1], RESTORE)
    if stack.low_schedule is None:
        return Condition(rgb, trust)
    level = torch.tensor([options.noise_level], device=stack.device)
    noise: Tensor = canvas_noise(rgb.shape, seed_of(seed, "low")).to(stack.device)
    return Condition(stack.low_schedule.add_noise(rgb, noise, level), trust, level)
