"""Blur from the steepest edges: how much does a little more blur change their slope?

At an edge that a Gaussian of sigma w has softened, gradients at the scales a < b are in the ratio
sqrt((w^2 + b^2) / (w^2 + a^2)) (Zhuo and Sim 2011, Defocus map estimation from a single image).
Pictures hold lines and corners too, so the sharpest edges' w^2 is read on a curve that was measured
once on photos of known blur.
"""

import cv2
import numpy as np

_STRONG = 0.9  # quantile of the gradients above which one is an edge
_MARGIN = 8  # pixels
_FEWEST = 60  # edges
# sigma of the blur in pixels -> what the two scales say of its square, in the middle of 40 photos
_SIGMA = np.array([0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2, 2.5, 3, 4])
_FINE = (0.8, 1.5, 5)  # scales a, b in pixels; percentile of the edges
_COARSE = (1.6, 2.8, 15)
_FINE_SQUARE = np.array(
    [-0.468, -0.467, -0.393, -0.233, -0.013, 0.274, 0.587, 0.987, 1.355, 2.324, 3.065, 3.98]
)
_COARSE_SQUARE = np.array(
    [-1.666, -1.665, -1.539, -1.348, -1.095, -0.754, -0.374, 0.118, 0.624, 2.096, 3.805, 7.924]
)
_TURN = 1.2, 2.0  # pixels: from the fine pair to the coarse one


def measure(luma: np.ndarray, noise: float = 0.0) -> float | None:
    """Sigma in pixels of the Gaussian by which the picture is softer than a sharp one.

    luma   float32 (H, W), levels 0 to 255.
    noise  its deviation in levels; edges that do not stand out of it are left out.
    None where there are too few edges.
    """
    fine, coarse = (square(luma, *pair, noise) for pair in (_FINE, _COARSE))
    if fine is None or coarse is None:
        return None
    small, large = _read(fine, _FINE_SQUARE), _read(coarse, _COARSE_SQUARE)
    turn = float(np.clip((large - _TURN[0]) / (_TURN[1] - _TURN[0]), 0, 1))
    return small * (1 - turn) + large * turn


def square(luma: np.ndarray, a: float, b: float, percent: float, noise: float) -> float | None:
    """The `percent` percentile of w^2 over strong edges, from the scales a < b.

    It is below 0 at lines and corners, which a blur flattens more than an edge.
    """
    x, y = _gradient(luma, a)
    size = np.hypot(x, y)
    across = (size >= np.roll(size, 1, 1)) & (size > np.roll(size, -1, 1))
    down = (size >= np.roll(size, 1, 0)) & (size > np.roll(size, -1, 0))
    ridge = np.where(np.abs(x) >= np.abs(y), across, down)[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    x, y, size = (plane[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN][ridge] for plane in (x, y, size))
    if len(size) < _FEWEST:
        return None
    # five deviations of what noise makes of the gradient, and two levels
    strong = size > max(float(np.quantile(size, _STRONG)), 1.14 * noise / a**2 + 2)
    if strong.sum() < _FEWEST:
        return None
    wide = (plane[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN][ridge] for plane in _gradient(luma, b))
    along = np.abs(sum(u * v for u, v in zip(wide, (x, y), strict=True)))[strong]
    ratio = np.maximum(size[strong] ** 2 / np.maximum(along, 1e-6), 1e-3) ** 2
    return float(np.percentile((b * b - ratio * a * a) / np.maximum(ratio - 1, 1e-3), percent))


def _gradient(luma: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    soft = cv2.GaussianBlur(luma, (0, 0), scale, borderType=cv2.BORDER_REFLECT)
    kernel = np.array([-0.5, 0, 0.5], np.float32)
    one = np.ones(1, np.float32)
    return cv2.sepFilter2D(soft, -1, kernel, one), cv2.sepFilter2D(soft, -1, one, kernel)


def _read(square: float, curve: np.ndarray) -> float:
    """Sigma at this w^2, beyond the last by a straight line."""
    if square <= curve[-1]:
        return float(np.interp(square, curve, _SIGMA))
    slope = (_SIGMA[-1] - _SIGMA[-2]) / (curve[-1] - curve[-2])
    return float(_SIGMA[-1] + slope * (square - curve[-1]))
