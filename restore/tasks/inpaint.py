"""Fill holes: trust is 1 inside and 0 outside, where no byte changes."""

from dataclasses import replace
from functools import partial

import cv2
import numpy as np
import torch

from restore.diffusion import watch
from restore.diffusion.canvas import add_changes, encode_picture, render, trust_map
from restore.diffusion.conditioning import Condition
from restore.diffusion.layouts import BASE, KEEP
from restore.diffusion.sampling import Start, run_sampling
from restore.diffusion.stack import Stack
from restore.diffusion.watch import OnStep, ignore
from restore.images.masks import (
    Box,
    dilate,
    extend,
    feather,
    fill_smoothly,
    find_boxes,
    label_parts,
)
from restore.images.picture import Picture
from restore.images.sketches import placed
from restore.options import InpaintOptions

FALLBACK = "filled by blending latents: this model was not trained to fill"
NO_HOLE = "nothing to fill: the mask is black throughout"
THIN = 4.0  # px: scratches are at most this deep, from rim to middle
NEAR = 3  # radius in px of OpenCV's inpainting: the best of 1, 3 and 5 on scratches
CLASSICAL = {"telea": cv2.INPAINT_TELEA, "navier_stokes": cv2.INPAINT_NS}


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
    if options.invert:
        mask = np.where(mask >= options.threshold, 0, 255).astype(np.uint8)
    if any(sides := options.sides(picture.size)):
        picture, mask = extend(picture, mask, sides)
    hole = dilate(mask >= options.threshold, options.grow)
    if options.engine != "model":
        return classical(picture, hole, options)
    if stack.layout != BASE:
        stack.require("inpaint")
    if not hole.any():
        return replace(picture, warnings=(*picture.warnings, NO_HOLE))
    made = filled(picture, hole, options, stack, seed, on_step)
    notes = (*picture.warnings, FALLBACK) if stack.layout == BASE else picture.warnings
    return replace(made, warnings=notes)


def filled(
    picture: Picture,
    hole: np.ndarray,
    options: InpaintOptions,
    stack: Stack,
    seed: int,
    on_step: OnStep,
) -> Picture:
    """Fill a hole, one box after another.

    Thin parts have only one likely content, which Navier-Stokes continues better than a model of
    damage paints it. So it fills them, if the options have no words and the strength is 1. A model
    of subjects, which was chosen for what it paints, fills all parts.

    Args:
        picture: The picture.
        hole: bool (H, W).
        options: As in `inpaint`.
        stack: The model.
        seed: Of the noise.
        on_step: Called after each sampling step.
    """
    if stack.prompts_describe == "damage" and not options.words and options.strength == 1:
        fine = keep_thin(hole)
        picture, hole = smoothed(picture, fine, hole), hole & ~fine
    share = feather(hole, options.feather)
    pixels = picture.pixels.copy()
    least = stack.windows.size * stack.factor
    for box in find_boxes(share > 0, options.context, least, stack.factor):
        with watch.framed(partial(placed, pixels, box, share[box])):
            made = fill(picture, hole, box, options, stack, seed, on_step)
        pixels[box] = pasted(picture.pixels[box], made.pixels, share[box])
    return replace(picture, pixels=pixels)


def keep_thin(hole: np.ndarray) -> np.ndarray:
    """Return the connected parts of a hole, bool (H, W), that are thin everywhere."""
    marks = label_parts(hole)
    depth = cv2.distanceTransform(hole.astype(np.uint8), cv2.DIST_L2, 5)  # from the rim
    thick = np.unique(marks[depth > THIN])
    return hole & ~np.isin(marks, thick)


def smoothed(picture: Picture, part: np.ndarray, hole: np.ndarray) -> Picture:
    """Fill a part of a hole by OpenCV's Navier-Stokes (Bertalmio et al. 2001).

    Args:
        picture: The picture.
        part: bool (H, W): what is filled.
        hole: bool (H, W): what is not used as a source.
    """
    pixels = picture.pixels.copy()
    for box in find_boxes(dilate(part, 2 * NEAR), 0.0, 1, 1):
        made = continued(picture.pixels[box], hole[box], cv2.INPAINT_NS)
        pixels[box][part[box]] = made[part[box]]
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
    begin = Start(clean, options.strength, options.strength == 1, origin(box, stack))
    condition = Condition(conditioning, trust, hint=stack.hint(picture.size, None, box))
    latent = run_sampling(stack, condition, options, seed, on_step, begin, crop.size)
    if stack.layout.hole == "grey":
        return render(latent, crop.size, crop, stack)
    crop = replace(crop, pixels=fill_smoothly(crop.pixels, hole))
    return add_changes(crop, latent, conditioning, stack, crop.pixels.dtype)


def origin(box: Box, stack: Stack) -> tuple[int, int]:
    """Return where a box begins, (row, column) in latents."""
    return box[0].start // stack.factor, box[1].start // stack.factor


def pasted(old: np.ndarray, new: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Blend pixels: new where `share` is 1, old where it is 0, a mixture between."""
    mixed = old + share[..., None] * (new.astype(np.float32) - old)
    return np.where(share[..., None] > 0, np.rint(mixed), old).astype(old.dtype)


def classical(picture: Picture, hole: np.ndarray, options: InpaintOptions) -> Picture:
    """Fill by OpenCV (Telea 2004; Bertalmio et al. 2001), for comparison and for tiny holes."""
    made = continued(picture.pixels, hole, CLASSICAL[options.engine])
    pixels = pasted(picture.pixels, made, feather(hole, options.feather))
    return replace(picture, pixels=pixels)


def continued(pixels: np.ndarray, hole: np.ndarray, how: int) -> np.ndarray:
    """Fill a hole of pixels (H, W, 3), in 8 or 16 bits, by an OpenCV method."""
    mask = hole.astype(np.uint8)
    if pixels.dtype == np.uint8:
        return cv2.inpaint(np.ascontiguousarray(pixels), mask, NEAR, how)
    planes = (np.ascontiguousarray(pixels[..., channel]) for channel in range(3))
    return np.stack([cv2.inpaint(plane, mask, NEAR, how) for plane in planes], -1)
