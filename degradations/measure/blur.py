"""Blur from the edges: how much of their slope does each further blur take?

At a step that a Gaussian of sigma w has softened, gradients at the scales a < b are in the ratio
sqrt((w^2 + b^2) / (w^2 + a^2)) (Zhuo and Sim 2011, Defocus map estimation from a single image).
Pictures hold lines, corners and neighbours too, which bend that law each in its way, so the ratios
of six scales are read together, by a regression over pictures of known blur.
"""

import cv2
import numpy as np

_SCALES = 0.6, 0.9, 1.3, 1.8, 2.6, 3.8  # pixels
_AT = 3  # the scale whose ridges are edges
_STRONG = 90  # percentile of the ridges above which one is an edge
_PERCENTILES = 50, 95  # of the edges
_LEAST = 1.0  # level a pixel
_NOISE = 0.2856  # five deviations of what noise of one level leaves of the gradient at that scale
_MARGIN = 10  # pixels
_FEWEST = 40  # edges
_KNOTS = 0.5, 1.5, 3.5  # sigma in pixels
_WEIGHTS = np.array(
    [
        [-2.46, -2.141, -6.787, -7.24, 12.963, 1.419, -1.842, 1.555, -1.244, -0.115, 0.006, 1.547],
        [-0.39, 2.499, -7.819, 1.108, -7.57, -4.245, 0.554, 1.147, 2.827, -0.338, -0.026, 2.791],
        [
            19.794,
            -2.379,
            -1.482,
            10.071,
            -20.041,
            -2.721,
            -16.223,
            -7.258,
            9.905,
            2.194,
            -0.045,
            4.571,
        ],
    ]
)


def measure(luma: np.ndarray, noise: float = 0.0) -> float | None:
    """Sigma in pixels of the Gaussian by which the picture is softer than a sharp one.

    luma   float32 (H, W), levels 0 to 255.
    noise  its deviation in levels; edges that do not stand out of it are left out.
    None where there are too few edges.
    """
    lost = losses(luma, noise)
    if lost is None:
        return None
    near = _WEIGHTS @ [*lost, np.log1p(noise), 1]  # sigma as each knot's weights tell it
    sigma = _KNOTS[1]
    for _ in range(4):
        sigma = float(np.interp(sigma, _KNOTS, near))
    return max(sigma, 0.0)


def losses(luma: np.ndarray, noise: float) -> list[float] | None:
    """The logarithm of what edges lose of their gradient from each scale to the next.

    Ten values: for each of five steps the median edge's and a steep edge's.
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
    edge = ridge & (size > max(np.percentile(size[ridge], _STRONG), _NOISE * noise + _LEAST))
    if edge.sum() < _FEWEST:
        return None
    size = size[edge]
    x, y = x[edge] / size, y[edge] / size
    along = [np.maximum(u[edge] * x + v[edge] * y, 0.01 * size) for u, v in gradients]
    loss = np.log(np.array(along[:-1]) / np.array(along[1:]))
    return np.percentile(loss, _PERCENTILES, axis=1).T.ravel().tolist()


def _gradient(luma: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    soft = cv2.GaussianBlur(luma, (0, 0), scale, borderType=cv2.BORDER_REFLECT)
    kernel = np.array([-0.5, 0, 0.5], np.float32)
    one = np.ones(1, np.float32)
    return cv2.sepFilter2D(soft, -1, kernel, one), cv2.sepFilter2D(soft, -1, one, kernel)
