"""JPEG in tensors, exact to libjpeg-turbo: the integer slow DCT and fancy chroma upsampling.

Every sum is an integer, or one divided by a power of two, that its float type holds exactly (below
2^24 in float32, below 2^53 in float64), so no device, batch or order of summation can change it.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from degradations.device.canvas import (
    Canvas,
    cached_arange,
    canvas_size,
    constant,
    exact_float32,
    gather,
    quantise,
    straight_through,
    upload,
)
from degradations.ops.jpeg import CHROMA_TABLE, LUMA_TABLE
from degradations.ops.op import Params, Size

FACTORS = {"4:4:4": (1, 1), "4:2:2": (1, 2), "4:2:0": (2, 2), "4:4:0": (2, 1)}  # (down, across)
# what libjpeg adds before it divides, in even and in odd places: while halving, while doubling
_BIAS = {"4:2:2": ((0, 1), (1, 2)), "4:2:0": ((1, 2), (8, 7)), "4:4:0": ((1, 1), (1, 2))}
# its colour conversion: integers in units of 2^-16
_UNIT = 2.0**-16
_TO_YCC = tuple(
    tuple(share * _UNIT for share in row)
    for row in ((19595, 38470, 7471), (-11059, -21709, 32768), (32768, -27439, -5329))
)
_TO_RGB = tuple(
    tuple(share * _UNIT for share in row) for row in ((0, 91881), (-22554, -46802), (116130, 0))
)
_OFFSETS = 0.5, 128 + 32767 * _UNIT, 128 + 32767 * _UNIT


def jpeg(rgb: Tensor, quality: int | Sequence[int], chroma: str = "4:2:0") -> Tensor:
    """Code and decode a batch as libjpeg-turbo does. Gradients pass as if nothing were quantised.

    Args:
        rgb: (B, 3, H, W) levels 0 to 255, uint8 or float.
        quality: 1 to 100, one for all or one a picture.
        chroma: 4:4:4, 4:2:2, 4:2:0 or 4:4:0.

    Returns:
        Levels of the shape and type of rgb.

    Raises:
        ValueError: If an argument is out of range.
    """
    if chroma not in FACTORS:
        raise ValueError(f"chroma {chroma!r} is none of {', '.join(FACTORS)}")
    if rgb.ndim != 4 or rgb.shape[1] != 3:
        raise ValueError(f"rgb must be (B, 3, H, W), not {tuple(rgb.shape)}")
    qualities = np.broadcast_to(np.array(quality), len(rgb))
    if not ((qualities >= 1) & (qualities <= 100)).all():
        raise ValueError(f"quality goes from 1 to 100, not {quality}")
    height, width = rgb.shape[2:]
    sizes = np.full((len(rgb), 2), (height, width))
    bottom, right = canvas_size(sizes)
    padding = (0, right - width, 0, bottom - height)
    levels = F.pad(rgb.float(), padding, mode="replicate")
    with exact_float32():
        coded = _coded(Canvas(levels, sizes), qualities, chroma)
    return coded[..., :height, :width].to(rgb.dtype)


def apply(canvas: Canvas, params: list[Params], targets: list[Size]) -> Canvas:
    """One chroma format for all of them."""
    qualities = np.array([p["quality"] for p in params])
    levels = canvas.with_rgb(quantise(canvas.replicated()))
    return canvas.with_rgb(_coded(levels, qualities, params[0]["chroma"]) / 255)


def quantisation(quality: np.ndarray) -> np.ndarray:
    """Qualities (n,) -> float64 (n, 2, 8, 8): libjpeg's tables of luma and chroma."""
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)[:, None, None, None]
    tables = (np.stack([LUMA_TABLE, CHROMA_TABLE]) * scale + 50) // 100
    return np.clip(tables, 1, 255).astype(np.float64)


def _coded(levels: Canvas, quality: np.ndarray, chroma: str) -> Tensor:
    """Levels (n, 3, H, W), H and W multiples of 16, edges replicated -> levels."""
    luma, colour = _ycc(levels.rgb.detach()).split((1, 2), 1)
    halves = FACTORS[chroma]
    ends = _ends(levels, halves) if chroma != "4:4:4" else None
    share = 1 / (halves[0] * halves[1])
    if ends is not None:
        colour = _halved(colour, halves)
        down = _alternating(_BIAS[chroma][0], share, colour.shape[3], colour.device)
        colour = torch.add(down, colour, alpha=share).floor_()
        if halves[0] == 2 and not levels.is_full():  # libjpeg repeats the last row of the halved
            rows = torch.minimum(_counting(colour, 2), ends[0])
            colour = gather(colour, rows, _counting(colour, 3))
    tables = quantisation(quality)
    tables = upload(np.stack([tables, tables * 4, tables * 8]), luma.device)
    luma, colour = _through_dct(luma, colour, tables)
    if ends is not None:
        colour = _doubled(colour, halves, ends)
        count = colour.shape[3] if halves[1] == 2 else colour.shape[2]
        up = _alternating(_BIAS[chroma][1], share**2, count, colour.device)
        up = up if halves[1] == 2 else up[:, None]
        colour = torch.add(up, colour, alpha=share**2).floor_()
    rgb = _rgb(luma, colour)
    return straight_through(rgb, _linear(levels, halves)) if levels.rgb.requires_grad else rgb


def _linear(levels: Canvas, halves: Size) -> Tensor:
    """The same without rounding, where only the chroma loses detail: what gradients follow."""
    if halves == (1, 1):
        return levels.rgb
    count, _, height, width = levels.rgb.shape
    flat = levels.rgb.reshape(count, 3, -1)
    colour = _matrix(_TO_YCC[1:], flat).view(count, 2, height, width)
    smooth = _doubled(_halved(colour, halves), halves, _ends(levels, halves))
    lost = smooth * (halves[0] * halves[1]) ** -3 - colour
    return levels.rgb + _matrix(_TO_RGB, lost.view(count, 2, -1)).view_as(levels.rgb)


def _ycc(rgb: Tensor) -> Tensor:
    flat = rgb.reshape(*rgb.shape[:2], -1)
    return _matrix(_TO_YCC, flat, _OFFSETS).floor_().view_as(rgb)


def _rgb(luma: Tensor, colour: Tensor) -> Tensor:
    flat = (colour - 128).reshape(*colour.shape[:2], -1)
    beside = _matrix(_TO_RGB, flat, (0.5, 0.5, 0.5)).floor_()
    return beside.view(len(luma), 3, *luma.shape[2:]).add_(luma).clamp_(0, 255)


def _matrix(
    rows: tuple[tuple[float, ...], ...], flat: Tensor, offsets: tuple[float, ...] = ()
) -> Tensor:
    """flat (n, c, pixels) by rows, plus offsets."""
    count, device = len(flat), flat.device
    matrix = constant(rows, device).expand(count, -1, -1)
    if not offsets:
        return matrix @ flat
    return torch.baddbmm(constant(offsets, device)[:, None], matrix, flat)


def _halved(colour: Tensor, halves: Size) -> Tensor:
    """Sums of the pixels that make one."""
    count, _, height, width = colour.shape
    down, across = halves
    return colour.reshape(count, 2, height // down, down, width // across, across).sum((3, 5))


def _doubled(colour: Tensor, halves: Size, ends: Tensor) -> Tensor:
    """Three times the near sample plus the next one, along each halved axis ("fancy")."""
    last, reach = ends[:2], ends[2]
    place, beside = _places(2 * max(colour.shape[2:]), colour.device)
    nearest = torch.minimum(place, last)  # for both axes
    beyond = torch.addcmul(place, beside, reach).clamp_(min=0).minimum(last)
    for axis in (0, 1):
        if halves[axis] == 1:
            continue
        count, other = 2 * colour.shape[2 + axis], _counting(colour, 3 - axis)
        both = nearest[axis, :, :count], beyond[axis, :, :count]
        near, far = (gather(colour, *((at, other), (other, at))[axis]) for at in both)
        colour = torch.add(far, near, alpha=3)
    return colour


@lru_cache(64)
@torch.inference_mode(False)
def _places(count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """For `count` new samples: the old sample of each, and the side of its middle, -1 or 1."""
    place = torch.arange(count, device=device)
    return place // 2, place % 2 * 2 - 1


def _ends(levels: Canvas, halves: Size) -> Tensor:
    """(3, n, 1): the last row and column of the halved planes, and how far samples reach."""
    last = -(-levels.sizes // halves) - 1
    # libjpeg only repeats samples where a row has one or two
    reach = (last[:, 1] > 1) | (halves[1] == 1)
    return upload(np.column_stack([last, reach]).T[..., None], levels.rgb.device)


def _counting(planes: Tensor, axis: int) -> Tensor:
    return cached_arange(planes.shape[axis], planes.device)[None]


@lru_cache(256)
@torch.inference_mode(False)
def _alternating(pair: tuple[int, int], share: float, count: int, device: torch.device) -> Tensor:
    return constant(pair, device).repeat(count // 2) * share


def _through_dct(luma: Tensor, colour: Tensor, tables: Tensor) -> tuple[Tensor, Tensor]:
    """Planes (n, 1, H, W) and (n, 2, h, w), quantised in blocks of 8 x 8, and back: 0 to 255."""
    count, _, height, width = luma.shape
    narrow = colour.shape[3] < width
    # one transform for both: Cb beside Cr is as wide as the luma, or they stand below each other
    beside = colour.transpose(1, 2) if narrow else colour
    planes = torch.cat([luma.reshape(count, -1, width), beside.reshape(count, -1, width)], 1)
    strips = height // 8, (planes.shape[1] - height) // 8
    parts = [tables[:, :, i, None].expand(-1, -1, n, -1, -1) for i, n in enumerate(strips)]
    tables = torch.cat(parts, 2)
    planes = _blocks(planes.double(), tables).float()
    luma, beside = planes[:, None, :height], planes[:, height:]
    if narrow:
        return luma, beside.reshape(count, -1, 2, width // 2).transpose(1, 2)
    return luma, beside.reshape(count, 2, -1, width)


def _blocks(planes: Tensor, tables: Tensor) -> Tensor:
    """float64 (n, rows, W), tables (3, n, rows / 8, 8, 8): 1, 4 and 8 times -> decoded."""
    shape, (table, table_4, table_8) = planes.shape, tables[:, :, :, :, None]
    half, level, middle, *matrices = _transforms(planes.device)
    ahead_across, ahead_down, back_down, back_across = matrices

    def down(matrix: Tensor, planes: Tensor) -> Tensor:
        strips = planes.view(-1, 8, shape[2])
        return torch.baddbmm(half, matrix.expand(len(strips), 8, 8), strips).floor_()

    rows = torch.addmm(level, planes.view(-1, 8), ahead_across).floor_()
    spectrum = down(ahead_down, rows).view(shape[0], -1, 8, shape[2] // 8, 8)
    nearest = torch.copysign(table_4, spectrum).add_(spectrum)  # the spectrum is scaled by 8
    spectrum = nearest.div_(table_8, rounding_mode="trunc").mul_(table)
    spread = down(back_down, spectrum)
    out = torch.addmm(middle, spread.view(-1, 8), back_across)
    return out.floor_().clamp_(0, 255).view(shape)


@lru_cache(8)
@torch.inference_mode(False)
def _transforms(device: torch.device) -> list[Tensor]:
    """What rounds, what also takes 128 off and adds it again; the DCT ahead and back, scaled."""
    ahead = constant(_transform(_forward), device, torch.float64)
    back = constant(_transform(_inverse), device, torch.float64)
    half = constant((0.5,), device, torch.float64)
    offsets = [half, half - 128 * ahead.sum(1) * 2**-11, half + 128]
    return [*offsets, ahead.t() * 2**-11, ahead * 2**-15, back * 2**-11, back.t() * 2**-18]


def _odd(a, b, c, d):
    """The odd half of both transforms (Loeffler, Ligtenberg and Moschytz 1989)."""
    e = (a + b + c + d) * _fixed(1.175875602)
    ad, bc = -(a + d) * _fixed(0.899976223), -(b + c) * _fixed(2.562915447)
    ac, bd = e - (a + c) * _fixed(1.961570560), e - (b + d) * _fixed(0.390180644)
    return (
        a * _fixed(0.298631336) + ad + ac,
        b * _fixed(2.053119869) + bc + bd,
        c * _fixed(3.072711026) + bc + ac,
        d * _fixed(1.501321110) + ad + bd,
    )


def _forward(x):
    """The 8-point DCT of ISO 10918-1 by integer steps, in units of 2^-13, times sqrt(8)."""
    s, m = [x[i] + x[7 - i] for i in range(4)], [x[i] - x[7 - i] for i in range(4)]
    outer, inner = s[0] - s[3], s[1] - s[2]
    shared = (outer + inner) * _fixed(0.541196100)
    seventh, fifth, third, first = _odd(m[3], m[2], m[1], m[0])
    total = s[0] + s[3], s[1] + s[2]
    second = shared + outer * _fixed(0.765366865)
    sixth = shared - inner * _fixed(1.847759065)
    nought, fourth = (total[0] + total[1]) << 13, (total[0] - total[1]) << 13
    return [nought, first, second, third, fourth, fifth, sixth, seventh]


def _inverse(c):
    shared = (c[2] + c[6]) * _fixed(0.541196100)
    inner, outer = shared - c[6] * _fixed(1.847759065), shared + c[2] * _fixed(0.765366865)
    plus, minus = (c[0] + c[4]) << 13, (c[0] - c[4]) << 13
    even = plus + outer, minus + inner, minus - inner, plus - outer
    odd = _odd(c[7], c[5], c[3], c[1])[::-1]
    return [e + o for e, o in zip(even, odd, strict=True)] + [
        e - o for e, o in zip(even[::-1], odd[::-1], strict=True)
    ]


def _fixed(value: float) -> int:
    return round(value * 8192)


@lru_cache
def _transform(steps: Callable[[list[int]], list[int]]) -> tuple[tuple[int, ...], ...]:
    """The integer steps as a matrix: column i is what they make of the i-th unit vector."""
    columns = [steps([int(i == j) for j in range(8)]) for i in range(8)]
    return tuple(zip(*columns, strict=True))
