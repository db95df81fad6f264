"""Unsharp masking: as cameras and editors do it, and as Real-ESRGAN prepares its ground truth."""

import math
from typing import Annotated, ClassVar, Literal

import cv2
import numpy as np

from degradations import kernels
from degradations.ops.blur import separable
from degradations.ops.op import Op, Params, Size
from degradations.ranges import Range, Uniform, within
from degradations.rng import Rng


class Sharpen(Op):
    """Unsharp masking: halos and overshoot round edges, wide ones where the radius is large.

    rgb + amount (rgb - Gaussian(rgb)), clipped (e.g. Polesel et al. 2000).
    """

    kind: Literal["sharpen"] = "sharpen"
    neutral: ClassVar = {"amount": 0}
    amount: Annotated[Range, within(0, 10)] = Uniform(0.3, 2)
    """Factor of the residual that is added."""
    radius: Annotated[Range, within(0, 50)] = Uniform(0.5, 3)
    """Sigma of the Gaussian, pixels."""

    def draw(self, rng: Rng) -> Params:
        return {"amount": self.amount.draw(rng), "radius": self.radius.draw(rng)}

    @staticmethod
    def apply(rgb: np.ndarray, params: Params, target: Size) -> np.ndarray:
        return np.clip(rgb + np.float32(params["amount"]) * _residual(rgb, params["radius"]), 0, 1)

    @classmethod
    def spread(cls, share: np.ndarray, params: Params, target: Size) -> np.ndarray:
        return share + np.float32(params["amount"]) * np.abs(_residual(share, params["radius"]))


def _residual(image: np.ndarray, sigma: float) -> np.ndarray:
    """What a Gaussian takes away; (H, W) or (H, W, 3)."""
    return image - separable(image, kernels.gaussian_1d(2 * math.ceil(3 * sigma) + 1, sigma))


def sharpen(rgb: np.ndarray) -> np.ndarray:
    """Unsharp masking as Real-ESRGAN does it to its ground truth: uint8 (H, W, 3) -> the same.

    The Gaussian has 51 taps and sigma 8. Half of the residual is added where it exceeds 10 of 255,
    by a soft mask. Use it for the training targets of recipes with `sharpen: true`.
    """
    kernel = kernels.gaussian_1d(51, 8.0)
    image = rgb.astype(np.float32, order="C")
    soft = separable(image, kernel)
    mask = cv2.absdiff(image, soft)
    cv2.threshold(mask, 10, 1, cv2.THRESH_BINARY, dst=mask)
    mask = separable(mask, kernel)
    sharp = cv2.addWeighted(image, 1.5, soft, -0.5, 0, dst=soft)
    np.clip(sharp, 0, 255, out=sharp)
    sharp -= image
    sharp *= mask
    sharp += image
    return cv2.convertScaleAbs(sharp)
