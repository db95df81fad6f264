"""Enlarge a picture, or restore it at its own size: trust 0.5 everywhere."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from restore.diffusion.canvas import added, canvas_rows, nothing, render, shown, trust_map
from restore.diffusion.conditioning import Condition
from restore.diffusion.layouts import REPAINT, RESTORE
from restore.diffusion.noise import canvas_noise, seed_of
from restore.diffusion.sampling import Start, walk
from restore.diffusion.stack import Stack
from restore.diffusion.watch import OnStep, ignore
from restore.errors import ConfigError
from restore.images.masks import mended, resized
from restore.images.picture import Picture, bleed
from restore.options import Img2imgOptions, InpaintOptions, UpscaleOptions, WalkOptions
from restore.tasks.colour import match
from restore.tasks.first_stage import answered, refuse_own_colours
from restore.tasks.img2img import img2img
from restore.tasks.inpaint import filled
from restore.tasks.pixel_upscale import pixel_upscale


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
    if stack.enlarger is not None:
        return over_a_pixel_model(low, options, stack, seed, on_step, damage)
    stack.require("upscale")
    refuse_own_colours(options)
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
    if damage is not None:
        low = replace(low, pixels=mended(low.pixels, damage))
    steps = stack.restore_steps if options.steps is None else options.steps
    if stack.enlarger is None:
        made = answered(low, options, stack, on_step)
    else:
        made = of_pixel_model(low, options, stack, ignore if steps else on_step)
        steps = stack.steps if stack.restorer is None and options.steps is None else steps
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


def over_a_pixel_model(
    low: Picture,
    options: UpscaleOptions,
    stack: Stack,
    seed: int,
    on_step: OnStep,
    damage: np.ndarray | None,
) -> Picture:
    """As upscale, where a pixel model's answer is what the stack goes on from.

    A stack that knows no picture but the one that it starts from, such as Stable Diffusion's, goes
    from the answer, noised to `strength` (Wang et al. 2023, StableSR, without its adapter).
    Raises ConfigError for options that have no meaning then.
    """
    refuse_own_colours(options)
    if options.fidelity is not None:
        raise ConfigError("fidelity is of a model's own first stage; with another one leave it out")
    if "upscale" in stack.layout.tasks and stack.layout.known == "latent":
        return in_two_stages(
            low, options.output_size(low.size), options, stack, seed, on_step, damage
        )
    if "img2img" not in stack.layout.tasks:
        raise ConfigError(
            f"{stack.name} enlarges a picture by itself; a first stage is for models that do not"
        )
    if options.strength == 1:
        raise ConfigError(
            f"{stack.name} forgets the first stage at strength 1; --set upscale.strength=0.3 keeps "
            "most of it"
        )
    if damage is not None:
        low = replace(low, pixels=mended(low.pixels, damage))
    made = of_pixel_model(low, options, stack, ignore)
    told = {name: getattr(options, name) for name in WalkOptions.model_fields}
    told["steps"] = told["steps"] or None
    walked = Img2imgOptions(**told, strength=options.strength)
    return match(img2img(made, walked, stack, seed, on_step), low, options.colour)


def of_pixel_model(low: Picture, options: UpscaleOptions, stack: Stack, on_step: OnStep) -> Picture:
    """The answer of the stack's pixel model, at the scale of the options."""
    assert stack.enlarger is not None
    return pixel_upscale(low, UpscaleOptions(scale=options.scale), stack.enlarger, on_step)


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
