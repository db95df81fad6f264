"""Blur: the six kernels of the Gaussian family, the sinc filter, motion and defocus."""

import math
from typing import Annotated, ClassVar, Literal

import cv2
import numpy as np

from degradations import kernels
from degradations.ops.op import Op, Params, Size
from degradations.ranges import Choice, Range, Uniform, Words, among, within
from degradations.rng import Rng

SHAPES = (
    "isotropic",
    "anisotropic",
    "generalised_isotropic",
    "generalised_anisotropic",
    "plateau_isotropic",
    "plateau_anisotropic",
)
SIZES = (7, 9, 11, 13, 15, 17, 19, 21)  # Real-ESRGAN's
ALL_SIZES = (*SIZES, 23, 25)  # BSRGAN's too
_ANGLE, _HEADING = Uniform(-math.pi, math.pi), Uniform(0, math.pi)  # made once, because it is slow
_DIRECT_AREA = 129  # from 130 taps on OpenCV turns to a Fourier transform, at 3 times the cost


class Blur(Op):
    """Blur by a random member of the Gaussian family (Real-ESRGAN, Wang et al. 2021)."""

    kind: Literal["blur"] = "blur"
    is_filter: ClassVar = True
    neutral: ClassVar = {"sigma": 0}
    shape: Annotated[Words, among(SHAPES)] = Choice(SHAPES, (0.45, 0.25, 0.12, 0.03, 0.12, 0.03))
    """Members of the Gaussian family to draw from."""
    size: Annotated[Words, among(ALL_SIZES)] = Choice(SIZES)
    """Sides of the kernel, pixels."""
    sigma: Annotated[Range, within(0)] = Uniform(0.2, 3)
    """Standard deviation along each axis, pixels."""
    beta_generalised: Annotated[Range, within(0.1, 10)] = Choice((Uniform(0.5, 1), Uniform(1, 4)))
    """Exponent of the generalised shapes: peaked below 1, flat above."""
    beta_plateau: Annotated[Range, within(0.1, 10)] = Choice((1, Uniform(1, 2)))
    """Exponent of the plateau shapes."""

    def draw(self, rng: Rng) -> Params:
        shape, size = self.shape.draw(rng), self.size.draw(rng)
        sigma_x, sigma_y = self.sigma.draw(rng), self.sigma.draw(rng)
        angle = _ANGLE.draw(rng)
        generalised, plateau = self.beta_generalised.draw(rng), self.beta_plateau.draw(rng)
        if not shape.endswith("anisotropic"):
            sigma_y, angle = sigma_x, 0.0
        params = {"shape": shape, "size": size, "sigma": [sigma_x, sigma_y], "angle": angle}
        if shape.startswith("generalised"):
            params["beta"] = generalised
        elif shape.startswith("plateau"):
            params["beta"] = plateau
        return params

    @staticmethod
    def apply(rgb: np.ndarray, params: Params, target: Size) -> np.ndarray:
        shape, size, angle = params["shape"], params["size"], params["angle"]
        sigma_x, sigma_y = params["sigma"]
        beta = beta_of(params)
        if shape == "isotropic":
            size = min(size, 2 * math.ceil(4 * sigma_x) + 1)  # 1e-4 of the weight is outside
            return separable(rgb, kernels.gaussian_1d(size, sigma_x))
        if shape.startswith("plateau"):
            kernel = kernels.plateau(size, sigma_x, sigma_y, angle, beta)
        else:
            kernel = kernels.generalised_gaussian(size, sigma_x, sigma_y, angle, beta)
        return correlate(rgb, kernels.trim(kernel))


class Sinc(Op):
    """Ringing and overshoot, as of a sharp low pass or of sharpening (Real-ESRGAN)."""

    kind: Literal["sinc"] = "sinc"
    is_filter: ClassVar = True
    neutral: ClassVar = {"cutoff": math.pi}
    fades: ClassVar = False  # at pi it still removes the corners of the spectrum
    size: Annotated[Words, among(SIZES)] = Choice(SIZES)
    """Sides of the kernel, pixels."""
    cutoff: Annotated[Range, within(0.1, math.pi)] = Uniform(math.pi / 3, math.pi)
    """Cutoff, radians a pixel."""

    def draw(self, rng: Rng) -> Params:
        return {"size": self.size.draw(rng), "cutoff": self.cutoff.draw(rng)}

    @staticmethod
    def apply(rgb: np.ndarray, params: Params, target: Size) -> np.ndarray:
        return correlate(rgb, kernels.sinc(params["size"], params["cutoff"]))


class MotionBlur(Op):
    """A camera that moves along an arc while the shutter is open (Boracchi and Foi 2012).

    The kernel's centroid stays in the middle, so the picture does not shift.
    """

    kind: Literal["motion_blur"] = "motion_blur"
    is_filter: ClassVar = True
    neutral: ClassVar = {"length": 0}
    length: Annotated[Range, within(0, 100)] = Uniform(2, 15)
    """Length of the path, pixels."""
    bend: Annotated[Range, within(-math.pi, math.pi)] = Uniform(-1, 1)
    """Angle by which the path turns, radians."""

    def draw(self, rng: Rng) -> Params:
        angle = _HEADING.draw(rng)
        return {"length": self.length.draw(rng), "bend": self.bend.draw(rng), "angle": angle}

    @staticmethod
    def apply(rgb: np.ndarray, params: Params, target: Size) -> np.ndarray:
        return correlate(rgb, kernels.motion(params["length"], params["angle"], params["bend"]))


class Defocus(Op):
    """A lens out of focus: the disc of its aperture (the geometric model, e.g. Pentland 1987)."""

    kind: Literal["defocus"] = "defocus"
    is_filter: ClassVar = True
    neutral: ClassVar = {"radius": 0}
    radius: Annotated[Range, within(0, 50)] = Uniform(0.5, 4)
    """Radius of the disc, pixels."""

    def draw(self, rng: Rng) -> Params:
        return {"radius": self.radius.draw(rng)}

    @staticmethod
    def apply(rgb: np.ndarray, params: Params, target: Size) -> np.ndarray:
        return correlate(rgb, kernels.disc(params["radius"]))


def beta_of(params: Params) -> float:
    """The exponent of a blur's shape. Raises ValueError for one that is never drawn."""
    beta = params.get("beta", 1.0)
    if not 0.1 <= beta <= 10:  # in a trace of somebody
        raise ValueError(f"beta is from 0.1 to 10, not {beta}")
    return beta


def separable(rgb: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Filter each channel with the outer product of a kernel with itself, mirrored at the edges.

    Args:
        rgb: float32 (H, W) or (H, W, 3).
        kernel: (n,), centred.
    """
    if len(kernel) > _DIRECT_AREA:
        return cv2.sepFilter2D(rgb, -1, kernel, kernel, borderType=cv2.BORDER_REFLECT_101)
    return _filtered(_filtered(rgb, kernel[None, :]), kernel[:, None])  # in two thirds of the time


def correlate(rgb: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Filter each channel with one kernel, mirrored about the pixels of the edge.

    Large kernels are cut into strips of rows, which OpenCV still filters directly, and added up.

    Args:
        rgb: float32 (H, W) or (H, W, 3).
        kernel: (n, n), centred.
    """
    size = len(kernel)
    if kernel.size <= _DIRECT_AREA:
        return _filtered(rgb, kernel)
    radius, height = size // 2, len(rgb)
    padded = cv2.copyMakeBorder(rgb, radius, radius, 0, 0, cv2.BORDER_REFLECT_101)
    rows = _DIRECT_AREA // size
    total = None
    for top in range(0, size, rows):
        strip = kernel[top : top + rows]
        part = padded[top : top + height + len(strip) - 1]
        filtered = _filtered(part, strip, anchor=(radius, 0))[:height]
        total = filtered if total is None else cv2.add(total, filtered, dst=total)
    assert total is not None
    return total


def _filtered(rgb: np.ndarray, kernel: np.ndarray, anchor: Size = (-1, -1)) -> np.ndarray:
    return cv2.filter2D(rgb, -1, kernel, anchor=anchor, borderType=cv2.BORDER_REFLECT_101)
