"""Print and screen: the arithmetic of ops.screen on many pictures at once."""

import math

import torch
from torch import Tensor

from degradations.device.canvas import Canvas, cached_arange, constant, straight_through
from degradations.ops.op import Params, Size
from degradations.ops.screen import ANGLES, screen


def banding(canvas: Canvas, params: list[Params], targets: list[Size]) -> Canvas:
    (top,) = canvas.numbers([[p["levels"] - 1] for p in params])
    exact = (canvas.rgb.detach().clamp(0, 1) * top).round_() / top
    return canvas.with_rgb(straight_through(exact, canvas.rgb))


def halftone(canvas: Canvas, params: list[Params], targets: list[Size]) -> Canvas:
    """The gradient passes as if there were no dots, whose mean tone is the picture's."""
    turns = [[math.radians(angle + p["angle"]) for angle in ANGLES] for p in params]
    numbers = canvas.numbers(
        [
            [
                p["strength"],
                p["period"],
                2 * math.pi / p["period"],
                *map(math.cos, t),
                *map(math.sin, t),
            ]
            for p, t in zip(params, turns, strict=True)
        ]
    )
    strength, period, unit = numbers[:3]
    cos, sin = torch.cat(numbers[3:6], 1), torch.cat(numbers[6:], 1)
    y, x = (cached_arange(n, unit.device) * unit for n in canvas.rgb.shape[2:])
    y = y.transpose(2, 3)
    wave = torch.cos(cos * x + sin * y) + torch.cos(cos * y - sin * x)
    value = canvas.rgb.detach().clamp(0, 1)
    over = value - _quantile(wave)
    room = torch.minimum(1 / period, torch.minimum(value, 1 - value)).clamp_(min=1e-6)
    dots = (0.5 + 0.5 * over / room).clamp_(0, 1)
    return canvas.with_rgb(straight_through(value + strength * (dots - value), canvas.rgb))


def scan_lines(canvas: Canvas, params: list[Params], targets: list[Size]) -> Canvas:
    numbers = canvas.numbers([[p["strength"], p["period"], p["phase"]] for p in params])
    strength, period, phase = numbers
    row = cached_arange(canvas.rgb.shape[2], phase.device)[:, None]
    gain = 1 - strength * (0.5 - 0.5 * torch.cos(2 * math.pi * (row / period + phase)))
    return canvas.with_rgb(canvas.rgb * gain)


def _quantile(wave: Tensor) -> Tensor:
    """The share of places where the dots' wave is lower, linearly between the known ones."""
    known = constant(tuple(screen().tolist()), wave.device)
    after = torch.searchsorted(known, wave).clamp_(1, len(known) - 1)
    low, high = known[after - 1], known[after]
    share = ((wave - low) / (high - low).clamp_(min=1e-12)).clamp_(0, 1)
    return (after - 1 + share) / (len(known) - 1)
