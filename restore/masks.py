"""Masks: which pixels are to be made anew, grown, feathered, and cut into jobs."""

from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np
from scipy import ndimage

from restore.images import Picture

Box = tuple[slice, slice]  # rows and columns


def grown(hole: np.ndarray, reach: int) -> np.ndarray:
    """bool (H, W) with every pixel added that lies within `reach` pixels of the hole."""
    return hole if reach == 0 else ndimage.distance_transform_edt(~hole) <= reach


def feathered(hole: np.ndarray, width: int) -> np.ndarray:
    """float32 (H, W): 1 in the hole, falling to 0 over `width` pixels round it.

    Outside that it is exactly 0: there not a byte moves.
    """
    if width == 0:
        return hole.astype(np.float32)
    away = cv2.distanceTransform((~hole).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.clip(1 - away / (width + 1), 0, 1)


def resized(hole: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """bool (H, W) -> bool (*size), each pixel the nearest."""
    if hole.shape == size:
        return hole
    big = cv2.resize(hole.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return big > 0


def mended(picture: Picture, hole: np.ndarray | None) -> Picture:
    """The picture with its hole filled from the nearest pixels round it.

    What is in a hole must not bleed into its surroundings when the picture is resized.
    """
    if hole is None or not hole.any() or hole.all():
        return picture
    _, nearest = ndimage.distance_transform_edt(hole, return_indices=True)
    return replace(picture, pixels=picture.pixels[tuple(nearest)])


def boxes(hole: np.ndarray, context: float, least: int, step: int) -> Iterator[Box]:
    """Boxes round the connected parts of a hole; parts whose boxes meet share one.

    context  margin on each side, as a share of the part's longer side.
    least    no box is smaller than this on a side, if the picture is not.
    step     boxes begin at multiples of this.
    """
    marks, _ = ndimage.label(hole, np.ones((3, 3)))
    found = [_widened(box, hole.shape, context, least, step) for box in ndimage.find_objects(marks)]
    while found:
        box = found.pop()
        meeting = [other for other in found if _meet(box, other)]
        if not meeting:
            yield box
            continue
        found = [other for other in found if other not in meeting]
        sides = zip(*meeting, box, strict=True)
        rows, columns = (slice(min(s.start for s in x), max(s.stop for s in x)) for x in sides)
        found.append((rows, columns))


def _widened(box: Box, size: tuple[int, ...], context: float, least: int, step: int) -> Box:
    longer = max(side.stop - side.start for side in box)

    def widen(side: slice, length: int) -> slice:
        margin = max(round(context * longer), (least - (side.stop - side.start) + 1) // 2)
        start = max(0, min(side.start - margin, length - least)) // step * step
        return slice(start, min(length, max(side.stop + margin, start + least)))

    rows, columns = map(widen, box, size)
    return rows, columns


def _meet(one: Box, other: Box) -> bool:
    return all(a.start < b.stop and b.start < a.stop for a, b in zip(one, other, strict=True))
