"""Windows of one fixed size on an absolute grid: memory does not depend on the picture's size."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from restore.diffusion import watch

Predict = Callable[[Tensor, Tensor], Tensor]
"""(x (B, C, h, w), timestep) -> model output, the same shape as x"""

PredictRows = Callable[[Tensor, Tensor], Iterator[tuple[slice, Tensor]]]
"""As Predict, but yields (rows, their output) from top to bottom"""

Corner = tuple[int, int]
WindowPredict = Callable[[Tensor, Tensor, list[Corner]], Tensor]
"""(x (n, C, size, size), t, top left corners of the n windows) -> model output like x"""


@dataclass(frozen=True)
class Windows:
    """The grid of windows that a model was trained for, in latents.

    Attributes:
        size: Side of a window.
        stride: From one window to the next.
    """

    size: int = 64
    stride: int = 48

    def canvas(self, length: int) -> int:
        """Return the smallest length, at least `length`, that whole windows cover."""
        return self.size + self.stride * max(0, math.ceil((length - self.size) / self.stride))

    def starts(self, length: int) -> range:
        """Return the first rows (or columns) of the windows along a canvas of that length."""
        return range(0, length - self.size + 1, self.stride)

    def weight(self) -> Tensor:
        """Return the weights (size,), a raised cosine over the overlap: neighbours add up to 1."""
        overlap = self.size - self.stride
        ramp = raised_cosine(overlap)
        return torch.cat([ramp, torch.ones(self.size - 2 * overlap), ramp.flip(0)])


def raised_cosine(length: int) -> Tensor:
    """Return a ramp (length,) from 0 to 1. It and its mirror image add up to one."""
    return 0.5 - 0.5 * torch.cos(math.pi * (torch.arange(length) + 0.5) / max(1, length))


def windowed(predict: WindowPredict, windows: Windows, at_once: int = 1) -> Predict:
    """Make predict(x, t) for canvases of any size from one for windows; see `by_rows`."""
    predict_rows = by_rows(predict, windows, at_once)

    def predict_canvas(x: Tensor, t: Tensor) -> Tensor:
        made = torch.empty_like(x)
        for rows, part in predict_rows(x, t):
            made[..., rows, :] = part
        return made

    return predict_canvas


def by_rows(predict: WindowPredict, windows: Windows, at_once: int = 1) -> PredictRows:
    """Predict canvases of any size by windows, and yield the rows from top to bottom.

    x must have the size windows.canvas(...) on both sides. Rows that were yielded are not read
    again. If memory runs out, the batch of windows is halved. If one window does not fit, the error
    is raised.

    Args:
        predict: Predictions for windows.
        windows: The grid.
        at_once: Windows per forward pass on an accelerator. On the CPU it is one, because its
            kernels round differently for each batch size.
    """
    weight = windows.weight()
    together = at_once

    def predict_rows(x: Tensor, t: Tensor) -> Iterator[tuple[slice, Tensor]]:
        nonlocal together
        rows, columns = (windows.starts(length) for length in x.shape[-2:])
        size, together = windows.size, at_a_time(x.device, together)
        blend = (weight[:, None] * weight).to(x)
        # At the borders of the canvas the weights do not add up to one: there is no neighbour.
        down, across = (covered(weight, starts).to(x) for starts in (rows, columns))
        grid = list(product(rows, columns))
        first, top = 0, 0
        watch.walked(0, len(grid))
        total = x[..., :0, :]  # weighted sum of the rows from `top` on
        while first < len(grid):
            corners = grid[first : first + together]
            crops = torch.cat([x[..., r : r + size, c : c + size] for r, c in corners])
            try:
                made = predict(crops, t, corners)
            except (RuntimeError, MemoryError) as error:
                if together == 1 or not is_out_of_memory(error):
                    raise
                made = None  # retry outside of the block: the error still holds tensors
            if made is None:
                together //= 2
                continue
            lacking = corners[-1][0] + size - top - total.shape[-2]
            if lacking > 0:
                more = x.new_zeros(*x.shape[:-2], lacking, x.shape[-1])
                total = torch.cat([total, more], -2)
            for (r, c), one in zip(corners, made, strict=True):
                total[..., r - top : r - top + size, c : c + size] += one * blend
            first += len(corners)
            watch.walked(first, len(grid))
            done = grid[first][0] if first < len(grid) else x.shape[-2]
            if done > top:  # no later window touches these rows
                yield slice(top, done), total[..., : done - top, :] / down[top:done, None] / across
                total, top = total[..., done - top :, :], done

    return predict_rows


def covered(weight: Tensor, starts: range) -> Tensor:
    """Sum the windows' weights along a canvas, (length,)."""
    total = torch.zeros(starts[-1] + len(weight))
    for start in starts:
        total[start : start + len(weight)] += weight
    return total


def at_a_time(device: torch.device, wanted: int) -> int:
    """Return how many windows share a forward pass on a device."""
    return 1 if device.type == "cpu" else wanted


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on device or host: cuBLAS and the CPU raise a RuntimeError for it."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    told = ("out of memory", "can't allocate memory", "ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(words in str(error) for words in told)
