"""Fill holes: trust 1 in them and 0 outside, where not a byte moves."""

from dataclasses import replace

import cv2
import numpy as np
import torch

from restore.diffusion.canvas import added, render, shown, trust_map
from restore.diffusion.conditioning import Condition
from restore.diffusion.layouts import BASE, KEEP
from restore.diffusion.sampling import OnStep, Start, ignore, walk
from restore.diffusion.stack import Stack
from restore.images.masks import Box, boxes, extended, feathered, grown, mended
from restore.images.picture import Picture
from restore.options import InpaintOptions

FALLBACK = "filled by blending latents: this model was not trained to fill"
NO_HOLE = "nothing to fill: the mask is black throughout"
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
    """The picture with its hole made anew; each part of it at full size, with context round it.

    mask  uint8 (H, W): repainted where it reaches options.threshold; what options.extend or aspect
          add to the picture is repainted too.
    Raises ModelError if the layout cannot, NonFiniteError if a walk leaves the finite numbers.
    """
    if options.invert:
        mask = np.where(mask >= options.threshold, 0, 255).astype(np.uint8)
    if any(sides := options.sides(picture.size)):
        picture, mask = extended(picture, mask, sides)
    hole = grown(mask >= options.threshold, options.grow)
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
    """The picture with what is in the hole, bool (H, W), made anew, one box of it after another."""
    share = feathered(hole, options.feather)
    pixels = picture.pixels.copy()
    least = stack.windows.size * stack.factor
    for box in boxes(share > 0, options.context, least, stack.factor):
        crop = replace(picture, pixels=picture.pixels[box], alpha=None)
        made = fill(crop, hole[box], options, stack, seed, on_step, origin(box, stack))
        pixels[box] = pasted(crop.pixels, made.pixels, share[box])
    return replace(picture, pixels=pixels)


def fill(
    crop: Picture,
    hole: np.ndarray,
    options: InpaintOptions,
    stack: Stack,
    seed: int,
    on_step: OnStep,
    place: tuple[int, int],
) -> Picture:
    """The whole crop as the model sees it once the hole is filled."""
    known = shown(crop, crop.size, stack, hole)
    trust = trust_map(hole, crop.size, stack, KEEP)
    needs_clean = options.strength < 1 or stack.layout == BASE
    clean = shown(crop, crop.size, stack) if needs_clean else None
    known = known[:, :0] if stack.layout == BASE else known
    begin = Start(clean, options.strength, options.strength == 1, place)
    latent = walk(stack, Condition(known, trust), options, seed, on_step, begin)
    made = render(latent, crop.size, crop, stack)
    if stack.layout.hole == "grey":
        return made
    return added(replace(crop, pixels=mended(crop.pixels, hole)), made, known, stack)


def origin(box: Box, stack: Stack) -> tuple[int, int]:
    """Where a box begins, in latents."""
    return box[0].start // stack.factor, box[1].start // stack.factor


def pasted(old: np.ndarray, new: np.ndarray, share: np.ndarray) -> np.ndarray:
    """The new pixels where share is 1, the old where it is 0, a blend in the feather."""
    mixed = old + share[..., None] * (new.astype(np.float32) - old)
    return np.where(share[..., None] > 0, np.rint(mixed), old).astype(old.dtype)


def classical(picture: Picture, hole: np.ndarray, options: InpaintOptions) -> Picture:
    """OpenCV's fill (Telea 2004; Bertalmio et al. 2001), for comparison and for tiny holes."""
    eight = (picture.pixels >> (picture.depth - 8)).astype(np.uint8)
    made = cv2.inpaint(eight, hole.astype(np.uint8), 5, CLASSICAL[options.engine])
    made = made.astype(picture.pixels.dtype) * (257 if picture.depth == 16 else 1)
    pixels = pasted(picture.pixels, made, feathered(hole, options.feather))
    return replace(picture, pixels=pixels)
