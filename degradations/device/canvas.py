"""Pictures of several sizes in one tensor, and how numbers reach a device without a wait."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

_STEP = 16  # pixels: an MCU of JPEG with 4:2:0


@dataclass(frozen=True)
class Canvas:
    """Pictures of several sizes in one tensor, each in its upper left corner."""

    rgb: Tensor
    """float32 (n, 3, H, W), nominal range [0, 1]; values outside a picture are finite but
    arbitrary.
    """
    sizes: np.ndarray
    """int64 (n, 2) on the host: the (height, width) of each picture."""

    @cached_property
    def extent(self) -> tuple[Tensor, Tensor]:
        """int64 (n, 1) heights and widths on the device."""
        both = upload(self.sizes, self.rgb.device)
        return both[:, :1], both[:, 1:]

    def is_full(self) -> bool:
        return bool((self.sizes == self.rgb.shape[2:]).all())

    def with_rgb(self, rgb: Tensor) -> "Canvas":
        """Other values in the same places."""
        return Canvas(rgb, self.sizes)

    def of(self, rows: list[int]) -> "Canvas":
        """Some of the pictures, on a canvas as small as they allow."""
        sizes = self.sizes[rows]
        height, width = (
            min(a, b) for a, b in zip(canvas_size(sizes), self.rgb.shape[2:], strict=True)
        )
        rgb = self.rgb[..., :height, :width]
        if rows != list(range(len(self.sizes))):
            rgb = rgb.index_select(0, upload(np.array(rows), rgb.device))
        return Canvas(rgb, sizes)

    def put(self, rows: list[int], part: "Canvas") -> "Canvas":
        """Put the pictures of `part` into the rows; this canvas must not be used afterwards."""
        if len(rows) == len(self.sizes):
            return part
        sizes = self.sizes.copy()
        sizes[rows] = part.sizes
        height, width = part.rgb.shape[2:]
        more = max(0, height - self.rgb.shape[2]), max(0, width - self.rgb.shape[3])
        if any(more):
            rgb = torch.nn.functional.pad(self.rgb, (0, more[1], 0, more[0]))
        else:  # autograd needs its own input as it was
            rgb = self.rgb.clone() if self.rgb.requires_grad else self.rgb
        rgb[..., :height, :width].index_copy_(0, upload(np.array(rows), rgb.device), part.rgb)
        return Canvas(rgb, sizes)

    def numbers(self, values: Sequence[Sequence[float]]) -> list[Tensor]:
        """Numbers of each picture, as columns on the device.

        Args:
            values: One row of numbers a picture.

        Returns:
            float32 (n, 1, 1, 1) for each column.
        """
        table = upload(np.array(values, np.float32), self.rgb.device)
        return [column[:, None, None, None] for column in table.unbind(1)]

    def replicated(self) -> Tensor:
        """The pictures with their edges repeated to the right and down, by multiples of 16."""
        height, width = canvas_size(self.sizes)
        if self.is_full() and self.rgb.shape[2:] == (height, width):
            return self.rgb
        last = upload(self.sizes.T[..., None] - 1, self.rgb.device)
        rows, columns = torch.minimum(cached_arange(max(height, width), self.rgb.device), last)
        return gather(self.rgb, rows[:, :height], columns[:, :width])

    def clamped(self, count: int, axis: int) -> Tensor:
        """int64 (n, count): 0 1 .. up to the last row (axis 0) or column, which repeats."""
        return torch.minimum(cached_arange(count, self.rgb.device), self.extent[axis] - 1)

    @cached_property
    def mirrors(self) -> tuple[Tensor, Tensor]:
        """int64 (2, n, 1) for rows and columns: how often mirrored places repeat, and where to."""
        last = self.sizes.T[..., None] - 1
        table = np.stack([2 * np.maximum(last, 1), np.maximum(2 * last, 1)])
        period, turn = upload(table, self.rgb.device)
        return period, turn

    def reflected(self, index: Tensor, axis: int) -> Tensor:
        """Mirror positions that lie outside a picture about the pixels of its edge.

        Args:
            index: (m, h, taps), where m is the number of pictures, or 1 if all are of one size.
            axis: 0 for rows, 1 for columns.
        """
        period, turn = (bound[axis, : len(index), :, None] for bound in self.mirrors)
        index = index.remainder(period)
        return torch.minimum(index, turn - index)

    def mirrored(self, radius: int) -> Tensor:
        """(n, 3, H + 2 radius, W + 2 radius), each mirrored about the pixels of its own edge."""
        height, width = (side + 2 * radius for side in self.rgb.shape[2:])
        period, turn = self.mirrors
        place = cached_arange(max(height, width), self.rgb.device, first=-radius).remainder(period)
        rows, columns = torch.minimum(place, turn - place)
        return gather(self.rgb, rows[:, :height], columns[:, :width])


def canvas_size(sizes: np.ndarray) -> tuple[int, int]:
    """The canvas (height, width) that holds all of these sizes."""
    height, width = -(-sizes.max(0) // _STEP) * _STEP
    return int(height), int(width)


def gather(planes: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(n, c, H, W) at (n, h) rows and (n, w) columns -> (n, c, h, w)."""
    count, channels = planes.shape[:2]
    picture = cached_arange(count, planes.device)[:, None, None, None]
    channel = cached_arange(channels, planes.device)[:, None, None]
    return planes[picture, channel, rows[:, None, :, None], columns[:, None, None, :]]


def multiply(rgb: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """(n, 3, H, W) by (n, h, H) and (n, w, W) -> (n, 3, h, w), in the cheaper order."""
    sums, down, across = rgb.to(down.dtype), down[:, None], across.mT
    (height, old_height), (old_width, width) = down.shape[2:], across.shape[1:]
    if height * old_width < old_height * width:
        return _rounded(_times(down @ sums, across), rgb.dtype)
    return _rounded(down @ _times(sums, across), rgb.dtype)


def _rounded(sums: Tensor, dtype: torch.dtype) -> Tensor:
    """To float32; on a CPU first to steps of 2^-40, which hide in what order was added.

    Levels of 8 bits often meet just between two float32, where the last bit of a sum decides.
    """
    if sums.dtype == torch.float64:
        sums = sums.add_(1.5 * 2**12).sub_(1.5 * 2**12)
    return sums.to(dtype)


def _times(planes: Tensor, across: Tensor) -> Tensor:
    """(n, 3, H, W) by (n or 1, W, w)"""
    if (
        planes.device.type == "cpu"
    ):  # whose sums then go in one order, whatever the batch and canvas
        return planes @ across[:, None]
    rows = planes.reshape(
        len(planes), -1, planes.shape[3]
    )  # no copy of the matrix for each channel
    return torch.bmm(rows, across.expand(len(rows), -1, -1)).unflatten(1, planes.shape[1:3])


def type_of_sums(device: torch.device) -> torch.dtype:
    """float64 on a CPU: rounding then hides in what order its library adds."""
    return torch.float64 if device.type == "cpu" else torch.float32


@lru_cache(512)
@torch.inference_mode(False)  # kept for batches that have gradients as well
def cached_arange(
    count: int, device: torch.device, dtype: torch.dtype = torch.int64, first: int = 0
) -> Tensor:
    """`count` numbers: first, first + 1 ..; not to be written to."""
    return torch.arange(first, first + count, device=device, dtype=dtype)


def upload(values: np.ndarray, device: torch.device) -> Tensor:
    """To the device, without waiting for it."""
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


@lru_cache(256)
@torch.inference_mode(False)
def constant(values: tuple, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """The same numbers for every batch, uploaded once."""
    return upload(torch.tensor(values, dtype=dtype).numpy(), device)


class _Through(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, exact: Tensor, smooth: Tensor) -> Tensor:
        return exact.view_as(exact)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:  # pyright: ignore
        return None, gradient


def straight_through(exact: Tensor, smooth: Tensor) -> Tensor:
    """The values of `exact` with the gradient of `smooth`: the straight-through estimator.

    Bengio et al. 2013, arXiv:1308.3432.
    """
    return _Through.apply(exact.detach(), smooth) if smooth.requires_grad else exact


def clip(rgb: Tensor) -> Tensor:
    return straight_through(rgb.detach().clamp(0, 1), rgb)


def quantise(rgb: Tensor) -> Tensor:
    """[0, 1] -> float32 levels 0 to 255, clipped and rounded."""
    return straight_through((rgb.detach() * 255).round_().clamp_(0, 255), rgb * 255)


class _Precision:
    """torch's precision of float32, which all threads share.

    Attributes:
        blocks: How many blocks of `exact_float32` run now.
        outside: What was set before the first of them.
    """

    def __init__(self) -> None:
        self.lock, self.blocks = threading.Lock(), 0
        self.outside: list[str] = []

    def enter(self) -> None:
        with self.lock:
            self.blocks += 1
            if self.blocks == 1:
                self.outside = [backend.fp32_precision for backend in _backends()]
                for backend in _backends():
                    backend.fp32_precision = "ieee"

    def leave(self) -> None:
        with self.lock:
            self.blocks -= 1
            if self.blocks == 0:
                for backend, precision in zip(_backends(), self.outside, strict=True):
                    backend.fp32_precision = precision


def _backends() -> tuple[Any, ...]:
    return torch.backends.cuda.matmul, torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv


_precision = _Precision()


@contextmanager
def exact_float32() -> Iterator[None]:
    """Products of float32 without TF32, bfloat16 or autocast, whatever is set outside.

    torch's precision holds for the whole process, so other threads compute exactly, too, until the
    last of the blocks that run at once ends, which sets what was before the first.
    """
    _precision.enter()
    try:
        with torch.autocast("cuda", enabled=False), torch.autocast("cpu", enabled=False):
            yield
    finally:
        _precision.leave()
