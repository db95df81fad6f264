"""Windows of one fixed size: memory does not depend on the picture's size."""

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


STEP = 8
"""Sides of a canvas are multiples of this, in latents: a UNet of four levels halves them thrice"""


@dataclass(frozen=True)
class Windows:
    """The grid of windows that a model was trained for, in latents.

    The last window ends where the canvas ends. A canvas of no more latents than a window is one.

    Attributes:
        size: Side of a window.
        stride: From one window to the next.
    """

    size: int = 64
    stride: int = 48

    def canvas(self, length: int) -> int:
        """Return the length of the canvas for `length` latents: the next multiple of STEP."""
        return math.ceil(length / STEP) * STEP

    def over(self, height: int, width: int) -> "Windows":
        """Return the grid for a canvas: this one, or a single window of no more latents."""
        if height * width > self.size**2:
            return self
        side = max(height, width)
        return Windows(side, side)

    def starts(self, length: int) -> list[int]:
        """Return the first rows (or columns) of the windows along a canvas of that length."""
        last = max(0, length - self.size)
        return [*range(0, last, self.stride), last]

    def weight(self, length: int) -> Tensor:
        """Return the weights of each window along a canvas, a raised cosine over the overlap.

        Args:
            length: Of the canvas. If it is smaller than a window, so are the weights.
        """
        overlap = self.size - self.stride
        ramp = raised_cosine(overlap)
        whole = torch.cat([ramp, torch.ones(self.size - 2 * overlap), ramp.flip(0)])
        return whole if length >= self.size else torch.ones(length)


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

    Rows of x that were yielded are not read again. If memory runs out, the batch of windows is
    halved. If one window does not fit, the error is raised.

    Args:
        predict: Predictions for windows.
        windows: The grid.
        at_once: Windows per forward pass on an accelerator. On the CPU it is one, because its
            kernels round differently for each batch size.
    """
    together = at_once

    def predict_rows(x: Tensor, t: Tensor) -> Iterator[tuple[slice, Tensor]]:
        nonlocal together
        grid = windows.over(*x.shape[-2:])
        rows, columns = (grid.starts(length) for length in x.shape[-2:])
        weights = [grid.weight(length) for length in x.shape[-2:]]
        high, wide = map(len, weights)
        blend = (weights[0][:, None] * weights[1]).to(x)
        # The weights do not add up to one at the borders of the canvas, and in the last overlap.
        down, across = (
            covered(weight, starts).to(x)
            for weight, starts in zip(weights, (rows, columns), strict=True)
        )
        together = windows_at_once(x.device, together)
        places = list(product(rows, columns))
        position, top = 0, 0
        watch.walked(0, len(places))
        total = x[..., :0, :]  # weighted sum of the rows from `top` on
        while position < len(places):
            corners = places[position : position + together]
            crops = torch.cat([x[..., r : r + high, c : c + wide] for r, c in corners])
            try:
                outputs = predict(crops, t, corners)
            except (RuntimeError, MemoryError) as error:
                if together == 1 or not is_out_of_memory(error):
                    raise
                outputs = None  # retry outside of the block: the error still holds tensors
            if outputs is None:
                together //= 2
                continue
            lacking = corners[-1][0] + high - top - total.shape[-2]
            if lacking > 0:
                more = x.new_zeros(*x.shape[:-2], lacking, x.shape[-1])
                total = torch.cat([total, more], -2)
            for (r, c), output in zip(corners, outputs, strict=True):
                total[..., r - top : r - top + high, c : c + wide] += output * blend
            position += len(corners)
            watch.walked(position, len(places))
            end = places[position][0] if position < len(places) else x.shape[-2]
            if end > top:  # no later window touches these rows
                yield slice(top, end), total[..., : end - top, :] / down[top:end, None] / across
                total, top = total[..., end - top :, :], end

    return predict_rows


def covered(weight: Tensor, starts: list[int]) -> Tensor:
    """Sum the windows' weights along a canvas, (length,)."""
    total = torch.zeros(starts[-1] + len(weight))
    for start in starts:
        total[start : start + len(weight)] += weight
    return total


def windows_at_once(device: torch.device, wanted: int) -> int:
    """Return how many windows share a forward pass on a device."""
    return 1 if device.type == "cpu" else wanted


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on device or host: cuBLAS and the CPU raise a RuntimeError for it."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    messages = ("out of memory", "can't allocate memory", "ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(words in str(error) for words in messages)
