"""Fill holes: trust 1 in them and 0 outside, where not a byte moves."""

from dataclasses import replace

import cv2
import numpy as np
import torch

from restore.diffusion.canvas import added, render, shown, trust_map
from restore.diffusion.conditioning import Condition
from restore.diffusion.layouts import BASE, KEEP
from restore.diffusion.sampling import Start, walk
from restore.diffusion.stack import Stack
from restore.diffusion.watch import OnStep, ignore
from restore.images.masks import Box, boxes, extended, feathered, grown, labelled, mended
from restore.images.picture import Picture
from restore.options import InpaintOptions

FALLBACK = "filled by blending latents: this model was not trained to fill"
NO_HOLE = "nothing to fill: the mask is black throughout"
THIN = 4.0  # px from the rim to the middle of what counts as a scratch
NEAR = 3  # px that OpenCV looks round a pixel: the best of 1, 3 and 5 on scratches
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
    """The picture with what is in the hole, bool (H, W), made anew, one box of it after another.

    Thin parts have one likely content, which Navier-Stokes continues better than a model of damage
    draws it; so it does, where neither words nor what lies in the hole are to count. A model of
    subjects, which was chosen for what it paints, paints them all.
    """
    if stack.hears == "damage" and not options.words and options.strength == 1:
        fine = thin(hole)
        picture, hole = smoothed(picture, fine, hole), hole & ~fine
    share = feathered(hole, options.feather)
    pixels = picture.pixels.copy()
    least = stack.windows.size * stack.factor
    for box in boxes(share > 0, options.context, least, stack.factor):
        made = fill(picture, hole, box, options, stack, seed, on_step)
        pixels[box] = pasted(picture.pixels[box], made.pixels, share[box])
    return replace(picture, pixels=pixels)


def thin(hole: np.ndarray) -> np.ndarray:
    """The connected parts of a hole, bool (H, W), that are thin throughout."""
    marks = labelled(hole)
    depth = cv2.distanceTransform(hole.astype(np.uint8), cv2.DIST_L2, 5)  # from what is known
    thick = np.unique(marks[depth > THIN])
    return hole & ~np.isin(marks, thick)


def smoothed(picture: Picture, part: np.ndarray, hole: np.ndarray) -> Picture:
    """Part of a hole continued by OpenCV's Navier-Stokes (Bertalmio et al. 2001)."""
    pixels = picture.pixels.copy()
    for box in boxes(grown(part, 2 * NEAR), 0.0, 1, 1):
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
    """A box of the picture, the whole of it as the model sees it once the hole is filled."""
    crop, hole = replace(picture, pixels=picture.pixels[box], alpha=None), hole[box]
    known = shown(crop, crop.size, stack, hole)
    trust = trust_map(hole, crop.size, stack, KEEP)
    needs_clean = options.strength < 1 or stack.layout == BASE
    clean = shown(crop, crop.size, stack) if needs_clean else None
    known = known[:, :0] if stack.layout == BASE else known
    begin = Start(clean, options.strength, options.strength == 1, origin(box, stack))
    condition = Condition(known, trust, hint=stack.hint(picture.size, None, box))
    latent = walk(stack, condition, options, seed, on_step, begin)
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
    made = continued(picture.pixels, hole, CLASSICAL[options.engine])
    pixels = pasted(picture.pixels, made, feathered(hole, options.feather))
    return replace(picture, pixels=pixels)


def continued(pixels: np.ndarray, hole: np.ndarray, how: int) -> np.ndarray:
    """Pixels (H, W, 3), of 8 or 16 bits, with the hole filled from its rim by one of OpenCV's."""
    mask = hole.astype(np.uint8)
    if pixels.dtype == np.uint8:
        return cv2.inpaint(np.ascontiguousarray(pixels), mask, NEAR, how)
    planes = (np.ascontiguousarray(pixels[..., channel]) for channel in range(3))
    return np.stack([cv2.inpaint(plane, mask, NEAR, how) for plane in planes], -1)
