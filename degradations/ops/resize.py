"""Resizing to exact sizes: the outer edges of the picture stay put, so nothing shifts."""

from functools import lru_cache
from typing import Annotated, ClassVar, Literal, Self

import cv2
import numpy as np
from scipy.sparse import csr_array

from degradations.errors import RecipeError
from degradations.ops.op import Op, Params, Size
from degradations.ranges import Choice, Range, Uniform, Words, among, within
from degradations.rng import Rng

PUBLISHED = ("area", "bilinear", "bicubic")  # Real-ESRGAN's, each as likely
MAX_PIXELS = 2**28
MODES = (*PUBLISHED, "lanczos", "nearest")


class Resize(Op):
    """Resize by a factor of the current size, or to a factor of the recipe's target size.

    Area, bilinear and bicubic as Real-ESRGAN; a large smooth blob stays within 0.01 pixels of its
    place through any chain of them. Nearest takes the pixel under the middle, without antialias,
    and alone may shift: each time by up to half a pixel of what it reads.
    """

    kind: Literal["resize"] = "resize"
    is_filter: ClassVar = True
    neutral: ClassVar = {"factor": 1}
    of: Literal["current", "target"] = "current"
    """Whether `factor` is of the current size or of the recipe's target size."""
    factor: Annotated[Range, within(0.01, 8)] = Uniform(1, 1)
    """Factor of that size, on both sides."""
    mode: Annotated[Words, among(MODES)] = Choice(PUBLISHED)
    """Interpolation."""
    antialias: bool = True
    """Filter before shrinking. False as published, where bilinear at x0.2 keeps white noise."""

    def draw(self, rng: Rng) -> Params:
        factor, mode = self.factor.draw(rng), self.mode.draw(rng)
        return {"of": self.of, "factor": factor, "mode": mode, "antialias": self.antialias}

    @staticmethod
    def apply(rgb: np.ndarray, params: Params, target: Size) -> np.ndarray:
        size = new_size(rgb.shape[:2], params, target)
        return resize(rgb, size, params["mode"], params["antialias"])

    def at(self, severity: float) -> Self | None:
        if severity == 0 and self.of == "target":  # the one thing that is left of any recipe
            return self.model_copy(update={"factor": self.factor.towards(1, 0)})
        return super().at(severity)


def new_size(size: Size, params: Params, target: Size) -> Size:
    """The (height, width) that a resize gives.

    Args:
        size: (height, width) of the picture.
        params: What `Resize.draw` returned.
        target: (height, width) that the whole recipe ends at.

    Raises:
        RecipeError: If the result would be too large.
    """
    height, width = target if params["of"] == "target" else size
    made = max(1, round(height * params["factor"])), max(1, round(width * params["factor"]))
    if made[0] * made[1] > MAX_PIXELS:
        raise RecipeError(f"a resize to {made[1]}x{made[0]} px; the limit is {MAX_PIXELS:,} px")
    return made


def resize(rgb: np.ndarray, size: Size, mode: str, antialias: bool = True) -> np.ndarray:
    """Resize a picture; pixel (0, 0) covers the same corner before and after.

    Args:
        rgb: float32 (H, W) or (H, W, 3).
        size: The new (height, width).
        mode: One of MODES.
        antialias: Filter before shrinking.
    """
    (height, width), channels = rgb.shape[:2], rgb.shape[2:]
    if size == (height, width):
        return rgb
    if mode == "nearest":
        return cv2.resize(rgb, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    if mode == "bilinear" and (not antialias or (size[0] >= height and size[1] >= width)):
        return cv2.resize(rgb, size[::-1], interpolation=cv2.INTER_LINEAR)  # as below, but faster
    if size[0] != height:
        rows = weights(height, size[0], mode, antialias) @ rgb.reshape(height, -1)
        rgb = rows.reshape(size[0], width, *channels)
    if size[1] != width:
        turned = cv2.transpose(rgb).reshape(width, -1)
        columns = weights(width, size[1], mode, antialias) @ turned
        rgb = cv2.transpose(columns.reshape(size[1], size[0], *channels))
    return rgb


def weights(before: int, after: int, mode: str, antialias: bool) -> csr_array:
    """The weights by which each new pixel of a line sums the old ones; rows sum to 1.

    This is Pillow's arithmetic: the filter is centred on the middle of the pixel, it is widened
    when the line shrinks with antialiasing, and taps outside the line are left out. "area" weighs
    each old pixel by the length of it that is covered, whether the line shrinks or grows.

    Args:
        before: Pixels of the old line.
        after: Pixels of the new line.
        mode: One of MODES but "nearest".
        antialias: Filter before shrinking.

    Returns:
        float32 (after, before), sparse.
    """
    made = _kept if max(before, after) <= _LONGEST_KEPT else _weights
    return made(before, after, mode, antialias)


def _weights(before: int, after: int, mode: str, antialias: bool) -> csr_array:
    scale = before / after
    widened = max(scale, 1) if antialias else 1
    lobes = {"bilinear": 1, "bicubic": 2, "lanczos": 3 if widened > 1 else 4, "area": 0}[mode]
    reach = lobes * widened or scale / 2
    middle = (np.arange(after)[:, None] + 0.5) * scale
    taken = np.floor(middle - reach).astype(np.int32) + np.arange(2 * reach + 2, dtype=np.int32)
    if mode == "area":
        ends = np.clip((taken, taken + 1), middle - reach, middle + reach)
        share = ends[1] - ends[0]
    else:
        share = _FILTERS[mode]((taken + 0.5 - middle) / widened, lobes)
    share[(taken < 0) | (taken >= before)] = 0
    share /= share.sum(1, keepdims=True)
    starts = np.arange(0, share.size + 1, share.shape[1], dtype=np.int32)
    pixels = np.clip(taken, 0, before - 1).ravel()
    return csr_array((share.astype(np.float32).ravel(), pixels, starts), (after, before))


# crops of one size meet the same sizes again; whole photos seldom do, and theirs are large
_LONGEST_KEPT = 1024
_kept = lru_cache(2048)(_weights)  # 20 MB for crops of 256 pixels


def _linear(x: np.ndarray, lobes: int) -> np.ndarray:
    return np.maximum(1 - np.abs(x), 0)


def _cubic(x: np.ndarray, lobes: int) -> np.ndarray:
    """Keys 1981 with a = -1/2, which alone keeps lines straight; -3/4 wobbles by 0.02 pixels."""
    x = np.abs(x)
    return np.where(x < 1, (1.5 * x - 2.5) * x * x + 1, np.maximum(2 - x, 0) ** 2 * (1 - x) / 2)


def _lanczos(x: np.ndarray, lobes: int) -> np.ndarray:
    return np.where(np.abs(x) < lobes, np.sinc(x) * np.sinc(x / lobes), 0)


_FILTERS = {"bilinear": _linear, "bicubic": _cubic, "lanczos": _lanczos}
