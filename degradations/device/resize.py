"""Resizing as two matrix products a picture, each by its own size and filter.

The filters are those of ops.resize.weights.
"""

import math
from collections.abc import Callable

import cv2
import numpy as np
import torch
from torch import Tensor

from degradations.device.canvas import (
    Canvas,
    cached_arange,
    canvas_size,
    multiply,
    type_of_sums,
    upload,
)
from degradations.ops.op import Params, Size
from degradations.ops.resize import new_size

# formula, reach in pixels, its parameter, and whether it widens as the picture shrinks
_Filter = tuple[str, float, float, bool]
_BOX: _Filter = "box", 0.5, 0, True  # area, and the identity: as wide as a new pixel
_PLAIN: dict[str, _Filter] = {
    "bilinear": ("linear", 1, 0, False),
    "bicubic": ("cubic", 2, 0, False),
    "lanczos": ("lanczos", 4, 4, False),
    "nearest": ("nearest", 1, 0, False),
}
_WIDENED: dict[str, _Filter] = {
    "bilinear": ("linear", 1, 0, True),
    "bicubic": ("cubic", 2, 0, True),
    "lanczos": ("lanczos", 3, 3, True),
}
_FORMULAS = "box", "linear", "cubic", "lanczos", "nearest"


def apply(canvas: Canvas, params: list[Params], targets: list[Size]) -> Canvas:
    rows = zip(canvas.sizes.tolist(), params, targets, strict=True)
    new = np.array([new_size(tuple(size), p, target) for size, p, target in rows])
    return resize_canvas(canvas, new, params)


def resize_canvas(canvas: Canvas, new: np.ndarray, params: list[Params]) -> Canvas:
    """To the sizes `new` (n, 2), by the mode of each and whether it antialiases."""
    filters = [_filters(*row) for row in zip(canvas.sizes, new, params, strict=True)]
    both = [pair[axis] for axis in (0, 1) for pair in filters]
    bottom, right = canvas_size(new)
    place, weight = _taps(
        canvas.sizes.T.ravel(), new.T.ravel(), both, max(bottom, right), canvas.rgb.device
    )
    height, width = canvas.rgb.shape[2:]
    matrices = weight.new_zeros(*weight.shape[:2], max(height, width))
    down, across = matrices.scatter_add_(2, place, weight).chunk(2)
    return Canvas(multiply(canvas.rgb, down[:, :bottom, :height], across[:, :right, :width]), new)


def _filters(old: np.ndarray, new: np.ndarray, params: Params) -> list[_Filter]:
    """The filter of each axis, as ops.resize picks it."""
    mode = params["mode"]
    if mode == "area":
        return [_BOX, _BOX]
    widened = _WIDENED if params["antialias"] and mode in _WIDENED else _PLAIN
    picked = (widened if less else _PLAIN for less in new < old)
    same = new == old
    return [_BOX if s else table[mode] for s, table in zip(same, picked, strict=True)]


def _taps(
    old: np.ndarray, new: np.ndarray, filters: list[_Filter], count: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Which pixels make each of `count` new ones, and by what weight: both (n, count, taps)."""
    scale = 1 / (new / old)  # so rounded by OpenCV
    names, reach, parameter, widens = (np.array(column) for column in zip(*filters, strict=True))
    wide = np.where(widens, scale, 1)
    reach = reach * wide
    kind = [_FORMULAS.index(name) for name in names]
    bounds = reach + 0.5, np.minimum(2 * reach, 1)  # of what a box takes of a pixel
    numbers = [scale, scale / 2, 1 / wide, reach, *bounds, parameter, old - 1, new - 1, kind]
    table = upload(np.stack(numbers)[..., None, None], device)
    scale, half, closer, far, edge, most, parameter, last, last_new, kind = table.unbind(0)
    new_place = cached_arange(count, device, torch.float64)[:, None].minimum(last_new)
    centre = torch.addcmul(half, new_place, scale)
    taps = math.ceil(2 * reach.max()) + 2
    index = torch.floor(centre - far) + cached_arange(taps, device, torch.float64)
    away = (index - (centre - 0.5)).abs_()
    formulas: dict[str, Callable[[], Tensor]] = {
        "box": lambda: (edge - away).clamp_(min=0).minimum(most),
        "linear": lambda: (1 - away * closer).clamp_(min=0),
        "cubic": lambda: _cubic(away * closer),
        "lanczos": lambda: _lanczos(away * closer, parameter),
        "nearest": lambda: 1.0 * (index == _nearest(old, new, count, device)),
    }
    first, *others = dict.fromkeys(names.tolist())
    weight = formulas[first]()
    for name in others:
        weight = torch.where(kind == _FORMULAS.index(name), formulas[name](), weight)
    within = index.clamp(min=0).minimum(last)
    weight *= within == index
    weight /= weight.sum(2, keepdim=True)
    return within.long(), weight.to(type_of_sums(device))


def _nearest(old: np.ndarray, new: np.ndarray, count: int, device: torch.device) -> Tensor:
    """The pixels that OpenCV takes, asked of OpenCV: no formula gives its choice between equals."""
    places = np.zeros((len(old), count, 1))
    for row, n, m in zip(places, old, new, strict=True):
        ramp = np.arange(n, dtype=np.float32)[None]
        row[:m, 0] = cv2.resize(ramp, (int(m), 1), interpolation=cv2.INTER_NEAREST_EXACT)[0]
        row[m:] = row[m - 1]
    return upload(places, device)


def _cubic(distance: Tensor) -> Tensor:
    """Keys 1981 with a = -1/2, as ops.resize: the outer piece, and what the inner has beside it."""
    inner = 1 - distance
    near, far = inner.clamp(min=0), (inner + 1).clamp_(min=0)
    near_squared = near * near
    more = torch.addcmul(near_squared, near_squared, near, value=-2)
    return more.addcmul_(far * far, inner, value=0.5)


def _lanczos(distance: Tensor, lobes: Tensor) -> Tensor:
    return torch.sinc(distance) * torch.sinc(distance / lobes) * (distance < lobes)
