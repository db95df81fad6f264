"""Enlarge or restore a picture by a network from rgb to rgb, window by window."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from restore.checkpoints import faithful
from restore.config import Options
from restore.diffusion import watch
from restore.diffusion.watch import OnStep, ignore
from restore.errors import ConfigError, ModelError
from restore.images import memmap
from restore.images.masks import Box
from restore.images.picture import Picture, bleed, deepen
from restore.images.resample import Band, resize_alpha
from restore.images.sketches import sketch_finished
from restore.options import UpscaleOptions
from restore.pixel.model import PixelModel
from restore.pixel.windows import enlarge
from restore.tasks.colour import bands, match
from restore.tasks.first_stage import refuse_own_colours, restored

HEARD = {"task", "scale", "fidelity", "colour"}  # the options that apply without sampling
BAND = 256  # rows resized together; no result depends on it


@torch.inference_mode()
def pixel_upscale(
    low: Picture,
    options: UpscaleOptions,
    model: PixelModel,
    on_step: OnStep = ignore,
    damage: np.ndarray | None = None,
) -> Picture:
    """Enlarge or restore a picture by a pixel upscaler.

    If the scale is not the model's, its result is resized by bicubic interpolation in 16 bits.

    `fidelity` blends the result with the faithful one of nano. Two networks err differently, so a
    blend is much closer to the truth than the network alone, and most of its texture stays.

    Args:
        low: The picture.
        options: Scale, colour and fidelity; without fidelity the result is the network's own.
        model: The network.
        on_step: Called after each window.
        damage: bool (H, W): what was filled smoothly, and so shows no noise.

    Returns:
        The picture at round(scale * size), with its depth, alpha, profile and EXIF.

    Raises:
        NonFiniteError: If the network produces NaN or infinity.
    """
    refuse_own_colours(options)
    size = options.output_size(low.size)
    depth = low.pixels.dtype
    if options.fidelity == 1:  # the network has no share in the result
        true = as_nano(low, size, model, on_step, damage)
        pixels = blended(true, true, 1, depth)
    else:
        pixels = with_network(low, size, options.fidelity or 0, model, on_step, damage)
    result = replace(low, pixels=pixels, alpha=resize_alpha(low, size))
    windows = model.windows_for(low.size)
    if model.wants_whole and options.fidelity != 1 and not windows.is_one(low.size):
        side = windows.inner
        note = f"{model.name} was made to see whole pictures; it saw {side} px of this at a time"
        result = replace(result, warnings=(*result.warnings, note))
    return match(result, low, options.colour)


def with_network(
    low: Picture,
    size: tuple[int, int],
    fidelity: float,
    model: PixelModel,
    on_step: OnStep,
    damage: np.ndarray | None,
) -> np.ndarray:
    """Make the pixels (*size, 3) with the network, blended with the faithful result of nano.

    Args:
        low: The input.
        size: (height, width) of the result.
        fidelity: The share of nano, from 0 to below 1.
        model: The network.
        on_step: Called after each window.
        damage: As in `pixel_upscale`.
    """
    native = low.size[0] * model.scale, low.size[1] * model.scale
    depth, deep = low.pixels.dtype, np.dtype(np.uint16)
    is_last = size == native and not fidelity
    pixels = run_network(bleed(low), model, depth if is_last else deep, on_step)
    if size != native:
        pixels = resized(pixels, size, deep if fidelity else depth)
    if not fidelity:
        return pixels
    return blended(pixels, as_nano(low, size, model, ignore, damage), fidelity, depth)


def as_nano(
    low: Picture,
    size: tuple[int, int],
    model: PixelModel,
    on_step: OnStep,
    damage: np.ndarray | None,
) -> np.ndarray:
    """Make nano's faithful pixels (*size, 3) of 16 bits, on the model's device."""
    stage = faithful.load(model.device)
    return restored(deepen(low), size, stage, 1, on_step, damage=damage).pixels


def with_scale_of(options: Options, model: PixelModel) -> UpscaleOptions:
    """Check the options, and set the model's scale if they have none.

    Raises:
        ModelError: If they are of another task.
        ConfigError: If one of them is only for diffusion models.
    """
    if not isinstance(options, UpscaleOptions):
        task = options.model_dump()["task"]
        raise ModelError(f"{model.name}: is a pixel upscaler: upscale, but not {task}")
    if refused := ", ".join(sorted(options.model_fields_set - HEARD)):
        raise ConfigError(
            f"{refused}: {model.name} is a pixel upscaler and answers at once; leave out what is "
            "of diffusion, or take a model such as nano"
        )
    if "scale" in options.model_fields_set:
        return options
    return options.model_copy(update={"scale": float(model.scale)})


def run_network(
    low: Picture, model: PixelModel, depth: np.dtype[Any], on_step: OnStep
) -> np.ndarray:
    """Run the network on a picture, window by window.

    Args:
        low: The input.
        model: The upscaler.
        depth: uint8 or uint16, the type of the result.
        on_step: Called after each window.

    Returns:
        Integers (H * scale, W * scale, 3), memory-mapped if they are large.
    """
    top, most = np.iinfo(low.pixels.dtype).max, np.iinfo(depth).max
    scale, (height, width) = model.scale, low.size
    pixels = memmap.empty((height * scale, width * scale, 3), depth)
    windows = model.windows_for(low.size)
    total = len(windows.cuts(height)) * len(windows.cuts(width))
    finished: list[Box] = []

    def read(rows: slice, columns: slice) -> Tensor:
        cut = low.pixels[rows, columns].astype(np.float32) / np.float32(top)
        return torch.from_numpy(cut).permute(2, 0, 1)[None]

    def write(rows: slice, columns: slice, rgb: Tensor) -> None:
        if low.grey:
            rgb = rgb.mean(1, keepdim=True).expand(-1, 3, -1, -1)
        levels = (rgb[0].permute(1, 2, 0).clamp(0, 1) * float(most)).round()
        pixels[rows, columns] = levels.cpu().numpy().astype(depth)
        memmap.release_pages()
        finished.append((rows, columns))
        on_step(len(finished), total, rgb)
        if total > 1:
            watch.offer(lambda: sketch_finished(low.pixels, pixels, finished))

    enlarge(model, scale, low.size, windows, read, write)
    return pixels


def resized(pixels: np.ndarray, size: tuple[int, int], depth: np.dtype[Any]) -> np.ndarray:
    """Resize pixels to another size and depth."""
    result = memmap.empty((*size, 3), depth)
    top = np.float32(np.iinfo(depth).max)
    for rows in bands(size[0], BAND):
        result[slice(*rows)] = np.rint(Band(pixels, size, rows).cut(slice(0, size[1])) * top)
        memmap.release_pages()
    return result


def blended(
    pixels: np.ndarray, other: np.ndarray, share: float, depth: np.dtype[Any]
) -> np.ndarray:
    """Blend pixels of 16 bits, `share` of the others, to a result of some depth."""
    result = memmap.empty(pixels.shape, depth)
    weights = np.float32([1 - share, share]) * np.float32(np.iinfo(depth).max / np.iinfo("u2").max)
    for first, last in bands(len(pixels), BAND):
        rows = (part[first:last].astype(np.float32) for part in (pixels, other))
        result[first:last] = np.rint(sum(w * rgb for w, rgb in zip(weights, rows, strict=True)))
        memmap.release_pages()
    return result
