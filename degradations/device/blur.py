"""Blur: kernels of every shape built in one go, each picture mirrored at its own edge."""

import math

import numpy as np
import torch
from scipy.fft import next_fast_len
from torch import Tensor
from torch.nn import functional as F

from degradations import kernels
from degradations.device.canvas import (
    Canvas,
    clipped,
    counting,
    products,
    quantised,
    through,
    type_of_sums,
    upload,
)
from degradations.kernels import KAISER_BETA, MIN_SIGMA, TAIL
from degradations.ops.op import Params, Size

_GAUSSIAN, _PLATEAU, _SINC = range(3)


def apply(canvas: Canvas, params: list[Params], target: Size) -> Canvas:
    """blur, sinc, motion_blur and defocus, each its own."""
    stack = _kernels(params, canvas.rgb.device)
    padded = canvas.mirrored(stack.shape[-1] // 2)
    return canvas.with_rgb(correlate(padded, stack))


def sharpen(canvas: Canvas, params: list[Params], target: Size) -> Canvas:
    soft = _softened(canvas, [(2 * math.ceil(3 * p["radius"]) + 1, p["radius"]) for p in params])
    (amount,) = canvas.numbers([[p["amount"]] for p in params])
    return canvas.with_rgb(clipped(canvas.rgb + amount * (canvas.rgb - soft)))


def sharpen_target(rgb: Tensor) -> Tensor:
    """As degradations.sharpen: float (B, 3, H, W) in [0, 1] -> the same in steps of 1 / 255."""
    sizes = np.full((len(rgb), 2), rgb.shape[2:])
    taps = [(51, 8.0)]  # one matrix serves all of them
    levels = rgb * 255
    residual = levels - _softened(Canvas(levels, sizes), taps)
    mask = _softened(Canvas((residual.detach().abs() > 10).float(), sizes), taps)
    sharp = levels + 0.5 * residual
    sharp = through(sharp.detach().clamp(0, 255), sharp)
    return quantised((levels + mask * (sharp - levels)) / 255) / 255


def _kernels(params: list[Params], device: torch.device) -> Tensor:
    """float64 (n, size, size) of the largest size; the others stand in the middle of zeros."""
    paths = {i: _path(p) for i, p in enumerate(params) if p["kind"] in ("motion_blur", "defocus")}
    sizes = [len(paths[i]) if i in paths else p["size"] for i, p in enumerate(params)]
    axis = torch.arange(max(sizes), device=device, dtype=torch.float64) - max(sizes) // 2
    table = upload(np.array([_numbers(p) for p in params]).T[..., None, None], device)
    formula, size, along, across, cos, sin, beta, cutoff, tail = table.unbind(0)
    x, y = axis, axis[:, None]
    q = ((cos * x + sin * y) / along) ** 2 + ((cos * y - sin * x) / across) ** 2
    powered = q**beta
    kernel = torch.where(formula == _PLATEAU, 1 / (1 + powered), torch.exp(-0.5 * powered))
    if any(p["kind"] == "sinc" for p in params):
        kernel = torch.where(formula == _SINC, _sinc(torch.hypot(x, y), size, cutoff), kernel)
    ring = torch.maximum(x.abs(), y.abs())
    kernel = torch.where(ring <= (size - 1) / 2, kernel, 0)
    kernel = torch.where(ring <= _reach(kernel, ring, tail), kernel, 0)
    kernel = kernel / kernel.sum((1, 2), keepdim=True)
    if paths:
        drawn = np.zeros((len(params), max(sizes), max(sizes)))
        for i, path in paths.items():
            rest = (max(sizes) - len(path)) // 2
            drawn[i] = np.pad(path, rest)
        is_drawn = upload(np.array([i in paths for i in range(len(params))])[:, None, None], device)
        kernel = torch.where(is_drawn, upload(drawn, device), kernel)
    return kernel


def _path(params: Params) -> np.ndarray:
    if params["kind"] == "defocus":
        return kernels.disc(params["radius"])
    return kernels.motion(params["length"], params["angle"], params["bend"])


def _numbers(params: Params) -> list[float]:
    """formula, size, sigma along and across, cos, sin, beta, cutoff, share to trim (-1: none)"""
    if params["kind"] == "sinc":
        return [_SINC, params["size"], 1, 1, 1, 0, 1, params["cutoff"], -1]
    if params["kind"] != "blur":
        return [_GAUSSIAN, 1, 1, 1, 1, 0, 1, 1, -1]
    shape, angle = params["shape"], params["angle"]
    along, across = (max(sigma, MIN_SIGMA) for sigma in params["sigma"])
    formula = _PLATEAU if shape.startswith("plateau") else _GAUSSIAN
    tail = -1 if shape == "isotropic" else TAIL
    turn = math.cos(angle), math.sin(angle)
    return [formula, params["size"], along, across, *turn, params.get("beta", 1.0), 1, tail]


def _sinc(r: Tensor, size: Tensor, cutoff: Tensor) -> Tensor:
    """As kernels.sinc, before its sum is made 1."""
    safe = torch.where(r > 0, r, 1.0)
    ideal = cutoff * torch.special.bessel_j1(cutoff * safe) / (2 * math.pi * safe)
    ideal = torch.where(r > 0, ideal, cutoff**2 / (4 * math.pi))
    window = torch.special.i0(KAISER_BETA * (1 - (2 * r / size) ** 2).clamp_(min=0).sqrt_())
    return ideal * window * (2 * r < size)


def _reach(kernel: Tensor, ring: Tensor, tail: Tensor) -> Tensor:
    """(n, 1, 1): how many rings kernels.trimmed leaves."""
    rings = counting(kernel.shape[-1] // 2 + 1, kernel.device)[1:, None, None]
    within = kernel.abs().flatten(1) @ (ring <= rings).double().flatten(1).t()
    return 1 + (within < (1 - tail[:, 0]) * within[:, -1:]).sum(1)[:, None, None]


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
    offset = counting(2 * reach + 1, canvas.rgb.device) - reach
    weight = torch.exp(-0.5 * (offset / sigma) ** 2) * (offset.abs() <= radius)
    weight = (weight / weight.sum(1, keepdim=True))[:, None].to(type_of_sums(offset.device))
    matrices = []
    for axis, count in enumerate(canvas.rgb.shape[2:]):
        middle = canvas.clamped(count, axis)[: len(taps), :, None]
        place = canvas.reflected(middle + offset, axis)
        matrix = weight.new_zeros(len(taps), count, count)
        matrices.append(matrix.scatter_add_(2, place.long(), weight.expand(place.shape)))
    return products(canvas.rgb, *matrices)
