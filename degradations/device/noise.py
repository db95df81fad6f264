"""The noise of ops.noise: the same fields, from the same hash and the same tables."""

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from degradations.device.blur import correlate
from degradations.device.canvas import Canvas, cached_arange, clip, constant, upload
from degradations.kernels import gaussian_1d
from degradations.ops.noise import (
    BT601,
    LUMA,
    STRATA_BITS,
    WHITE,
    normal_table,
    poisson_table,
)
from degradations.ops.op import Params, Size
from degradations.rng import MULTIPLIERS, field_keys

_NORMAL = 1 << 16  # entries of the table of normal deviates; those of Poisson residues follow


def apply(canvas: Canvas, params: list[Params], targets: list[Size]) -> Canvas:
    """gaussian_noise, poisson_noise and speckle, each its own; noise has no gradient of its own."""
    grey = [p["grey"] for p in params]
    index = words(canvas, params, [1 if alike else 3 for alike in grey])
    numbers = canvas.numbers([_numbers(p) for p in params])
    constant_share, relative_share, is_grey, is_poisson = numbers
    rgb = canvas.rgb.detach()
    if any(p["kind"] == "poisson_noise" for p in params):
        base = torch.where(is_grey > 0, luma(rgb, LUMA), rgb)
        level = (base.clamp(0, 1) * 255).round_().int()
        residue = _NORMAL + ((level << STRATA_BITS) | (index >> (16 - STRATA_BITS)))
        index = torch.where(is_poisson > 0, residue, index)
    noise = look_up(_tables(rgb.device), index)
    share = constant_share
    if any(p["kind"] == "speckle" for p in params):
        share = torch.addcmul(constant_share, relative_share, canvas.rgb)
    return canvas.with_rgb(clip(canvas.rgb + noise * share))


def film_grain(canvas: Canvas, params: list[Params], targets: list[Size]) -> Canvas:
    stack = [_grain_kernel(p["size"]) for p in params]
    radii = [len(kernel) // 2 for kernel in stack]
    reach = max(radii)
    channels = [1 if p["grey"] else 3 for p in params]
    index = words(canvas, params, channels, radii, reach)
    padded = [np.pad(k, reach - radius) for k, radius in zip(stack, radii, strict=True)]
    white = look_up(_tables(canvas.rgb.device), index)
    grain = correlate(white, upload(np.stack(padded), white.device))
    is_grey, deviation = canvas.numbers([[p["grey"], p["sigma_levels"] / 255 * 2] for p in params])
    rgb = canvas.rgb.detach()
    value = torch.where(is_grey > 0, luma(rgb, BT601), rgb).clamp(0, 1)
    grain *= (value * (1 - value)).sqrt_() * deviation
    return canvas.with_rgb(clip(canvas.rgb + grain))


def normal(canvas: Canvas, params: list[Params], pad: int) -> Tensor:
    """One field (n, 1, H + 2 pad, W + 2 pad) of normal deviates a picture, of that size."""
    count = len(params)
    index = words(canvas, params, [1] * count, [pad] * count, pad)
    return look_up(_tables(canvas.rgb.device), index[:, :1])


def words(
    canvas: Canvas,
    params: list[Params],
    channels: list[int],
    pads: list[int] | None = None,
    reach: int = 0,
) -> Tensor:
    """The words of rng.words16, placed as the ops on the host place them.

    The field of a picture has its size plus its pad on each side, row by row, with the channel as
    the innermost axis. With one channel all three are alike. Values outside a field are arbitrary.

    Args:
        canvas: The pictures.
        params: Parameters of each picture's step, with its seed.
        channels: 1 or 3 for each picture.
        pads: Pixels added to each side of a picture's field; None: 0.
        reach: The largest pad.

    Returns:
        int32 (n, 3, H + 2 reach, W + 2 reach), values below 2^16.
    """
    own = np.array(pads or [0] * len(params))
    sizes = canvas.sizes + 2 * own[:, None]
    count = int((sizes.prod(1) * channels).max())
    flat = _hash_words([field_keys(p["seed"]) for p in params], count, canvas.rgb.device)
    steps, shift = sizes[:, 1] * channels, reach - own
    first = np.arange(len(params)) * flat.shape[1] - shift * (steps + channels)
    # (n, 3) in 32 bits where they suffice: channel, row and column each add their part
    each = first[:, None] + np.minimum(np.arange(3), np.array(channels)[:, None] - 1)
    kind = torch.int32 if flat.numel() < 1 << 30 else torch.int64
    table = upload(np.column_stack([each, steps, channels]), flat.device).to(kind)
    y, x = (cached_arange(n + 2 * reach, flat.device, kind) for n in canvas.rgb.shape[2:])
    corner = table[:, :3, None, None] + x * table[:, 4, None, None, None]
    place = corner + (y * table[:, 3, None])[:, None, :, None]
    return look_up(flat.view(-1), place.clamp_(0, flat.numel() - 1))


def luma(rgb: Tensor, weights: np.ndarray) -> Tensor:
    """(n, 3, H, W) -> (n, 1, H, W)"""
    shares = constant(tuple(weights.tolist()), rgb.device)[:, None, None]
    return (rgb * shares).sum(1, keepdim=True)


def look_up(table: Tensor, index: Tensor) -> Tensor:
    return table.index_select(0, index.reshape(-1)).view(index.shape)


def _numbers(params: Params) -> list[float]:
    """Share of the deviates that is constant, that is relative to the pixel; grey; Poisson."""
    kind, grey = params["kind"], params["grey"]
    if kind == "poisson_noise":
        return [params["scale"], 0, grey, 1]
    if kind == "speckle":
        return [0, params["sigma"], grey, 0]
    return [params["sigma_levels"] / 255, 0, grey, 0]


def _hash_words(keys: list[tuple[int, int]], count: int, device: torch.device) -> Tensor:
    """As rng.words16 for each pair of keys: int32 (n, count or one more)."""
    signed = np.array(keys, np.uint32).view(np.int32).T[..., None]
    before, within = upload(signed, device).unbind(0)
    first, second = (m - (1 << 32) if m >= 1 << 31 else m for m in MULTIPLIERS)
    pairs = -(-count // 2)
    # each batch has another size: few are kept, and cut
    x = cached_arange(1 << (pairs - 1).bit_length(), device, torch.int32)[:pairs] + before
    x ^= _shifted(x, 16)
    x *= first
    x ^= within
    x ^= _shifted(x, 15)
    x *= second
    x ^= _shifted(x, 16)
    return x.view(torch.int16).int().bitwise_and_(0xFFFF)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """int32 to the right, zeros coming in."""
    return (x >> bits).bitwise_and_((1 << (32 - bits)) - 1)


def _grain_kernel(size: float) -> np.ndarray:
    kernel = gaussian_1d(2 * math.ceil(3 * size) + 1, size)
    kernel = np.outer(kernel, kernel)
    return kernel / np.sqrt((kernel**2).sum())  # keeps the variance of white noise


@lru_cache(8)
@torch.inference_mode(False)
def _tables(device: torch.device) -> Tensor:
    return upload(np.concatenate([normal_table(), poisson_table(WHITE)]), device)
