"""Masks of the pixels to repaint: dilate, feather, resize, fill, and find boxes round them."""

from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np
from scipy import ndimage

from restore.images.picture import Picture, bleed

Box = tuple[slice, slice]  # rows and columns


def flatten(mask: Picture) -> np.ndarray:
    """A mask's picture as uint8 (H, W): its brightest channel, black where it is transparent."""
    grey = mask.pixels.max(2).astype(np.float32) / np.iinfo(mask.pixels.dtype).max
    if mask.alpha is not None:
        grey = grey * (mask.alpha.astype(np.float32) / np.iinfo(mask.alpha.dtype).max)
    return np.rint(grey * 255).astype(np.uint8)


def dilate(hole: np.ndarray, reach: int) -> np.ndarray:
    """Add every pixel within `reach` pixels of the hole; bool (H, W)."""
    if reach == 0 or not hole.any():  # without any, distances would be to nowhere
        return hole
    return np.asarray(ndimage.distance_transform_edt(~hole)) <= reach


def feather(hole: np.ndarray, width: int) -> np.ndarray:
    """Soften the border of a hole.

    Args:
        hole: bool (H, W).
        width: Pixels round the hole over which the value falls to 0.

    Returns:
        float32 (H, W): 1 in the hole; exactly 0 beyond `width`, so that no byte changes there.
    """
    if width == 0:
        return hole.astype(np.float32)
    away = cv2.distanceTransform((~hole).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.clip(1 - away / (width + 1), 0, 1)


def resize(hole: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a bool (H, W) mask to (height, width) by the nearest pixel."""
    if hole.shape == size:
        return hole
    big = cv2.resize(hole.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return big > 0


def fill_smoothly(pixels: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Fill a hole smoothly from the pixels round it.

    Push-pull over a pyramid (Gortler et al. 1996, The Lumigraph): each level fills what the finer
    one lacks. A picture that is all hole becomes mid grey.

    Args:
        pixels: (H, W, 3), uint8 or uint16.
        hole: bool (H, W), the pixels to replace.
    """
    if not hole.any():
        return pixels
    if hole.all():
        return np.full_like(pixels, np.iinfo(pixels.dtype).max // 2 + 1)
    known = (~hole).astype(np.float32)
    made = _pulled(pixels.astype(np.float32) * known[..., None], known)
    return np.where(hole[..., None], np.rint(made), pixels).astype(pixels.dtype)


def without_damage(low: Picture, damage: np.ndarray | None) -> Picture:
    """Return the picture with its damage filled smoothly from the pixels round it."""
    if damage is None:
        return low
    return replace(low, pixels=fill_smoothly(bleed(low, damage).pixels, damage))


def extend(
    picture: Picture, mask: np.ndarray, sides: tuple[int, int, int, int]
) -> tuple[Picture, np.ndarray]:
    """Put a picture on a larger canvas, for outpainting.

    Args:
        picture: The picture.
        mask: uint8 (H, W), 255 where it is repainted.
        sides: Pixels to add at the left, top, right and bottom.

    Returns:
        The larger picture, mid grey where it is new, and its mask, 255 there.
    """
    left, top, right, bottom = sides
    around = ((top, bottom), (left, right))
    grey = np.iinfo(picture.pixels.dtype).max // 2 + 1
    pixels = np.pad(picture.pixels, (*around, (0, 0)), constant_values=grey)
    alpha = picture.alpha
    if alpha is not None:
        alpha = np.pad(alpha, around, constant_values=np.iinfo(alpha.dtype).max)
    moved = replace(picture, pixels=pixels, alpha=alpha, described=None)
    return moved, np.pad(mask, around, constant_values=255)


def _pulled(pixels: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Fill premultiplied pixels, of which `weight` is the share in [0, 1] that is given."""
    if weight.min() >= 1:
        return pixels
    half = (len(weight[0]) + 1) // 2, (len(weight) + 1) // 2
    share = cv2.resize(weight, half, interpolation=cv2.INTER_AREA)
    sums = cv2.resize(pixels, half, interpolation=cv2.INTER_AREA)
    trusted = np.minimum(2 * share, 1)
    coarse = _pulled(sums * (trusted / np.maximum(share, 1e-6))[..., None], trusted)
    coarse = cv2.resize(coarse, weight.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return pixels + (1 - weight)[..., None] * coarse


def label_parts(hole: np.ndarray) -> np.ndarray:
    """Number the connected parts of a hole: int32 (H, W), 0 outside. Corners connect."""
    marks = np.empty(hole.shape, np.int32)
    ndimage.label(hole, np.ones((3, 3)), marks)
    return marks


def find_boxes(hole: np.ndarray, context: float, least: int, step: int) -> Iterator[Box]:
    """Find boxes round the connected parts of a hole; boxes that overlap are merged.

    Args:
        hole: bool (H, W).
        context: Margin on each side, as a share of the part's longer side.
        least: Shortest side of a box in pixels, unless the picture is smaller.
        step: Boxes begin at multiples of this.
    """
    parts = ndimage.find_objects(label_parts(hole))
    waiting = np.array(
        [_ends(_widened(box, hole.shape, context, least, step)) for box in parts], np.int64
    ).reshape(-1, 4)
    finished = waiting[:0]
    while len(waiting):  # dusty scans have tens of thousands: compared in arrays, not in pairs
        box, waiting = waiting[-1], waiting[:-1]
        meeting, touching = _meets(waiting, box), _meets(finished, box)
        if not (meeting.any() or touching.any()):
            finished = np.vstack([finished, box])
            continue
        group = np.vstack([waiting[meeting], finished[touching], box])
        low, high = group.min(0), group.max(0)
        joined = [[low[0], high[1], low[2], high[3]]]
        waiting, finished = np.vstack([waiting[~meeting], joined]), finished[~touching]
    for top, bottom, left, right in finished.tolist():
        yield slice(top, bottom), slice(left, right)


def _ends(box: Box) -> tuple[int, int, int, int]:
    return box[0].start, box[0].stop, box[1].start, box[1].stop


def _widened(box: Box, size: tuple[int, ...], context: float, least: int, step: int) -> Box:
    margin = round(context * max(side.stop - side.start for side in box))

    def widen(side: slice, length: int) -> slice:
        own, late = side.stop - side.start, step - 1  # what beginning at a multiple may cost
        wide = max(own + 2 * margin + late, least)
        start = max(0, min(side.start - (wide - own - late) // 2, length - wide)) // step * step
        return slice(start, min(length, start + wide))

    rows, columns = map(widen, box, size)
    return rows, columns


def _meets(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Which boxes, (n, 4) as _ends gives them, overlap one of them; bool (n,)."""
    top, bottom, left, right = boxes.T
    return (top < box[1]) & (box[0] < bottom) & (left < box[3]) & (box[2] < right)
