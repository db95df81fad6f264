"""The first stage's answer to a picture of any size: by blocks, and what it would give whole."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from restore.diffusion import watch
from restore.diffusion.restorer import SCALE, FirstStage, Fusion, Restorer
from restore.diffusion.sampling import OnStep, ignore
from restore.diffusion.strips import Strip
from restore.diffusion.tiling import Block, blocks
from restore.errors import NonFiniteError
from restore.images import memmap
from restore.images.picture import Picture, bleed
from restore.images.resample import resize_alpha, resize_band
from restore.tasks.colour import unfaded

BLOCK = 512  # pixels of the input, on a side; a halo round them is computed twice
BAND = 256  # rows resized at a time
NOISE = 4.0, 6.0  # levels: up to the first a picture is clean, from the second it is noisy
REACH = 2  # below this scale the input is made smaller first
Size = tuple[int, int]  # (height, width)


def restored(
    low: Picture,
    size: Size,
    stage: FirstStage,
    fidelity: float,
    on_step: OnStep = ignore,
    unfade: float = 0.0,
) -> Picture:
    """The picture at `size` as the first stage makes it, with its depth, alpha, profile and EXIF.

    The network enlarges by 4 and what it gives is resized. What is to be less than twice as large
    is made smaller first, so that it is worked on at no more than twice its final size; the fusion
    then gives back the detail that this lost, as far as the picture has no noise beside it.
    on_step  is told of every block of the enlargement: (done, of, its rgb).
    unfade   share of the fading that is undone where such a picture is noisy, as old prints are.
    Raises NonFiniteError if a network leaves the finite numbers.
    """
    shown, network = bleed(low), stage.at(fidelity)
    scale = max(new / old for new, old in zip(size, low.size, strict=True))
    seen = shown
    if scale < REACH:
        smaller = tuple(max(1, round(side / REACH)) for side in size)
        seen = replace(shown, pixels=resized(shown.pixels, smaller))
    pixels = enlarged(seen, network, on_step)
    if pixels.shape[:2] != size:
        pixels = resized(pixels, size)
    made = replace(low, pixels=pixels, alpha=resize_alpha(low, size))
    if scale >= REACH:
        return made
    noisy = float(np.interp(noise(shown, pixels), NOISE, (0, 1)))
    if stage.fusion is not None and noisy < 1:
        made = replace(made, pixels=fused(shown, pixels, stage.fusion, 1 - noisy))
    return unfaded(made, noisy * unfade)


def enlarged(low: Picture, network: Restorer, on_step: OnStep = ignore) -> np.ndarray:
    """The pixels (4 H, 4 W, 3) in the picture's depth."""
    device = next(network.parameters()).device

    def make(block: Block) -> Tensor:
        rows, columns = block.outer
        rgb = Strip(low, low.size, (rows.start, rows.stop))[..., columns].to(device)
        return network(rgb.contiguous(memory_format=torch.channels_last))

    return by_blocks(low, SCALE, network.halo, make, on_step)


def fused(low: Picture, pixels: np.ndarray, network: Fusion, share: float = 1.0) -> np.ndarray:
    """Restored pixels (H, W, 3) with what the input, resized to them, adds.

    An odd last row or column is mirrored: the network works on squares of two.
    share  of it: strong noise comes back with the detail.
    """
    device = next(network.parameters()).device
    size = pixels.shape[:2]
    made = replace(low, pixels=pixels, alpha=None)

    def make(block: Block) -> Tensor:
        rows, columns = (slice(s.start, s.stop + (s.stop - s.start) % 2) for s in block.outer)
        both = [Strip(one, size, (rows.start, rows.stop))[..., columns] for one in (low, made)]
        both = [rgb.to(device).contiguous(memory_format=torch.channels_last) for rgb in both]
        tall, wide = (s.stop - s.start for s in block.outer)
        return torch.lerp(both[1], network(*both), share)[..., :tall, :wide]

    return by_blocks(made, 1, network.halo, make)


def noise(low: Picture, pixels: np.ndarray) -> float:
    """How much the input, resized, differs from the restored pixels where that is flattest, levels.

    The deviation in blocks of 8 that a twentieth of all lie below: of the picture as a whole, so
    that one answer holds for all windows.
    """
    made, size, found = replace(low, pixels=pixels, alpha=None), pixels.shape[:2], []
    across = slice(0, size[1] // 8 * 8)
    for first in range(0, size[0] - 7, BAND):
        rows = first, first + min(BAND, (size[0] - first) // 8 * 8)
        one, other = (Strip(which, size, rows)[..., across] for which in (low, made))
        gap = (one - other).mean(1, keepdim=True) * 255
        found.append(F.pixel_unshuffle(gap, 8).std(1).flatten())
    deviations = torch.cat(found).numpy() if found and across.stop else np.zeros(1)
    return float(np.quantile(deviations, 0.05))


def by_blocks(
    like: Picture,
    scale: int,
    halo: int,
    make: Callable[[Block], Tensor],
    on_step: OnStep = ignore,
) -> np.ndarray:
    """What `make` gives of every block, as pixels (scale * H, scale * W, 3) in the same depth."""
    top = np.iinfo(like.pixels.dtype).max
    pixels = memmap.empty((scale * like.size[0], scale * like.size[1], 3), like.pixels.dtype)
    cuts = [*blocks(like.size, like.size, BLOCK, halo)]
    for done, block in enumerate(watch.over(cuts, "enlarge"), 1):
        made = block.trim(make(block).float(), scale)
        if not torch.isfinite(made).all():  # cast to integers it would be black
            raise NonFiniteError("the first stage left the finite numbers")
        if like.grey:
            made = made.mean(1, keepdim=True).expand_as(made)
        levels = (made[0].permute(1, 2, 0).clamp(0, 1) * top).round().cpu().numpy()
        rows, columns = (slice(s.start * scale, s.stop * scale) for s in block.inner)
        pixels[rows, columns] = levels
        memmap.let_go()
        on_step(done, len(cuts), made)
    return pixels


def resized(pixels: np.ndarray, size: Size) -> np.ndarray:
    """Antialiased bicubic, by bands."""
    top = np.iinfo(pixels.dtype).max
    made = memmap.empty((*size, 3), pixels.dtype)
    for first in range(0, size[0], BAND):
        rows = first, min(first + BAND, size[0])
        made[slice(*rows)] = np.rint(resize_band(pixels, size, rows) * top)
        memmap.let_go()
    return made
