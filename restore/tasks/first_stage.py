"""The first stage's answer to a picture of any size: by blocks, and what it would give whole.

Free of torch: a network takes arrays and gives arrays, whatever computes it.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from restore.diffusion import watch
from restore.diffusion.light import SCALE, Answers, Light, Stage
from restore.diffusion.watch import OnStep, ignore
from restore.errors import ConfigError, NonFiniteError
from restore.images import memmap
from restore.images.picture import Picture, bleed
from restore.images.resample import resize_alpha, resize_band
from restore.images.strips import Block, Strip, blocks
from restore.options import UpscaleOptions
from restore.tasks.colour import match, unfaded

if TYPE_CHECKING:
    from restore.diffusion.stack import Stack

BLOCK = 512  # pixels of the input, on a side; a halo round them is computed twice
BAND = 256  # rows resized at a time
NOISE = 4.0, 6.0  # levels: up to the first a picture is clean, from the second it is noisy
REACH = 2  # below this scale the input is made smaller first
Size = tuple[int, int]  # (height, width)


def alone(low: Picture, options: UpscaleOptions, model: Light, on_step: OnStep = ignore) -> Picture:
    """The picture enlarged, or restored, where no walk goes on from the first stage's answer.

    Raises NonFiniteError if a network leaves the finite numbers.
    """
    refuse_own_colours(options)
    return match(answered(low, options, model, on_step), low, options.colour)


def refuse_own_colours(options: UpscaleOptions) -> None:
    """Raises ConfigError if the result could be nothing but the input."""
    if options.scale == 1 and options.colour == "lowpass":
        raise ConfigError("at scale 1 lowpass gives back the input itself: choose wavelet or adain")


def answered(
    low: Picture, options: UpscaleOptions, model: "Stack | Light", on_step: OnStep = ignore
) -> Picture:
    """The first stage's answer, by the options and what the model is made for."""
    assert model.restorer is not None
    fidelity = model.fidelity if options.fidelity is None else options.fidelity
    steps = model.restore_steps if options.steps is None else options.steps
    told, size = ignore if steps else on_step, options.output_size(low.size)
    made = restored(low, size, model.restorer, fidelity, told, options.unfade)
    if not options.prompt or steps:
        return made
    note = "the prompt is heard by the walk alone, which this model leaves out; add --steps 1"
    return replace(made, warnings=(*made.warnings, note))


def restored(
    low: Picture,
    size: Size,
    stage: Stage,
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


def enlarged(low: Picture, network: Answers, on_step: OnStep = ignore) -> np.ndarray:
    """The pixels (4 H, 4 W, 3) in the picture's depth."""

    def make(block: Block) -> np.ndarray:
        rows, columns = block.outer
        return network.answer(Strip(low, low.size, (rows.start, rows.stop)).cut(columns))

    return by_blocks(low, SCALE, network.halo, make, on_step)


def fused(low: Picture, pixels: np.ndarray, network: Answers, share: float = 1.0) -> np.ndarray:
    """Restored pixels (H, W, 3) with what the input, resized to them, adds.

    An odd last row or column is mirrored: the network works on squares of two.
    share  of it: strong noise comes back with the detail.
    """
    size = pixels.shape[:2]
    made = replace(low, pixels=pixels, alpha=None)

    def make(block: Block) -> np.ndarray:
        rows, columns = (slice(s.start, s.stop + (s.stop - s.start) % 2) for s in block.outer)
        both = [Strip(one, size, (rows.start, rows.stop)).cut(columns) for one in (low, made)]
        tall, wide = (s.stop - s.start for s in block.outer)
        mended = both[1] + np.float32(share) * (network.answer(*both) - both[1])
        return mended[..., :tall, :wide]

    return by_blocks(made, 1, network.halo, make)


def noise(low: Picture, pixels: np.ndarray) -> float:
    """How much the input, resized, differs from the restored pixels where that is flattest, levels.

    The deviation in blocks of 8 that a twentieth of all lie below: of the picture as a whole, so
    that one answer holds for all windows.
    """
    made, size, found = replace(low, pixels=pixels, alpha=None), pixels.shape[:2], []
    across = slice(0, size[1] // 8 * 8)
    for first in range(0, size[0] - 7 if across.stop else 0, BAND):
        rows = first, first + min(BAND, (size[0] - first) // 8 * 8)
        one, other = (Strip(which, size, rows).cut(across) for which in (low, made))
        gap = (one - other).mean(1)[0] * 255
        tall, wide = gap.shape[0] // 8, gap.shape[1] // 8
        squares = gap.reshape(tall, 8, wide, 8).transpose(0, 2, 1, 3).reshape(tall * wide, 64)
        found.append(squares.std(1, ddof=1))
    deviations = np.concatenate(found) if found else np.zeros(1)
    return float(np.quantile(deviations, 0.05))


def by_blocks(
    like: Picture,
    scale: int,
    halo: int,
    make: Callable[[Block], np.ndarray],
    on_step: OnStep = ignore,
) -> np.ndarray:
    """What `make` gives of every block, as pixels (scale * H, scale * W, 3) in the same depth."""
    top = np.iinfo(like.pixels.dtype).max
    pixels = memmap.empty((scale * like.size[0], scale * like.size[1], 3), like.pixels.dtype)
    cuts = [*blocks(like.size, like.size, BLOCK, halo)]
    for done, block in enumerate(watch.over(cuts, "enlarge"), 1):
        made = block.trim(make(block), scale)
        if not np.isfinite(made).all():  # cast to integers it would be black
            raise NonFiniteError("the first stage left the finite numbers")
        if like.grey:
            made = np.broadcast_to(made.mean(1, keepdims=True), made.shape)
        levels = np.rint(made[0].transpose(1, 2, 0).clip(0, 1) * np.float32(top))
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
