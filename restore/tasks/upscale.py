"""Enlarge a picture, or restore it at its own size: trust 0.5 everywhere."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from restore.images import Picture, bleed, resize_alpha, resize_band
from restore.layouts import RESTORE
from restore.noise import canvas_noise
from restore.options import UpscaleOptions
from restore.predict import Condition, guided
from restore.sample import OnStep, ignore, sample, start
from restore.stack import Stack
from restore.windows import windowed


@torch.inference_mode()
def upscale(
    low: Picture, options: UpscaleOptions, stack: Stack, seed: int, on_step: OnStep = ignore
) -> Picture:
    """The picture at round(scale * size), with its depth, alpha, profile and EXIF.

    Memory grows with the canvas's latents and with the finished picture; pixels in floating point
    are held for one block only.
    Raises NonFiniteError if the walk leaves the finite numbers.
    """
    size = options.output_size(low.size)
    canvas = stack.canvas(size)
    shown = bleed(low)
    known = stack.encode_canvas(lambda *rows: canvas_rows(shown, size, canvas[1], rows), canvas)
    condition = Condition(known, torch.full_like(known[:, :1], RESTORE))
    wanted, unwanted = (stack.predict(condition, p) for p in (options.prompt, options.negative))
    predict = windowed(guided(wanted, unwanted, options.guidance), stack.windows, options.windows)
    scheduler = stack.scheduler(options.sampler, options.steps)
    noise = canvas_noise(known.shape, seed).to(stack.device)
    x = start(scheduler, noise, torch.zeros_like(known), options.strength)
    residual = sample(predict, x, scheduler, on_step)
    latent = known + stack.residual_scale * residual
    top = np.iinfo(low.pixels.dtype).max
    pixels = np.empty((*size, 3), low.pixels.dtype)

    def write(rows: slice, columns: slice, rgb: Tensor) -> None:
        if low.grey:
            rgb = rgb.mean(1, keepdim=True).expand_as(rgb)
        levels = (rgb[0].permute(1, 2, 0) * top).round()
        pixels[rows, columns] = levels.cpu().numpy().astype(pixels.dtype)

    stack.decode_canvas(latent, write, size)
    return replace(low, pixels=pixels, alpha=resize_alpha(low, size))


def canvas_rows(low: Picture, size: tuple[int, int], width: int, rows: tuple[int, int]) -> Tensor:
    """rgb (1, 3, rows, width) of the picture enlarged to `size`, mirrored beyond it."""
    down = mirrored(np.arange(*rows), size[0])
    first = int(down.min())
    band = resize_band(low, size, (first, int(down.max()) + 1))
    band = band[down - first][:, mirrored(np.arange(width), size[1])]
    return torch.from_numpy(band).permute(2, 0, 1)[None]


def mirrored(index: np.ndarray, length: int) -> np.ndarray:
    """Indices of a line continued by its mirror image, again and again."""
    index = index % (2 * length)
    return np.where(index < length, index, 2 * length - 1 - index)
