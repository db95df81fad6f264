"""Resizing as two matrix products a picture, each by its own size and filter.

The filters are those of ops.resize.weights.
"""

import math
from collections.abc import Callable

import cv2
import numpy as np
import torch
from torch import Tensor

from degradations.device.canvas import Canvas, counting, fitting, products, type_of_sums, upload
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


def apply(canvas: Canvas, params: list[Params], target: Size) -> Canvas:
    sizes = [(int(height), int(width)) for height, width in canvas.sizes]
    new = np.array([new_size(s, p, target) for s, p in zip(sizes, params, strict=True)])
    return resized(canvas, new, params)


def resized(canvas: Canvas, new: np.ndarray, params: list[Params]) -> Canvas:
    """To the sizes `new` (n, 2), by the mode of each and whether it antialiases."""
    filters = [_filters(*row) for row in zip(canvas.sizes, new, params, strict=True)]
    both = [pair[axis] for axis in (0, 1) for pair in filters]
    bottom, right = fitting(new)
    inputs = canvas.rgb.shape[2:]
    place, weight = _taps(
        canvas.sizes.T.ravel(), new.T.ravel(), both, max(bottom, right), canvas.rgb.device
    )
    down, across = (
        weight.new_zeros(len(new), count, inputs[axis]).scatter_add_(2, p[:, :count], w[:, :count])
        for axis, (count, p, w) in enumerate(
            zip((bottom, right), place.chunk(2), weight.chunk(2), strict=True)
        )
    )
    return Canvas(products(canvas.rgb, down, across), new)


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
    kind = [_FORMULAS.index(name) for name in names]
    numbers = [scale, wide, reach * wide, parameter, old - 1, new - 1, kind]
    table = upload(np.stack(numbers)[..., None, None], device)
    scale, wide, reach, parameter, last, last_new, kind = table.unbind(0)
    new_place = counting(count, device)[:, None].minimum(last_new)
    centre = (new_place + 0.5) * scale
    taps = math.ceil(2 * numbers[2].max()) + 2
    place = torch.floor(centre - reach) + counting(taps, device)
    distance = ((place + 0.5 - centre) / wide).abs_()
    formulas: dict[str, Callable[[], Tensor]] = {
        "box": lambda: _share(place, centre, reach),
        "linear": lambda: (1 - distance).clamp_(min=0),
        "cubic": lambda: _cubic(distance),
        "lanczos": lambda: _lanczos(distance, parameter),
        "nearest": lambda: 1.0 * (place == _nearest(old, new, count, device)),
    }
    weight = torch.zeros_like(place)
    for name in dict.fromkeys(names.tolist()):
        weight = torch.where(kind == _FORMULAS.index(name), formulas[name](), weight)
    weight = weight.masked_fill_((place < 0) | (place > last), 0)
    weight /= weight.sum(2, keepdim=True)
    return place.clamp_(min=0).minimum(last).long(), weight.to(type_of_sums(device))


def _share(place: Tensor, centre: Tensor, reach: Tensor) -> Tensor:
    """How much of each pixel lies within reach."""
    share = torch.minimum(place + 1, centre + reach) - torch.maximum(place, centre - reach)
    return share.clamp_(min=0)


def _nearest(old: np.ndarray, new: np.ndarray, count: int, device: torch.device) -> Tensor:
    """The pixels that OpenCV takes, told by itself: its choice among two as near is no formula."""
    places = np.zeros((len(old), count, 1))
    for row, n, m in zip(places, old, new, strict=True):
        ramp = np.arange(n, dtype=np.float32)[None]
        row[:m, 0] = cv2.resize(ramp, (int(m), 1), interpolation=cv2.INTER_NEAREST_EXACT)[0]
        row[m:] = row[m - 1]
    return upload(places, device)


def _cubic(distance: Tensor) -> Tensor:
    """Keys 1981 with a = -1/2, as ops.resize."""
    near = (1.5 * distance - 2.5) * distance * distance + 1
    return torch.where(distance < 1, near, (2 - distance).clamp(min=0) ** 2 * (1 - distance) / 2)


def _lanczos(distance: Tensor, lobes: Tensor) -> Tensor:
    return torch.sinc(distance) * torch.sinc(distance / lobes) * (distance < lobes)
