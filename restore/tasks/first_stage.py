"""The first stage's answer to a picture of any size: by blocks, and what it would give whole."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from restore.diffusion.canvas import Strip
from restore.diffusion.restorer import STEP, Restorer
from restore.diffusion.tiling import blocks
from restore.errors import NonFiniteError
from restore.images import memmap
from restore.images.picture import Picture, bleed
from restore.images.resample import resize_alpha, resize_band

BLOCK = 512  # of the network's own pixels, on a side; a halo round them is computed twice
BAND = 256  # rows resized at a time
Size = tuple[int, int]  # (height, width)


def restored(low: Picture, size: Size, network: Restorer) -> Picture:
    """The picture at `size` as the first stage makes it, with its depth, alpha, profile and EXIF.

    The smallest of the network's scales that reaches `size` is taken, and what it gives resized to
    it; beyond the largest scale the rest is plain enlargement.
    Raises NonFiniteError if the network leaves the finite numbers.
    """
    wanted = max(new / old for new, old in zip(size, low.size, strict=True))
    scale = min((s for s in network.scales if s >= wanted), default=max(network.scales))
    made = enlarged(bleed(low), scale, network)
    if made.shape[:2] != size:
        made = resized(made, size)
    return replace(low, pixels=made, alpha=resize_alpha(low, size))


def enlarged(low: Picture, scale: int, network: Restorer) -> np.ndarray:
    """The pixels (scale * H, scale * W, 3) in the picture's depth.

    What does not fill the network's last pixels is continued by its mirror image.
    """
    device = next(network.parameters()).device
    top, unit = np.iinfo(low.pixels.dtype).max, STEP // scale  # input pixels a network's own
    cells = tuple(-(-side // unit) for side in low.size)
    pixels = memmap.empty((scale * low.size[0], scale * low.size[1], 3), low.pixels.dtype)
    for block in blocks(cells, cells, BLOCK, network.halo):
        down, across = (slice(s.start * unit, s.stop * unit) for s in block.outer)
        rgb = Strip(low, low.size, (down.start, down.stop))[..., across].to(device)
        rgb = network(rgb.contiguous(memory_format=torch.channels_last), scale)
        made = finite(block.trim(rgb.float(), STEP))
        if low.grey:
            made = made.mean(1, keepdim=True).expand_as(made)
        levels = (made[0].permute(1, 2, 0).clamp(0, 1) * top).round().cpu().numpy()
        rows, columns = (
            slice(s.start * STEP, min(s.stop * STEP, length))
            for s, length in zip(block.inner, pixels.shape, strict=False)
        )
        pixels[rows, columns] = levels[: rows.stop - rows.start, : columns.stop - columns.start]
        memmap.let_go()
    return pixels


def finite(rgb: Tensor) -> Tensor:
    """Raises NonFiniteError where it is not: cast to integers it would be black."""
    if not torch.isfinite(rgb).all():
        raise NonFiniteError("the first stage left the finite numbers")
    return rgb


def resized(pixels: np.ndarray, size: Size) -> np.ndarray:
    """Antialiased bicubic, by bands."""
    top = np.iinfo(pixels.dtype).max
    made = memmap.empty((*size, 3), pixels.dtype)
    for first in range(0, size[0], BAND):
        rows = first, min(first + BAND, size[0])
        made[slice(*rows)] = np.rint(resize_band(pixels, size, rows) * top)
        memmap.let_go()
    return made
