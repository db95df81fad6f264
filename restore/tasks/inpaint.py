"""Fill holes: trust is 1 inside and 0 outside, where no byte changes."""

from dataclasses import replace
from functools import partial

import numpy as np
import torch

from restore.diffusion import watch
from restore.diffusion.canvas import add_changes, encode_picture, render, trust_map
from restore.diffusion.conditioning import Condition
from restore.diffusion.layouts import BASE, KEEP
from restore.diffusion.sampling import Start, run_sampling
from restore.diffusion.stack import Stack
from restore.diffusion.watch import OnStep, ignore
from restore.images.masks import Box, feather, fill_smoothly, find_boxes
from restore.images.picture import Picture, bleed
from restore.images.sketches import placed
from restore.options import InpaintOptions
from restore.tasks.fill import NO_HOLE, fill_without_model, paste, with_hole

FALLBACK = "filled by blending latents: this model was not trained to fill"


@torch.inference_mode()
def inpaint(
    picture: Picture,
    mask: np.ndarray,
    options: InpaintOptions,
    stack: Stack,
    seed: int,
    on_step: OnStep = ignore,
) -> Picture:
    """Fill the hole of a picture; each part at full size, with its surroundings.

    Args:
        picture: The picture.
        mask: uint8 (H, W): repainted from options.threshold on. Sides that options.extend or
            options.aspect add to the picture are repainted too.
        options: Prompt, mask and sampling options.
        stack: The model.
        seed: Of the noise.
        on_step: Called after each sampling step.

    Raises:
        ModelError: If the layout cannot do it.
        NonFiniteError: If sampling produces NaN or infinity.
    """
    if options.engine_for(stack.prompts_describe) != "model":
        return fill_without_model(picture, mask, options, seed)
    if stack.layout != BASE:
        stack.require("inpaint")
    picture, hole = with_hole(picture, mask, options)
    if not hole.any():
        return replace(picture, warnings=(*picture.warnings, NO_HOLE))
    result = filled(picture, hole, options, stack, seed, on_step)
    notes = (*picture.warnings, FALLBACK) if stack.layout == BASE else picture.warnings
    return replace(result, warnings=notes)


def filled(
    picture: Picture,
    hole: np.ndarray,
    options: InpaintOptions,
    stack: Stack,
    seed: int,
    on_step: OnStep,
) -> Picture:
    """Fill a hole with the model, one box after another.

    Args:
        picture: The picture.
        hole: bool (H, W).
        options: As in `inpaint`.
        stack: The model.
        seed: Of the noise.
        on_step: Called after each sampling step.
    """
    share = feather(hole, options.feather)
    pixels, source = picture.pixels.copy(), bleed(picture, hole)
    least = stack.windows.size * stack.factor
    for box in find_boxes(share > 0, options.context, least, stack.factor):
        with watch.framed(partial(placed, pixels, box, share[box])):
            result = fill(source, hole, box, options, stack, seed, on_step)
        pixels[box] = paste(picture.pixels[box], result.pixels, share[box])
    return replace(picture, pixels=pixels)


def fill(
    picture: Picture,
    hole: np.ndarray,
    box: Box,
    options: InpaintOptions,
    stack: Stack,
    seed: int,
    on_step: OnStep,
) -> Picture:
    """Fill the hole of one box, and return the whole box as the model decodes it.

    Args:
        picture: The whole picture.
        hole: (H, W) of the whole picture; above 0 is filled.
        box: Rows and columns that the model sees.
        options: Strength, sampler and the rest.
        stack: The model.
        seed: Seed of the noise.
        on_step: Called after each sampling step.
    """
    crop, hole = replace(picture, pixels=picture.pixels[box], alpha=None), hole[box]
    conditioning = encode_picture(crop, crop.size, stack, hole)
    trust = trust_map(hole, crop.size, stack, KEEP)
    needs_clean = options.strength < 1 or stack.layout == BASE
    clean = encode_picture(crop, crop.size, stack) if needs_clean else None
    conditioning = conditioning[:, :0] if stack.layout == BASE else conditioning
    start = Start(clean, options.strength, options.strength == 1, origin(box, stack))
    condition = Condition(conditioning, trust, hint=stack.hint(picture.size, None, box))
    latent = run_sampling(stack, condition, options, seed, on_step, start, crop.size)
    if stack.layout.hole == "grey":
        return render(latent, crop.size, crop, stack)
    crop = replace(crop, pixels=fill_smoothly(crop.pixels, hole))
    return add_changes(crop, latent, conditioning, stack, crop.pixels.dtype)


def origin(box: Box, stack: Stack) -> tuple[int, int]:
    """Return where a box begins, (row, column) in latents."""
    return box[0].start // stack.factor, box[1].start // stack.factor
