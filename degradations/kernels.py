"""Blur kernels: (size, size) float32, size odd, centred, sum 1.

The Gaussian family of Real-ESRGAN (Wang et al. 2021) and BSRGAN (Zhang et al. 2021), and a windowed
version of the former's sinc filter; motion and defocus.
"""

import math

import numpy as np
from scipy.special import i0, j1

MIN_SIGMA = 1e-3  # pixels; below it every kernel of the family is the unit impulse
TAIL = 1e-4  # share of a kernel that is not worth its time
KAISER_BETA = 3.2  # a passband gain of at most 1.10 at any size and cutoff below


def _normal(kernel: np.ndarray) -> np.ndarray:
    return (kernel / kernel.sum()).astype(np.float32)


def _squares(size: int, sigma_x: float, sigma_y: float, angle: float) -> np.ndarray:
    """q = x' S^-1 x on the grid: squared distance in units of sigma, axes turned by `angle`."""
    axis = np.arange(size) - size // 2
    x, y = axis[None, :], axis[:, None]
    cos, sin = math.cos(angle), math.sin(angle)
    u = (cos * x + sin * y) / max(sigma_x, MIN_SIGMA)
    v = (cos * y - sin * x) / max(sigma_y, MIN_SIGMA)
    return u * u + v * v


def gaussian_1d(size: int, sigma: float) -> np.ndarray:
    """(size,): the isotropic Gaussian is its outer product with itself. sigma in pixels."""
    axis = np.arange(size) - size // 2
    return _normal(np.exp(-0.5 * (axis / max(sigma, MIN_SIGMA)) ** 2))


def generalised_gaussian(
    size: int, sigma_x: float, sigma_y: float, angle: float, beta: float = 1.0
) -> np.ndarray:
    """The kernel exp(-q^beta / 2): Gaussian at beta 1, peaked below, flat above (Liu et al. 2020).

    Args:
        size: Side, odd.
        sigma_x: Standard deviation along the turned x axis, pixels.
        sigma_y: Standard deviation along the turned y axis, pixels.
        angle: Angle of the axes, radians.
        beta: Exponent.
    """
    return _normal(np.exp(-0.5 * _squares(size, sigma_x, sigma_y, angle) ** beta))


def plateau(size: int, sigma_x: float, sigma_y: float, angle: float, beta: float) -> np.ndarray:
    """The kernel 1 / (1 + q^beta): a plateau with heavy tails; a disc of radius sigma as beta
    grows.

    Args:
        size: Side, odd.
        sigma_x: Radius along the turned x axis, pixels.
        sigma_y: Radius along the turned y axis, pixels.
        angle: Angle of the axes, radians.
        beta: Exponent.
    """
    return _normal(1 / (1 + _squares(size, sigma_x, sigma_y, angle) ** beta))


def sinc(size: int, cutoff: float) -> np.ndarray:
    """The ideal circular low pass w J1(w r) / (2 pi r), under a Kaiser window.

    Without a window, as published, small kernels have a passband gain of up to 1.7. With it the
    gain is at most 1.1, and edges still ring.

    Args:
        size: Side, odd.
        cutoff: Cutoff w, radians a pixel, in (0, pi].
    """
    axis = np.arange(size) - size // 2
    r = np.hypot(axis[None, :], axis[:, None])
    safe = np.where(r > 0, r, 1.0)
    ideal = np.where(
        r > 0, cutoff * j1(cutoff * safe) / (2 * np.pi * safe), cutoff**2 / (4 * np.pi)
    )
    window = i0(KAISER_BETA * np.sqrt(np.maximum(1 - (r / (size / 2)) ** 2, 0)))
    return _normal(ideal * np.where(r < size / 2, window, 0))


def motion(length: float, angle: float, bend: float) -> np.ndarray:
    """An arc; it is sampled 16 times a pixel, each sample shared among its four pixels.

    Args:
        length: Length of the arc, pixels.
        angle: Direction at its start, radians.
        bend: Angle by which it turns, radians.
    """
    count = max(2, math.ceil(16 * length))
    heading = angle + bend * (np.arange(count - 1) + 0.5) / (count - 1)
    path = np.zeros((count, 2))
    path[1:] = np.cumsum(np.stack([np.sin(heading), np.cos(heading)], 1), 0) * length / (count - 1)
    path -= path.mean(0)
    radius = math.ceil(np.abs(path).max()) + 1
    corner = np.floor(path).astype(int)
    share = path - corner
    kernel = np.zeros((2 * radius + 1, 2 * radius + 1))
    for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
        weight = np.abs(1 - dy - share[:, 0]) * np.abs(1 - dx - share[:, 1])
        np.add.at(kernel, (corner[:, 0] + dy + radius, corner[:, 1] + dx + radius), weight)
    return _normal(kernel)


def disc(radius: float) -> np.ndarray:
    """A disc of `radius` pixels, its rim antialiased over one pixel."""
    reach = math.ceil(radius)
    axis = np.arange(-reach, reach + 1)
    distance = np.hypot(axis[None, :], axis[:, None])
    return _normal(np.clip(radius + 0.5 - distance, 0, 1))


def trim(kernel: np.ndarray, tail: float = TAIL) -> np.ndarray:
    """The kernel without its faintest taps; its sum is 1 again.

    These taps become 0, which costs a direct filter nothing, and outer rings of zeros are cut off.

    Args:
        kernel: (size, size), size odd.
        tail: Share of the absolute sum that the taps left out hold at most.
    """
    weight = np.abs(kernel)
    ordered = np.sort(weight, axis=None)
    faintest = ordered[np.searchsorted(ordered.cumsum(), tail * weight.sum())]
    # taps opposite each other differ in their last digits; one alone would shift the picture
    kept = weight >= faintest * np.float32(1 - 1e-5)
    if kept.all():
        return kernel
    cut = min(kept.any(0).argmax(), kept.any(1).argmax(), len(kernel) // 2 - 1)
    return _normal((kernel * kept)[cut : len(kernel) - cut, cut : len(kernel) - cut])
