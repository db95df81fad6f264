"""Fill holes without a network: by patches of the picture, or by OpenCV. No torch here."""

from dataclasses import replace

import cv2
import numpy as np
from scipy import ndimage

from restore.images.masks import (
    dilate,
    extend,
    feather,
    fill_smoothly,
    find_boxes,
    label_parts,
)
from restore.images.patchmatch import patchmatch
from restore.images.picture import Picture, bleed
from restore.options import InpaintOptions
from restore.tasks import unheard

NO_HOLE = "nothing to fill: the mask is black throughout"
FAINT = "the mask is taken for black: its brightest value is {} of 255, and white begins at {}"
NARROW = "feather has no effect: only --engine model changes pixels beside the hole"
THIN = 4.0  # px: scratches are at most this deep, from rim to middle
NEAR = 3  # radius in px of OpenCV's inpainting: the best of 1, 3 and 5 on scratches
AROUND = 1.0  # of a hole's size: where patches for it are looked for, on each side
RIM = 6  # px: the width of a ring round a hole; the next one foretells it in a gradient
FLAT = 4.0  # levels of 255 that it may be off, in means of 3 x 3 pixels
LEAST = 512  # px: the shortest side of that box
OPENCV = {"telea": cv2.INPAINT_TELEA, "navier_stokes": cv2.INPAINT_NS}


def with_hole(
    picture: Picture, mask: np.ndarray, options: InpaintOptions
) -> tuple[Picture, np.ndarray]:
    """Return the picture, extended as the options say, and its hole, bool (H, W)."""
    if 0 < (most := int(mask.max())) < options.threshold:  # such as a mask of zeros and ones
        note = FAINT.format(most, options.threshold)
        picture = replace(picture, warnings=(*picture.warnings, note))
    if options.invert:
        mask = np.where(mask >= options.threshold, 0, 255).astype(np.uint8)
    if any(sides := options.sides(picture.size)):
        picture, mask = extend(picture, mask, sides)
    return picture, dilate(mask >= options.threshold, options.grow)


def fill_without_model(
    picture: Picture, mask: np.ndarray, options: InpaintOptions, seed: int
) -> Picture:
    """Fill the hole by the algorithm that the options name; `auto` is PatchMatch.

    Args:
        picture: The picture.
        mask: uint8 (H, W): as in restore.tasks.inpaint.
        options: Engine, mask and feather.
        seed: Of the search for patches.
    """
    picture, hole = with_hole(picture, mask, options)
    if not hole.any():
        return replace(picture, warnings=(*picture.warnings, NO_HOLE))
    if options.feather > InpaintOptions.model_fields["feather"].get_default():
        picture = replace(picture, warnings=(*picture.warnings, NARROW))
    if options.engine in OPENCV:
        pixels = continued(bleed(picture, hole).pixels, hole, OPENCV[options.engine])
        pixels = paste(picture.pixels, pixels, feather(hole, options.feather))
        made = replace(picture, pixels=pixels)
    else:
        made = patched(picture, hole, options.feather, seed)
    return unheard.warn_of_filling(made, options)


def patched(picture: Picture, hole: np.ndarray, width: int, seed: int) -> Picture:
    """Fill thin parts by Navier-Stokes, which continues lines, and the others by PatchMatch.

    A part within a gradient, as of a clear sky, is continued smoothly: it has nothing to copy, and
    patches that fit one side of a hole meet those of the other side in a smudge.

    Args:
        picture: The picture.
        hole: bool (H, W).
        width: Pixels round the hole over which old and new are blended.
        seed: Of the search for patches.
    """
    easy = keep_thin(hole)
    source = smoothed(bleed(picture, hole), easy, hole)
    easy = easy | fill_plain(source.pixels, hole & ~easy)
    share = feather(hole & ~easy, width)
    pixels = picture.pixels.copy()
    pixels[easy] = source.pixels[easy]
    for box in find_boxes(share > 0, AROUND, LEAST, 1):
        result = patchmatch(source.pixels[box], hole[box] & ~easy[box], seed)
        pixels[box] = paste(pixels[box], result, share[box])
    return replace(picture, pixels=pixels)


def keep_thin(hole: np.ndarray) -> np.ndarray:
    """Return the connected parts of a hole, bool (H, W), that are thin everywhere."""
    marks = label_parts(hole)
    depth = cv2.distanceTransform(hole.astype(np.uint8), cv2.DIST_L2, 5)  # from the rim
    thick = np.unique(marks[depth > THIN])
    return hole & ~np.isin(marks, thick)


def fill_plain(pixels: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Continue smoothly into the connected parts of a hole that lie within a gradient.

    They are those where a smooth fill from a ring foretells the ring inside of it, round the part.

    Args:
        pixels: (H, W, 3), uint8 or uint16; the parts are filled in place.
        hole: bool (H, W).

    Returns:
        The parts that are filled, bool (H, W).
    """
    marks, done = label_parts(hole), np.zeros_like(hole)
    limit = FLAT / 255 * np.iinfo(pixels.dtype).max
    for nth, place in enumerate(ndimage.find_objects(marks), 1):
        box = tuple(slice(max(0, s.start - 3 * RIM), s.stop + 3 * RIM) for s in place)
        part, crop = marks[box] == nth, pixels[box]
        away = np.where(hole[box], np.inf, np.asarray(ndimage.distance_transform_edt(~part)))
        near, far = away <= RIM, (away > RIM) & (away <= 2 * RIM)
        if not (near.any() and far.any()):
            continue
        gap = (crop.astype(np.float32) - fill_smoothly(crop, ~far)) * near[..., None]
        share = np.maximum(cv2.blur(near.astype(np.float32), (3, 3)), 1e-6)
        if np.abs(cv2.blur(gap, (3, 3)) / share[..., None])[near].max() <= limit:
            crop[part] = fill_smoothly(crop, ~near)[part]  # what lies farther would seep in
            done[box] |= part
    return done


def smoothed(picture: Picture, part: np.ndarray, hole: np.ndarray) -> Picture:
    """Fill a part of a hole by OpenCV's Navier-Stokes (Bertalmio et al. 2001).

    Args:
        picture: The picture.
        part: bool (H, W): what is filled.
        hole: bool (H, W): what is not used as a source.
    """
    pixels = picture.pixels.copy()
    for box in find_boxes(dilate(part, 2 * NEAR), 0.0, 1, 1):
        result = continued(picture.pixels[box], hole[box], cv2.INPAINT_NS)
        pixels[box][part[box]] = result[part[box]]
    return replace(picture, pixels=pixels)


def paste(old: np.ndarray, new: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Blend pixels: new where `share` is 1, old where it is 0, a mixture between."""
    mixed = old + share[..., None] * (new.astype(np.float32) - old)
    return np.where(share[..., None] > 0, np.rint(mixed), old).astype(old.dtype)


def continued(pixels: np.ndarray, hole: np.ndarray, how: int) -> np.ndarray:
    """Fill a hole of pixels (H, W, 3), in 8 or 16 bits, by an OpenCV method."""
    mask = hole.astype(np.uint8)
    if pixels.dtype == np.uint8:
        return cv2.inpaint(np.ascontiguousarray(pixels), mask, NEAR, how)
    planes = (np.ascontiguousarray(pixels[..., channel]) for channel in range(3))
    return np.stack([cv2.inpaint(plane, mask, NEAR, how) for plane in planes], -1)
