"""Enlarge a picture, or restore it at its own size: trust 0.5 everywhere."""

import numpy as np
import torch
from torch import Tensor

from restore.diffusion.canvas import (
    add_changes,
    canvas_rows,
    encode_nothing,
    encode_picture,
    render,
    trust_map,
)
from restore.diffusion.conditioning import Condition
from restore.diffusion.layouts import REPAINT, RESTORE
from restore.diffusion.noise import canvas_noise, seed_of
from restore.diffusion.sampling import Start, run_sampling
from restore.diffusion.stack import Stack
from restore.diffusion.watch import OnStep, ignore
from restore.errors import ConfigError
from restore.images.masks import resize, without_damage
from restore.images.picture import Picture, bleed, deepen
from restore.options import Img2imgOptions, InpaintOptions, UpscaleOptions, WalkOptions
from restore.tasks import unheard
from restore.tasks.colour import match
from restore.tasks.fill import patched
from restore.tasks.first_stage import refuse_own_colours, run_first_stage
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
    """Enlarge a picture, or restore it at scale 1.

    Memory grows with the latents of the canvas and with the finished picture. Pixels in floats are
    held for one block only.

    Args:
        low: The picture.
        options: Scale, prompt, strength, colour and so on.
        stack: The model.
        seed: Of the noise.
        on_step: Called after each sampling step; without sampling, after each block.
        damage: bool (H, W): scratches and the like, which are filled in the same pass.

    Returns:
        The picture at round(scale * size), with its depth, alpha, profile and EXIF.

    Raises:
        ModelError: If the layout cannot upscale.
        ConfigError: If an option does not suit the model.
        NonFiniteError: If sampling produces NaN or infinity.
    """
    if stack.enlarger is not None:
        return over_a_pixel_model(low, options, stack, seed, on_step, damage)
    stack.require("upscale")
    refuse_own_colours(options)
    size = options.output_size(low.size)
    unheard.refuse(
        options,
        stack.name,
        has_first_stage=stack.restorer is not None,
        has_noise_levels=stack.low_schedule is not None,
    )
    if stack.restorer is not None:
        return in_two_stages(low, size, options, stack, seed, on_step, damage)
    undamaged = without_damage(low, damage)
    if stack.control is not None:
        condition, clean = steer_condition(undamaged, size, options, stack)
    elif stack.layout.conditioning == "rgb":
        condition = as_pixels(undamaged, options, stack, seed)
        clean = condition.conditioning
    else:
        clean = encode_picture(low, size, stack, damage)
        hole = None if damage is None else resize(damage, size)
        condition = Condition(clean, trust_map(hole, size, stack, RESTORE))
    start = Start() if options.strength == 1 else Start(clean, options.strength)
    latent = run_sampling(stack, condition, options, seed, on_step, start, size)
    result = render(latent, size, low, stack)
    return match(result, undamaged, options.colour)  # the damage's colours must not come back


def steer_condition(
    low: Picture, size: tuple[int, int], options: UpscaleOptions, stack: Stack
) -> tuple[Condition, Tensor | None]:
    """Make the condition of a model whose ControlNet reads the picture, and where sampling starts.

    Below strength 1 that is the resized picture, as in diffusers' img2img.
    """
    hint, trust = stack.hint(size, low), trust_map(None, size, stack, REPAINT)
    condition = Condition(encode_nothing(size, stack), trust, hint=hint)
    return condition, encode_picture(low, size, stack) if options.strength < 1 else None


def in_two_stages(
    low: Picture,
    size: tuple[int, int],
    options: UpscaleOptions,
    stack: Stack,
    seed: int,
    on_step: OnStep,
    damage: np.ndarray | None,
) -> Picture:
    """Run the first stage, then sampling over its result, then fill the damage.

    What sampling changes is added in pixels, so the losses of the autoencoder do not show.

    Args:
        low: The input.
        size: (height, width) of the result.
        options: None for `steps` and `fidelity` stands for the model's own.
        stack: A stack with a first stage, its own or a pixel upscaler.
        seed: Seed of the noise.
        on_step: Called after each sampling step; without any, after each block of the first stage.
        damage: bool (H, W) of the input: what is filled; or None.
    """
    low = without_damage(low, damage)
    steps = stack.restore_steps if options.steps is None else options.steps
    if stack.enlarger is not None and stack.restorer is None and options.steps is None:
        steps = stack.steps
    source = deepen(low) if steps else low
    if stack.enlarger is None:
        result = run_first_stage(source, options, stack, on_step, damage)
    else:
        on_window = ignore if steps else on_step
        result = of_pixel_model(source, options, stack, on_window, damage)
    if steps:
        conditioning = encode_picture(result, size, stack)
        condition = Condition(conditioning, trust_map(None, size, stack, RESTORE))
        start = Start() if options.strength == 1 else Start(conditioning, options.strength)
        changed = options.model_copy(update={"steps": steps})
        latent = run_sampling(stack, condition, changed, seed, on_step, start, size)
        result = add_changes(result, latent, conditioning, stack, low.pixels.dtype)
    is_painted = False
    if damage is not None and stack.fills:
        hole = resize(damage, size)
        fields = WalkOptions.model_fields.keys() - {"steps"}
        changed = InpaintOptions(**{name: getattr(options, name) for name in fields})
        is_painted = changed.engine_for(stack.prompts_describe) == "model"
        if is_painted:
            result = filled(result, hole, changed, stack, seed, on_step)
        else:
            result = patched(result, hole, changed.feather, seed)
    if not steps:
        result = unheard.warn(result, options, is_painted)
    return match(result, low, options.colour)


def over_a_pixel_model(
    low: Picture,
    options: UpscaleOptions,
    stack: Stack,
    seed: int,
    on_step: OnStep,
    damage: np.ndarray | None,
) -> Picture:
    """Upscale by a stack whose first stage is a pixel upscaler.

    Models that only take a start picture, such as Stable Diffusion, sample from its result, noised
    to `strength` (Wang et al. 2023, StableSR, without its adapter).

    Args:
        low: The input.
        options: Scale, steps, strength and the rest.
        stack: A stack with an `enlarger`.
        seed: Seed of the noise.
        on_step: Called after each sampling step.
        damage: bool (H, W) of the input: what is filled; or None.

    Raises:
        ConfigError: If an option does not suit such a model.
    """
    refuse_own_colours(options)
    assert stack.enlarger is not None
    unheard.refuse(options, stack.name, has_first_stage=True, has_noise_levels=False)
    if "unfade" in options.model_fields_set:
        raise ConfigError(
            f"unfade: is of nano's own first stage; {stack.enlarger.name} leaves blacks as they are"
        )
    if "upscale" in stack.layout.tasks and stack.layout.conditioning == "latent":
        return in_two_stages(
            low, options.output_size(low.size), options, stack, seed, on_step, damage
        )
    if "img2img" not in stack.layout.tasks:
        raise ConfigError(
            f"{stack.name} enlarges a picture by itself; a first stage is for models that do not"
        )
    if options.strength == 1 and options.steps != 0:
        raise ConfigError(
            f"{stack.name} forgets the first stage at strength 1; --set upscale.strength=0.3 keeps "
            "most of it"
        )
    low = without_damage(low, damage)
    if options.steps == 0:
        result = unheard.warn(of_pixel_model(low, options, stack, on_step, damage), options)
        return match(result, low, options.colour)
    result = of_pixel_model(low, options, stack, ignore, damage)
    fields = {name: getattr(options, name) for name in WalkOptions.model_fields}
    sampling = Img2imgOptions(**fields, strength=options.strength)
    return match(img2img(result, sampling, stack, seed, on_step), low, options.colour)


def of_pixel_model(
    low: Picture,
    options: UpscaleOptions,
    stack: Stack,
    on_step: OnStep,
    damage: np.ndarray | None,
) -> Picture:
    """Run the stack's pixel upscaler at the scale and the fidelity of the options.

    Args:
        low: The input, its damage filled.
        options: Scale and fidelity.
        stack: A stack with an `enlarger`.
        on_step: Called after each window.
        damage: bool (H, W): what was filled; or None.
    """
    assert stack.enlarger is not None
    pixel_options = UpscaleOptions(scale=options.scale, fidelity=options.fidelity)
    return pixel_upscale(low, pixel_options, stack.enlarger, on_step, damage)


def as_pixels(low: Picture, options: UpscaleOptions, stack: Stack, seed: int) -> Condition:
    """Make the condition of an upscaler that reads pixels: the picture in [-1, 1].

    Stable Diffusion's x4 upscaler expects noise on it, and its level as a class label (Rombach et
    al. 2022).

    Raises:
        ConfigError: If scale or strength is not what the model is made for.
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
