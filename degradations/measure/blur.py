"""Blur from the edges: how much of their slope each further blur takes.

At a step that a Gaussian of sigma w has softened, gradients at the scales a < b are in the ratio
sqrt((w^2 + b^2) / (w^2 + a^2)) (Zhuo and Sim 2011, Defocus map estimation from a single image).
Pictures hold lines, corners and neighbours too, which bend that law each in its way, so the ratios
of six scales are read together, by a regression over pictures of known blur.
"""

import cv2
import numpy as np

_SCALES = 0.6, 0.9, 1.3, 1.8, 2.6, 3.8  # pixels
_AT = 3  # the scale whose ridges are edges
_STRONG = 90, 97  # percentiles of the ridges above which one is an edge, one of the strongest
_QUANTILES = 50, 95  # percentiles of their losses
_LEAST = 1.0  # level a pixel
_NOISE = 0.2856  # five deviations of what noise of one level leaves of the gradient at that scale
_MARGIN = 10  # pixels
_FEWEST = 20  # of the strongest edges
_LARGE = 3.3  # pixels; the scales above measure larger blurs badly
_KNOTS = 0.5, 1.5, 3.5  # sigma in pixels
# Least absolute deviations of sigma over 83 photos, 6 dead leaves and 7 drawings, each blurred 18
# times, and 129 smaller photos, 8 times, by up to 4.2 px, most with noise of up to 8 levels, a JPEG
# of quality 50 to 97 or both. A row a knot; between two, their answers are weighed linearly.
_EDGES = np.array(
    [
        [-0.03, 2.18, -4.15, -7.19, 9.01, 2.12, -1.99, -0.36, 0.05, 0.23],
        [-0.98, 2.12, 0.88, 4.16, -3.5, -6.57, 2.3, 1.59, 0.41, -0.06],
        [8.35, -4.99, 4.77, 6.94, -11.99, -3.1, -1.2, -6.25, 3.28, 2.03],
    ]
)
_STRONGEST = np.array(
    [
        [-2.61, -6.52, 1.34, 1.01, 1.74, 1.51, -1.9, 0.14, -0.02, -0.1],
        [2.31, 0.36, -9.35, -3.01, -7.75, -6.22, 7.04, 3.76, -1.11, -0.65],
        [10.15, 2, -14.11, 7.74, -13.93, -1.87, -3.62, -3.17, 3.47, 1.22],
    ]
)
_NOISE_AND_ONE = np.array(
    [
        [0.003, 1.705],
        [-0.023, 2.736],
        [-0.039, 4.526],
    ]
)


def measure(luma: np.ndarray, noise: float = 0.0) -> float | None:
    """Measure how much softer a picture is than a sharp one.

    Args:
        luma: float32 (H, W), levels 0 to 255.
        noise: Standard deviation of its noise, levels; edges that do not exceed it are left out.

    Returns:
        Sigma of a Gaussian, pixels; None if there are too few edges.
    """
    lost = losses(luma, noise)
    if lost is None:
        return None
    weights = np.hstack([_EDGES, _STRONGEST, _NOISE_AND_ONE])
    near = weights @ [*lost, np.log1p(noise), 1]  # sigma by the weights of each knot
    sigma = _KNOTS[1]
    for _ in range(4):
        sigma = float(np.interp(sigma, _KNOTS, near))
    if sigma > _LARGE:  # at half the size the blur is half, which these scales measure better
        half = cv2.resize(luma, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        found = measure(half, noise / 2)
        return sigma if found is None else 2 * found
    return max(sigma, 0.0)


def losses(luma: np.ndarray, noise: float) -> np.ndarray | None:
    """The logarithm of what edges lose of their gradient from each scale to the next.

    Args:
        luma: float32 (H, W), levels 0 to 255.
        noise: Standard deviation of its noise, levels.

    Returns:
        (20,): for each of five pairs of scales the loss of the median and of a steep edge, first
            among all edges, then among the strongest; None if there are too few edges.
    """
    gradients = [_gradient(luma, scale) for scale in _SCALES]
    x, y = gradients[_AT]
    size = np.hypot(x, y)
    across = (size >= np.roll(size, 1, 1)) & (size > np.roll(size, -1, 1))
    down = (size >= np.roll(size, 1, 0)) & (size > np.roll(size, -1, 0))
    inside = np.zeros(luma.shape, bool)
    inside[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN] = True
    ridge = np.where(np.abs(x) >= np.abs(y), across, down) & inside
    if not ridge.any():
        return None
    limits = np.maximum(np.percentile(size[ridge], _STRONG), _NOISE * noise + _LEAST)
    edge = ridge & (size > limits[0])
    size = size[edge]
    strongest = size > limits[1]
    if strongest.sum() < _FEWEST:
        return None
    x, y = x[edge] / size, y[edge] / size
    along = [np.maximum(u[edge] * x + v[edge] * y, 0.01 * size) for u, v in gradients]
    loss = np.log(np.array(along[:-1]) / np.array(along[1:]))
    parts = (np.percentile(part, _QUANTILES, axis=1).T for part in (loss, loss[:, strongest]))
    return np.concatenate([part.ravel() for part in parts])


def _gradient(luma: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    soft = cv2.GaussianBlur(luma, (0, 0), scale, borderType=cv2.BORDER_REFLECT)
    kernel = np.array([-0.5, 0, 0.5], np.float32)
    one = np.ones(1, np.float32)
    return cv2.sepFilter2D(soft, -1, kernel, one), cv2.sepFilter2D(soft, -1, one, kernel)
