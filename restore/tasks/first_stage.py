"""Run the first stage on a picture of any size: by parts, with the result of the whole.

This module does not import torch: a network takes and returns arrays, whatever computes it.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import numpy as np

from restore.diffusion import watch
from restore.diffusion.lazy_stack import SCALE, Answers, LazyStack, Stage, Streaming
from restore.diffusion.watch import OnStep, ignore
from restore.errors import ConfigError, NonFiniteError
from restore.images import memmap
from restore.images.masks import Box
from restore.images.masks import resize as resize_mask
from restore.images.picture import Picture, bleed
from restore.images.resample import resize_alpha, resize_band
from restore.images.sketches import sketch_finished
from restore.images.strips import Block, Strip, blocks
from restore.options import UpscaleOptions
from restore.tasks import unheard
from restore.tasks.colour import match, unfaded

if TYPE_CHECKING:
    from restore.diffusion.stack import Stack

BLOCK = 512  # pixels of the input, on a side; a halo round them is computed twice
WIDTH = 2048  # pixels of the input that strips are wide, and their halo
BAND = 256  # rows resized at a time
NOISE = 4.0, 6.0  # levels: a picture is clean up to the first, noisy from the second
REACH = 2  # below this scale the input is downscaled first
Size = tuple[int, int]  # (height, width)


def upscale(
    low: Picture, options: UpscaleOptions, model: LazyStack, on_step: OnStep = ignore
) -> Picture:
    """Enlarge or restore a picture by the first stage, without sampling.

    Args:
        low: The picture.
        options: Scale, fidelity, colour and so on.
        model: The first stage.
        on_step: Called after each block.

    Raises:
        NonFiniteError: If a network produces NaN or infinity.
        ConfigError: If the options would give back the input.
    """
    refuse_own_colours(options)
    unheard.refuse(options, model.name, has_first_stage=True, has_noise_levels=False)
    made = unheard.warn(run_first_stage(low, options, model, on_step), options)
    return match(made, low, options.colour)


def refuse_own_colours(options: UpscaleOptions) -> None:
    """Raise ConfigError if the options would give back the input."""
    if options.scale == 1 and options.colour == "lowpass":
        raise ConfigError("at scale 1 lowpass gives back the input itself: choose wavelet or adain")


def run_first_stage(
    low: Picture,
    options: UpscaleOptions,
    model: "Stack | LazyStack",
    on_step: OnStep = ignore,
    damage: np.ndarray | None = None,
) -> Picture:
    """Run the first stage with the options, or with the model's defaults.

    Args:
        low: The input.
        options: `fidelity`, `scale`, `unfade` and, to know whether sampling follows, `steps`.
        model: A model with a first stage.
        on_step: Called after each block, unless sampling follows.
        damage: As in `restored`.
    """
    assert model.restorer is not None
    fidelity = model.fidelity if options.fidelity is None else options.fidelity
    steps = model.restore_steps if options.steps is None else options.steps
    on_block, size = ignore if steps else on_step, options.output_size(low.size)
    return restored(low, size, model.restorer, fidelity, on_block, options.unfade, damage)


def restored(
    low: Picture,
    size: Size,
    stage: Stage,
    fidelity: float,
    on_step: OnStep = ignore,
    unfade: float = 0.0,
    damage: np.ndarray | None = None,
) -> Picture:
    """Run the first stage.

    The network enlarges by 4, and its result is resized. If the scale is below 2, the input is
    first downscaled to half the final size. The fusion network then adds the lost detail back,
    where the input is not noisy.

    Args:
        low: The picture.
        size: (height, width) of the result in pixels.
        stage: The first stage.
        fidelity: 0 rich to 1 faithful.
        on_step: Called after each block with (done, of, its rgb).
        unfade: How much fading is undone, 0 to 1, if the picture is noisy, as old prints are.
        damage: bool (H, W) of the input: what was filled smoothly, and so shows no noise.

    Returns:
        The picture at `size`, with its depth, alpha, profile and EXIF.

    Raises:
        NonFiniteError: If a network produces NaN or infinity.
    """
    source, network = bleed(low), stage.at(fidelity)
    scale = max(new / old for new, old in zip(size, low.size, strict=True))
    reduced = source
    if scale < REACH:
        smaller = tuple(max(1, round(side / REACH)) for side in size)
        reduced = replace(source, pixels=resized(source.pixels, smaller))
    pixels = enlarged(reduced, network, on_step)
    if pixels.shape[:2] != size:
        pixels = resized(pixels, size)
    result = replace(low, pixels=pixels, alpha=resize_alpha(low, size))
    if scale >= REACH:
        return result
    covers = [damage, None if low.alpha is None else low.alpha == 0]
    covers = [resize_mask(cover, size) for cover in covers if cover is not None]
    hidden = np.logical_or.reduce(covers) if covers else None
    noisiness = float(np.interp(noise(source, pixels, hidden), NOISE, (0, 1)))
    if stage.fusion is not None and noisiness < 1:
        result = replace(result, pixels=fused(source, pixels, stage.fusion, 1 - noisiness))
    return unfaded(result, noisiness * unfade, hidden)


def enlarged(low: Picture, network: Answers, on_step: OnStep = ignore) -> np.ndarray:
    """Enlarge by the network; pixels (4 H, 4 W, 3) in the picture's depth."""
    if isinstance(network, Streaming):
        return by_strips(low, network, on_step)

    def make(block: Block) -> np.ndarray:
        rows, columns = block.outer
        return network.answer(Strip(low, low.size, (rows.start, rows.stop)).cut(columns))

    return by_blocks(low, SCALE, network.halo, make, on_step)


def fused(low: Picture, pixels: np.ndarray, network: Answers, share: float = 1.0) -> np.ndarray:
    """Correct a restored picture by the picture it was restored from.

    An odd last row or column is mirrored, because the network needs even sides.

    Args:
        low: The input; it is resized to the restored picture.
        pixels: The restored pixels (H, W, 3).
        network: The fusion.
        share: How much of the correction is applied, 0 to 1; noise comes back with the detail.
    """
    size = pixels.shape[:2]
    result = replace(low, pixels=pixels, alpha=None)

    def make(block: Block) -> np.ndarray:
        rows, columns = (slice(s.start, s.stop + (s.stop - s.start) % 2) for s in block.outer)
        inputs = [
            Strip(picture, size, (rows.start, rows.stop)).cut(columns) for picture in (low, result)
        ]
        height, width = (s.stop - s.start for s in block.outer)
        mended = inputs[1] + np.float32(share) * (network.answer(*inputs) - inputs[1])
        return mended[..., :height, :width]

    return by_blocks(result, 1, network.halo, make, ignore)


def noise(low: Picture, pixels: np.ndarray, hidden: np.ndarray | None = None) -> float:
    """Estimate the noise of the input, in levels of 255.

    It is the standard deviation of input minus restored picture in blocks of 8 x 8: the quantile
    that a twentieth of the blocks are below. One number describes the whole picture, so that all
    windows are treated alike.

    Args:
        low: The input; it is resized to the restored picture.
        pixels: The restored pixels (H, W, 3).
        hidden: bool (H, W): what the input does not show; blocks with any of it do not count.
    """
    result, size, bands = replace(low, pixels=pixels, alpha=None), pixels.shape[:2], []
    across = slice(0, size[1] // 8 * 8)
    for first in range(0, size[0] - 7 if across.stop else 0, BAND):
        rows = first, first + min(BAND, (size[0] - first) // 8 * 8)
        before, after = (Strip(picture, size, rows).cut(across) for picture in (low, result))
        gap = (before - after).mean(1)[0] * 255
        tall, wide = gap.shape[0] // 8, gap.shape[1] // 8
        squares = gap.reshape(tall, 8, wide, 8).transpose(0, 2, 1, 3).reshape(tall * wide, 64)
        deviations = squares.std(1, ddof=1)
        if hidden is not None:
            covered = hidden[slice(*rows), across].reshape(tall, 8, wide, 8).any((1, 3))
            deviations = deviations[~covered.ravel()]
        bands.append(deviations)
    deviations = np.concatenate(bands) if bands else np.zeros(0)
    return float(np.quantile(deviations, 0.05)) if deviations.size else 0.0


def by_strips(low: Picture, network: Streaming, on_step: OnStep = ignore) -> np.ndarray:
    """Enlarge from the top to the bottom. Only columns of very wide pictures are computed twice."""
    height, width = low.size
    columns = [*blocks((1, width), (1, width), WIDTH, network.halo)]
    heights = [network.cut(height, cut.outer[1].stop - cut.outer[1].start) for cut in columns]

    def made() -> Iterator[tuple[Box, np.ndarray]]:
        for column, high in zip(columns, heights, strict=True):
            across, top = column.outer[1], 0
            rows = pairwise(accumulate(high, initial=0))
            strips = (Strip(low, low.size, pair).cut(across) for pair in rows)
            for values in network.by_strips(strips, height):
                down = slice(top, top + values.shape[2] // SCALE)
                block = Block((down, column.inner[1]), (down, across))
                yield block.inner, block.trim(values, SCALE)
                top = down.stop

    return assembled(low, SCALE, made(), sum(map(len, heights)), on_step)


def by_blocks(
    like: Picture, scale: int, halo: int, make: Callable[[Block], np.ndarray], on_step: OnStep
) -> np.ndarray:
    """Make pixels block by block.

    Args:
        like: The input; the result gets its depth.
        scale: Of the result.
        halo: How many input pixels beside a block are read.
        make: Returns the rgb (1, 3, h, w) of a block with its halo.
        on_step: Called after each block.
    """
    cuts = [*blocks(like.size, like.size, BLOCK, halo)]
    made = ((block.inner, block.trim(make(block), scale)) for block in cuts)
    return assembled(like, scale, made, len(cuts), on_step)


def assembled(
    like: Picture,
    scale: int,
    parts: Iterator[tuple[Box, np.ndarray]],
    count: int,
    on_step: OnStep,
) -> np.ndarray:
    """Put parts together.

    Args:
        like: The input; the result gets its depth.
        scale: Of the result.
        parts: Rows and columns of the input, and the rgb (1, 3, h, w) of the result.
        count: How many parts there are.
        on_step: Called after each part with (done, of, its rgb).

    Returns:
        Pixels (scale * H, scale * W, 3).

    Raises:
        NonFiniteError: If a part has NaN or infinity.
    """
    peak = np.iinfo(like.pixels.dtype).max
    pixels = memmap.empty((scale * like.size[0], scale * like.size[1], 3), like.pixels.dtype)
    finished: list[Box] = []
    numbers = watch.over(range(1, count + 1), "enlarge")
    for done, (inner, colours) in zip(numbers, parts, strict=False):
        if not np.isfinite(colours).all():  # casting to integers would make it black
            raise NonFiniteError("the first stage left the finite numbers")
        grey = colours.mean(1, keepdims=True) if like.grey else None
        values = colours if grey is None else np.broadcast_to(grey, colours.shape)
        levels = np.rint(values[0].transpose(1, 2, 0).clip(0, 1) * np.float32(peak))
        rows, columns = (slice(s.start * scale, s.stop * scale) for s in inner)
        pixels[rows, columns] = levels
        memmap.release_pages()
        on_step(done, count, values)
        finished.append((rows, columns))
        if count > 1:
            watch.offer(lambda: sketch_finished(like.pixels, pixels, finished))
    return pixels


def resized(pixels: np.ndarray, size: Size) -> np.ndarray:
    """Resize pixels by antialiased bicubic interpolation, in bands."""
    top = np.iinfo(pixels.dtype).max
    result = memmap.empty((*size, 3), pixels.dtype)
    for first in range(0, size[0], BAND):
        rows = first, min(first + BAND, size[0])
        result[slice(*rows)] = np.rint(resize_band(pixels, size, rows) * top)
        memmap.release_pages()
    return result
