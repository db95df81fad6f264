"""Small pictures of what is unfinished, to look at while it is made; free of torch."""

from collections.abc import Sequence

import cv2
import numpy as np

from restore.images import memmap
from restore.images.masks import Box

SIDE = 384  # px of a sketch, at most
SAMPLES = 4 * SIDE  # px of a side that are read of a larger picture


def small(pixels: np.ndarray) -> np.ndarray:
    """Reduce pixels (H, W, 3) to uint8 of at most SIDE a side; smaller ones keep their size."""
    steps = [max(1, length // SAMPLES) for length in pixels.shape[:2]]
    seen = pixels[:: steps[0], :: steps[1]]
    if seen.dtype != np.uint8:
        seen = (seen // 257).astype(np.uint8)  # 16 bits
    height, width = fitting(pixels.shape[:2])
    made = cv2.resize(np.ascontiguousarray(seen), (width, height), interpolation=cv2.INTER_AREA)
    memmap.release_pages()
    return made


def fitting(size: tuple[int, ...]) -> tuple[int, int]:
    """Return the (height, width) of a sketch of a picture of that size."""
    share = min(1, SIDE / max(size))
    return max(1, round(size[0] * share)), max(1, round(size[1] * share))


def sketch_finished(before: np.ndarray, pixels: np.ndarray, done: Sequence[Box]) -> np.ndarray:
    """Sketch a result of which some parts are finished; elsewhere its input shows.

    Args:
        before: The input's pixels, of any size.
        pixels: The result's pixels (H, W, 3), undefined where nothing is finished.
        done: The finished parts of the result.
    """
    made = small(pixels)
    height, width = made.shape[:2]
    shown = cv2.resize(small(before), (width, height), interpolation=cv2.INTER_LINEAR)
    for box in done:
        part = scaled(box, pixels.shape[:2], made.shape[:2])
        shown[part] = made[part]
    return shown


def placed(pixels: np.ndarray, box: Box, share: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Sketch a picture, a part of which is painted anew.

    Args:
        pixels: The picture's pixels (H, W, 3).
        box: The part.
        share: Float (h, w) of the part: how much of a pixel is new.
        part: The sketch of the part.
    """
    sketch = small(pixels)
    place = scaled(box, pixels.shape[:2], sketch.shape[:2])
    old = sketch[place]
    size = old.shape[1], old.shape[0]
    new = cv2.resize(part, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    mixing = cv2.resize(share.astype(np.float32), size, interpolation=cv2.INTER_AREA)[..., None]
    sketch[place] = np.rint(old + mixing * (new - old)).astype(np.uint8)
    return sketch


def scaled(box: Box, size: tuple[int, ...], to: tuple[int, ...]) -> Box:
    """Return the box of a picture in its sketch, at least a pixel.

    Boxes that tile the picture tile the sketch. A pixel on a border belongs to the later box.

    Args:
        box: Rows and columns of the picture.
        size: (height, width) of the picture.
        to: (height, width) of the sketch.
    """
    cuts = []
    for cut, large, little in zip(box, size, to, strict=True):
        first = min(cut.start * little // large, little - 1)
        cuts.append(slice(first, max(first + 1, cut.stop * little // large)))
    return cuts[0], cuts[1]
