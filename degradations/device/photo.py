"""Colour and sensor: the arithmetic of ops.photo on many pictures at once."""

import torch
from torch import Tensor

from degradations.device.canvas import (
    Canvas,
    cached_arange,
    clip,
    gather,
    straight_through,
)
from degradations.device.noise import luma, normal
from degradations.ops.noise import BT601
from degradations.ops.op import Params, Size
from degradations.ops.photo import BLACK, PAD, white_balance

_TOP = 65535  # the raw file's levels


def fade(canvas: Canvas, params: list[Params], targets: list[Size]) -> Canvas:
    names = ("amount", "level", "desaturation")
    amount, level, desaturation = canvas.numbers([[p[name] for name in names] for p in params])
    pale = torch.lerp(canvas.rgb, canvas.rgb.mean(1, keepdim=True), desaturation)
    return canvas.with_rgb(torch.lerp(pale, level, amount))


def cast(canvas: Canvas, params: list[Params], targets: list[Size]) -> Canvas:
    gains = torch.cat(canvas.numbers([p["gains"] for p in params]), 1)
    return canvas.with_rgb(clip(canvas.rgb * gains))


def chroma_shift(canvas: Canvas, params: list[Params], targets: list[Size]) -> Canvas:
    grey = luma(canvas.rgb, BT601)
    colour = canvas.rgb - grey
    for axis, shift in enumerate(canvas.numbers([[p["y"], p["x"]] for p in params])):
        count = colour.shape[2 + axis]
        index = (cached_arange(count, colour.device) - shift[:, 0, 0]).clamp_(min=0)
        index = index.minimum(canvas.extent[axis] - 1)
        low = index.floor()
        share = (index - low)[:, None].unsqueeze(3 - axis)
        other = cached_arange(colour.shape[3 - axis], colour.device)[None]
        before, after = low.int(), (low.int() + 1).minimum(canvas.extent[axis] - 1)
        near, far = (gather(colour, *((at, other), (other, at))[axis]) for at in (before, after))
        colour = near * (1 - share) + far * share
    return canvas.with_rgb(clip(grey + colour))


def sensor_noise(canvas: Canvas, params: list[Params], targets: list[Size]) -> Canvas:
    """The gradient passes as if the sensor were silent and saw every colour everywhere."""
    quiet = canvas.with_rgb(canvas.rgb.detach().clamp(0, 1))
    numbers = canvas.numbers([[p["shot"], p["read"], *white_balance(p)] for p in params])
    shot, read, gains = *numbers[:2], torch.cat(numbers[2:], 1)
    raw = _mosaic(to_linear(quiet.mirrored(PAD)) / gains)
    raw = raw + normal(canvas, params, PAD) * (shot * raw + read).sqrt_()
    code = ((raw + BLACK) / (1 + BLACK)).clamp_(0, 1).mul_(_TOP).round_()
    linear = _demosaiced(code) * ((1 + BLACK) / _TOP) - BLACK
    height, width = canvas.rgb.shape[2:]
    linear = linear[..., PAD : PAD + height, PAD : PAD + width]
    return canvas.with_rgb(straight_through(from_linear((linear * gains).clamp_(0, 1)), canvas.rgb))


def to_linear(rgb: Tensor) -> Tensor:
    """sRGB (IEC 61966-2-1) -> linear light, both [0, 1]."""
    return torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def from_linear(rgb: Tensor) -> Tensor:
    """The inverse of to_linear."""
    return torch.where(rgb <= 0.0031308, rgb * 12.92, 1.055 * rgb ** (1 / 2.4) - 0.055)


def _sites(planes: Tensor) -> tuple[Tensor, Tensor]:
    """Boolean (H, 1) even rows and (W,) even columns of an RGGB mosaic: red where both are."""
    rows, columns = (cached_arange(n, planes.device) % 2 == 0 for n in planes.shape[2:])
    return rows[:, None], columns


def _mosaic(rgb: Tensor) -> Tensor:
    """(n, 3, H, W) -> (n, 1, H, W)"""
    red, green, blue = rgb.split(1, 1)
    rows, columns = _sites(rgb)
    return torch.where(rows, torch.where(columns, red, green), torch.where(columns, green, blue))


def _demosaiced(code: Tensor) -> Tensor:
    """Whole numbers (n, 1, H, W) -> (n, 3, H, W) as cv2.COLOR_BayerRGGB2RGB_EA, but for the rim.

    Green follows the axis along which its neighbours differ less; the rest are means of the
    neighbours of that colour.
    """
    up, down = code.roll(1, 2), code.roll(-1, 2)
    left, right = code.roll(1, 3), code.roll(-1, 3)
    upright, level = ((up + down + 1) / 2).floor_(), ((left + right + 1) / 2).floor_()
    across = up.roll(1, 3) + up.roll(-1, 3) + down.roll(1, 3) + down.roll(-1, 3)
    diagonal = (across / 4).floor_()
    between = torch.where((left - right).abs() > (up - down).abs(), upright, level)
    rows, columns = _sites(code)
    red = torch.where(
        rows, torch.where(columns, code, level), torch.where(columns, upright, diagonal)
    )
    blue = torch.where(
        rows, torch.where(columns, diagonal, upright), torch.where(columns, level, code)
    )
    return torch.cat([red, torch.where(rows == columns, between, code), blue], 1)
