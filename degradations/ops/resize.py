"""Resizing to exact sizes: the outer edges of the picture stay put, so nothing shifts."""

from typing import Annotated, ClassVar, Literal, Self

import cv2
import numpy as np
from PIL import Image

from degradations.ops.op import Op, Params, Size
from degradations.ranges import Choice, Range, Uniform, Words, among, within
from degradations.rng import Rng

PUBLISHED = ("area", "bilinear", "bicubic")  # Real-ESRGAN's, each as likely
MODES = (*PUBLISHED, "lanczos", "nearest")
_CV2 = {
    "area": cv2.INTER_AREA,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "lanczos": cv2.INTER_LANCZOS4,
    "nearest": cv2.INTER_NEAREST_EXACT,
}
_PIL = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


class Resize(Op):
    """Resize by a factor of the current size, or to a factor of the recipe's target size.

    Area, bilinear and bicubic as Real-ESRGAN; Lanczos has 3 lobes where it antialiases, 4 where it
    enlarges; nearest takes the pixel under the middle, without antialias, and alone may shift, by
    half a pixel at most.
    """

    kind: Literal["resize"] = "resize"
    is_filter: ClassVar = True
    neutral: ClassVar = {"factor": 1}
    of: Literal["current", "target"] = "current"
    factor: Annotated[Range, within(0.01, 8)] = Uniform(1, 1)
    mode: Annotated[Words, among(MODES)] = Choice(PUBLISHED)
    antialias: bool = True  # when shrinking; False as published: bilinear at x0.2 keeps white noise

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
    """What a resize makes of a (height, width)."""
    height, width = target if params["of"] == "target" else size
    return max(1, round(height * params["factor"])), max(1, round(width * params["factor"]))


def resize(rgb: np.ndarray, size: Size, mode: str, antialias: bool = True) -> np.ndarray:
    """float32 (H, W, 3) -> float32 (*size, 3); pixel (0, 0) covers the corner before and after."""
    height, width = rgb.shape[:2]
    if size == (height, width):
        return rgb
    shrinks = size[0] < height or size[1] < width
    if shrinks and antialias and mode in _PIL:
        # Pillow widens the filter as it shrinks, per axis; its 32-bit float mode has one channel.
        planes = (Image.fromarray(plane) for plane in cv2.split(rgb))
        return cv2.merge([np.asarray(plane.resize(size[::-1], _PIL[mode])) for plane in planes])
    if mode == "area" and shrinks and (size[0] > height or size[1] > width):
        # OpenCV averages areas only where both axes shrink, so each axis goes by itself.
        rgb = cv2.resize(rgb, (width, size[0]), interpolation=cv2.INTER_AREA)
    return cv2.resize(rgb, size[::-1], interpolation=_CV2[mode])
