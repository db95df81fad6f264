"""Blur: kernels of every shape built in one go, each picture mirrored at its own edge."""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from scipy.fft import next_fast_len
from torch import Tensor
from torch.nn import functional as F

from degradations import kernels
from degradations.device.canvas import (
    Canvas,
    cached_arange,
    clip,
    constant,
    exact_float32,
    multiply,
    quantise,
    straight_through,
    type_of_sums,
    upload,
)
from degradations.kernels import KAISER_BETA, MIN_SIGMA, TAIL
from degradations.ops.blur import beta_of
from degradations.ops.op import Params, Size

_GAUSSIAN, _PLATEAU, _SINC = range(3)


def apply(canvas: Canvas, params: list[Params], targets: list[Size]) -> Canvas:
    """blur, sinc, motion_blur and defocus, each its own."""
    stack = _kernels(params, canvas.rgb.device)
    padded = canvas.mirrored(stack.shape[-1] // 2)
    return canvas.with_rgb(correlate(padded, stack))


def sharpen(canvas: Canvas, params: list[Params], targets: list[Size]) -> Canvas:
    soft = _softened(canvas, [(2 * math.ceil(3 * p["radius"]) + 1, p["radius"]) for p in params])
    (amount,) = canvas.numbers([[p["amount"]] for p in params])
    return canvas.with_rgb(clip(canvas.rgb + amount * (canvas.rgb - soft)))


def sharpen_target(rgb: Tensor) -> Tensor:
    """As degradations.sharpen: uint8 or [0, 1] (B, 3, H, W) -> float in steps of 1 / 255."""
    with exact_float32():
        return _sharpened(rgb / 255 if rgb.dtype == torch.uint8 else rgb)


def _sharpened(rgb: Tensor) -> Tensor:
    sizes = np.full((len(rgb), 2), rgb.shape[2:])
    taps = [(51, 8.0)]  # one matrix serves all of them
    levels = rgb * 255
    residual = levels - _softened(Canvas(levels, sizes), taps)
    mask = _softened(Canvas((residual.detach().abs() > 10).float(), sizes), taps)
    sharp = levels + 0.5 * residual
    sharp = straight_through(sharp.detach().clamp(0, 255), sharp)
    return quantise((levels + mask * (sharp - levels)) / 255) / 255


def _kernels(params: list[Params], device: torch.device) -> Tensor:
    """float64 (n, size, size) of the largest size; the others stand in the middle of zeros."""
    paths = {i: _path(p) for i, p in enumerate(params) if p["kind"] in ("motion_blur", "defocus")}
    sizes = [len(paths[i]) if i in paths else p["size"] for i, p in enumerate(params)]
    grid = _grid(max(sizes), device)
    numbers = np.array([_numbers(p) for p in params]).T
    table = upload(numbers[..., None, None], device)
    formula, half, xx, xy, yy, beta, cutoff, slope, kept = table.unbind(0)
    kernel = None
    if (numbers[0] != _SINC).any():
        q = torch.addcmul(torch.addcmul(xx * grid.xx, xy, grid.xy), yy, grid.yy).clamp_(min=0)
        q = q**beta if (numbers[5] != 1).any() else q
        kernel = torch.exp(-0.5 * q)
        if (numbers[0] == _PLATEAU).any():
            kernel = torch.where(formula == _PLATEAU, (1 + q).reciprocal_(), kernel)
    if (numbers[0] == _SINC).any():
        sinc = _sinc(grid, half, cutoff, slope)
        kernel = sinc if kernel is None else torch.where(formula == _SINC, sinc, kernel)
    assert kernel is not None
    kernel = kernel * (grid.ring <= half)
    if (numbers[8] < 1).any():
        kernel *= grid.ring_before <= _more_rings(kernel, grid.within, kept)
    kernel /= kernel.sum((1, 2), keepdim=True)
    if paths:
        drawn = np.zeros((len(params), max(sizes), max(sizes)))
        for i, path in paths.items():
            drawn[i] = np.pad(path, (max(sizes) - len(path)) // 2)
        is_drawn = upload(np.array([i in paths for i in range(len(params))])[:, None, None], device)
        kernel = torch.where(is_drawn, upload(drawn, device), kernel)
    return kernel


class _Grid(NamedTuple):
    """What the formulas of kernels of one size share, float64 (size, size) each."""

    xx: Tensor
    xy: Tensor
    yy: Tensor
    r: Tensor
    """The distance from the middle, where the formulas are at their limits already."""
    r_before: Tensor
    """Less a half."""
    squares: Tensor
    """4 r^2."""
    ring: Tensor
    """Square rings, from 0 in the middle."""
    ring_before: Tensor
    """Less one."""
    within: Tensor
    """(size^2, rings - 1): 1 within that ring."""
    most: Tensor
    """KAISER_BETA^2."""


@lru_cache(64)
@torch.inference_mode(False)
def _grid(size: int, device: torch.device) -> _Grid:
    axis = torch.arange(size, device=device, dtype=torch.float64) - size // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    r, ring = torch.hypot(x, y), torch.maximum(x.abs(), y.abs())
    rings = cached_arange(size // 2, device, first=1)
    within = (ring.reshape(-1, 1) <= rings).double()
    most = constant((KAISER_BETA**2,), device, torch.float64)
    squares = 4 * (x * x + y * y)
    return _Grid(
        *(x * x, x * y, y * y, r.clamp(min=1e-6), r - 0.5),
        *(squares, ring, ring - 1, within, most),
    )


def _path(params: Params) -> np.ndarray:
    if params["kind"] == "defocus":
        return kernels.disc(params["radius"])
    return kernels.motion(params["length"], params["angle"], params["bend"])


def _numbers(params: Params) -> list[float]:
    """formula, half the size, q of x x, x y and y y, beta, cutoff, slope of the window, share kept

    The share of the weight that trimming keeps; 2: nothing is trimmed.
    """
    if params["kind"] == "sinc":
        size = params["size"]
        return [_SINC, (size - 1) / 2, 0, 0, 0, 1, params["cutoff"], (KAISER_BETA / size) ** 2, 2]
    if params["kind"] != "blur":
        return [_GAUSSIAN, 0, 1, 0, 1, 1, 1, 0, 2]
    shape, (cos, sin) = params["shape"], (math.cos(params["angle"]), math.sin(params["angle"]))
    along, across = (max(sigma, MIN_SIGMA) ** -2 for sigma in params["sigma"])
    xx, yy = cos**2 * along + sin**2 * across, sin**2 * along + cos**2 * across
    squares = xx, 2 * cos * sin * (along - across), yy
    formula = _PLATEAU if shape.startswith("plateau") else _GAUSSIAN
    kept = 2 if shape == "isotropic" else 1 - TAIL
    return [formula, (params["size"] - 1) / 2, *squares, beta_of(params), 1, 0, kept]


def _sinc(grid: _Grid, half: Tensor, cutoff: Tensor, slope: Tensor) -> Tensor:
    """As kernels.sinc, before its sum is made 1."""
    ideal = torch.special.bessel_j1(cutoff * grid.r) / grid.r
    inner = torch.addcmul(grid.most, grid.squares, slope, value=-1).clamp_(min=0).sqrt_()
    return ideal * torch.special.i0(inner) * (grid.r_before < half)


def _more_rings(kernel: Tensor, within: Tensor, kept: Tensor) -> Tensor:
    """(n, 1, 1): how many rings but the middle and the one round it kernels.trim leaves."""
    sums = kernel.abs().flatten(1) @ within
    return (sums < kept[:, 0] * sums[:, -1:]).sum(1)[:, None, None]


def correlate(padded: Tensor, stack: Tensor) -> Tensor:
    """Pictures (n, c, H + size - 1, W + size - 1) by kernels (n, size, size) -> (n, c, H, W)."""
    stack = stack.to(padded.dtype)
    # a CPU's direct sums are the same on any canvas; on a GPU the transform is many times faster
    return (direct if padded.device.type == "cpu" else by_transform)(padded, stack)


def direct(padded: Tensor, stack: Tensor) -> Tensor:
    count, channels, height, width = padded.shape
    weight = stack[:, None, None].expand(-1, channels, -1, -1, -1).flatten(0, 1)
    flat = padded.reshape(1, count * channels, height, width)
    return F.conv2d(flat, weight, groups=count * channels).unflatten(1, (count, channels))[0]


def by_transform(padded: Tensor, stack: Tensor) -> Tensor:
    height, width = padded.shape[2:]
    frame = next_fast_len(height, real=True), next_fast_len(width, real=True)
    spectrum = torch.fft.rfft2(padded, frame) * torch.fft.rfft2(stack[:, None], frame).conj()
    size = stack.shape[-1]
    return torch.fft.irfft2(spectrum, frame)[..., : height - size + 1, : width - size + 1]


def _softened(canvas: Canvas, taps: list[tuple[int, float]]) -> Tensor:
    """Under isotropic Gaussians of (taps, sigma), one a picture or one for pictures of one size."""
    table = upload(np.array(taps, np.float64).T[..., None], canvas.rgb.device)
    radius, sigma = table[0] // 2, table[1].clamp(min=MIN_SIGMA)
    reach = max(size for size, _ in taps) // 2
    offset = cached_arange(2 * reach + 1, canvas.rgb.device) - reach
    weight = torch.exp(-0.5 * (offset / sigma) ** 2) * (offset.abs() <= radius)
    weight = (weight / weight.sum(1, keepdim=True))[:, None].to(type_of_sums(offset.device))
    matrices = []
    for axis, count in enumerate(canvas.rgb.shape[2:]):
        middle = canvas.clamped(count, axis)[: len(taps), :, None]
        place = canvas.reflected(middle + offset, axis)
        matrix = weight.new_zeros(len(taps), count, count)
        matrices.append(matrix.scatter_add_(2, place.long(), weight.expand(place.shape)))
    return multiply(canvas.rgb, *matrices)
