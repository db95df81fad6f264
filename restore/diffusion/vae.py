"""Autoencoders behind one pair of functions, whatever their class: rgb <-> scaled latent."""

from collections.abc import Callable
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, VQModel
from torch import Tensor, nn

from restore.diffusion import watch
from restore.diffusion.tiling import Windows, raised_cosine
from restore.images import memmap
from restore.images.strips import blocks

BLOCK = 256  # latents encoded or decoded at a time, on a side
WINDOWS = Windows(64, 48)  # latents, for a VAE that is not local
WHOLE = 512  # px a side: such a VAE codes a canvas of no more pixels as a whole
MARGIN = 4  # latents at a window's cut sides with weight 0: zero padding has changed them
Vae = AutoencoderTiny | AutoencoderKL | VQModel
Rows = Callable[[int, int], Any]
"""(first, last) row -> rgb (1, 3, last - first, W), or an object that gives columns when sliced"""
Write = Callable[[slice, slice, Tensor], None]  # takes the rgb of those rows and columns
ATTENTION_OR_NORM = (nn.GroupNorm, nn.LayerNorm, nn.BatchNorm2d)


def encode(vae: Vae, rgb: Tensor) -> Tensor:
    """rgb (B, 3, H, W) in [0, 1] -> scaled latent (B, C, H / factor, W / factor), the mode."""
    signed = rgb * 2 - 1
    if isinstance(vae, AutoencoderTiny):
        return vae.encoder(signed) * scale(vae)
    if isinstance(vae, VQModel):
        return vae.encode(signed).latents * scale(vae)
    return (vae.encode(signed).latent_dist.mode() - shift(vae)) * scale(vae)


def decode(vae: Vae, latent: Tensor) -> Tensor:
    """Scaled latent -> rgb, clamped to [0, 1]. A VQ model quantises first."""
    return decode_freely(vae, latent).clamp(0, 1)


def decode_freely(vae: Vae, latent: Tensor) -> Tensor:
    """Scaled latent -> rgb, not clamped, so that a loss has gradients outside [0, 1]."""
    latent = latent / scale(vae) + shift(vae)
    made = vae.decoder(latent) if isinstance(vae, AutoencoderTiny) else vae.decode(latent).sample
    return (made.float() + 1) / 2


def scale(vae: Vae) -> float:
    """Return the scaling factor of latents; 1 for VQ models, whose latents are not scaled."""
    return 1.0 if isinstance(vae, VQModel) else vae.config.scaling_factor


def shift(vae: Vae) -> float:
    """Return what is subtracted from latents before they are scaled; 0 for most models."""
    return getattr(vae.config, "shift_factor", None) or 0.0


def factor(vae: Vae) -> int:
    """Return the pixels per latent on a side."""
    name = (
        "encoder_block_out_channels" if isinstance(vae, AutoencoderTiny) else "block_out_channels"
    )
    return 2 ** (len(vae.config[name]) - 1)


def channels(vae: Vae) -> int:
    """Return the channels of the latent."""
    return vae.config.latent_channels


def is_local(vae: Vae) -> bool:
    """Whether a pixel depends only on its neighbourhood, so that blocks with a halo are exact.

    Group normalisation and attention depend on the whole picture.
    """
    return not any(isinstance(module, ATTENTION_OR_NORM) for module in vae.modules())


def receptive_field(coder: nn.Module) -> int:
    """Return how many pixels to each side of a pixel a convolutional encoder or decoder reads."""
    reach, step = 0.0, 1.0
    finest = 1.0
    for module in coder.modules():
        if isinstance(module, nn.Conv2d):
            reach += module.kernel_size[0] // 2 * step
            step *= module.stride[0]
        elif isinstance(module, nn.Upsample):
            step /= float(module.scale_factor)
            finest = min(finest, step)
    return round(reach / finest) + 1


def encode_canvas(vae: Vae, rows: Rows, size: tuple[int, int]) -> Tensor:
    """Encode a canvas in parts.

    A local VAE encodes by blocks, which is exact. Others encode by blended windows of one size, or
    as a whole if the canvas is small.

    Args:
        vae: The autoencoder.
        rows: Gives rows of the canvas.
        size: (H, W) of the canvas in pixels, multiples of the factor.

    Returns:
        The scaled latent (1, C, H / factor, W / factor).
    """
    if not is_local(vae):
        return encode_windows(vae, rows, size)
    step, (height, width) = factor(vae), size
    latent = memmap.empty_tensor((1, channels(vae), height // step, width // step), vae.device)
    margin = -(-receptive_field(vae.encoder) // step) * step
    band: tuple[slice, Any] | None = None
    for block in watch.over([*blocks(size, size, BLOCK * step, margin)], "encode"):
        if band is None or band[0] != block.outer[0]:
            band = block.outer[0], rows(block.outer[0].start, block.outer[0].stop)
        made = encode(vae, band[1][..., block.outer[1]].to(vae.device))
        inner_rows, columns = (slice(s.start // step, s.stop // step) for s in block.inner)
        latent[..., inner_rows, columns] = block.trim(made, 1 / step)
        memmap.release_pages()
    return latent


def decode_canvas(vae: Vae, latent: Tensor, write: Write, size: tuple[int, int]) -> None:
    """Decode the first `size` (H, W) pixels of a canvas in parts, as encode_canvas encodes.

    Args:
        vae: The autoencoder.
        latent: Scaled (1, C, h, w).
        write: Takes rows, columns and their rgb.
        size: (H, W) in pixels.
    """
    if not is_local(vae):
        return decode_windows(vae, latent, write, size)
    step, (height, width) = factor(vae), size
    needed = -(-height // step), -(-width // step)
    margin = -(-receptive_field(vae.decoder) // step)
    parts = [*blocks(needed, tuple(latent.shape[-2:]), BLOCK, margin)]
    for block in watch.over(parts, "decode"):
        made = block.trim(decode(vae, latent[..., block.outer[0], block.outer[1]]), step)
        rows, columns = (slice(s.start * step, s.stop * step) for s in block.inner)
        rows = slice(rows.start, min(rows.stop, height))
        columns = slice(columns.start, min(columns.stop, width))
        made = made[..., : rows.stop - rows.start, : columns.stop - columns.start]
        write(rows, columns, made)
        memmap.release_pages()


def encode_windows(vae: Vae, rows: Rows, size: tuple[int, int]) -> Tensor:
    """Encode a picture by overlapping windows, for a VAE whose output depends on the whole input.

    Args:
        vae: The autoencoder.
        rows: Gives rows of the picture, rgb in [0, 1].
        size: (height, width), multiples of the pixels per latent.

    Returns:
        The scaled latent (1, C, h, w), memory-mapped if it is large.
    """
    step = factor(vae)
    latent = memmap.empty_tensor((1, channels(vae), *(n // step for n in size)), vae.device)
    for cut in memmap.iter_bands(latent):
        latent[..., cut, :] = 0
    windows = grid(vae, latent)
    downs, acrosses = (spans(windows, length, 1) for length in latent.shape[-2:])
    count = watch.counter(len(downs) * len(acrosses), "encode")
    for down, weight in downs:
        band = rows(down.start * step, down.stop * step)
        for across, other in acrosses:
            part = band[..., across.start * step : across.stop * step].to(vae.device)
            made = encode(vae, part)
            latent[..., down, across] += (made * (weight[:, None] * other).to(made)).to(latent)
            count()
        memmap.release_pages()
    return latent


def decode_windows(vae: Vae, latent: Tensor, write: Write, size: tuple[int, int]) -> None:
    """Decode a latent by overlapping windows, for a VAE whose output depends on the whole input.

    Args:
        vae: The autoencoder.
        latent: Scaled, (1, C, h, w).
        write: Takes finished rows, from top to bottom.
        size: (height, width) that is needed; what lies beyond is not decoded.
    """
    step, (height, width), windows = factor(vae), size, grid(vae, latent)
    rows, columns = (
        [(cut, weight) for cut, weight in spans(windows, length, step) if cut.start < most]
        for length, most in zip(latent.shape[-2:], size, strict=True)
    )
    count = watch.counter(len(rows) * len(columns), "decode")
    carried = torch.zeros(1, 3, 0, latent.shape[-1] * step)
    for row, (down, weight) in enumerate(rows):
        # one row of windows is held in floats; rows that no later window touches are written
        band = torch.zeros(1, 3, len(weight), latent.shape[-1] * step, device=latent.device)
        band[..., : carried.shape[-2], :] = carried
        for across, other in columns:
            part = latent[..., latents(down, step), latents(across, step)]
            band[..., across] += decode(vae, part) * (weight[:, None] * other).to(band)
            count()
        done = (rows[row + 1][0] if row + 1 < len(rows) else slice(down.stop, None)).start
        shown = min(done, height) - down.start
        write(slice(down.start, down.start + shown), slice(0, width), band[..., :shown, :width])
        carried = band[..., done - down.start :, :]
        memmap.release_pages()


def latents(pixels: slice, step: int) -> slice:
    """Turn a slice of pixels into the slice of latents that covers them."""
    return slice(pixels.start // step, pixels.stop // step)


def grid(vae: Vae, latent: Tensor) -> Windows:
    """Return the grid of windows over a latent, for a VAE that is not local."""
    height, width = latent.shape[-2:]
    if height * width * factor(vae) ** 2 > WHOLE**2:
        return WINDOWS
    side = max(height, width)
    return Windows(side, side)


def spans(windows: Windows, length: int, step: int) -> list[tuple[slice, Tensor]]:
    """Return the windows along a canvas with weights that add up to one everywhere.

    The last window ends where the canvas ends.

    Args:
        windows: The grid.
        length: Of the canvas, in latents.
        step: Units per latent of the returned slices and weights: the factor for pixels, or 1.
    """
    size = min(windows.size, length)
    starts = [*range(0, length - size, windows.stride), length - size]
    ramp = max(0, windows.size - windows.stride - 2 * MARGIN)
    flat = torch.ones(size * step)
    rise = torch.cat([torch.zeros(MARGIN * step), raised_cosine(ramp * step), flat])[: len(flat)]
    weights = [
        (rise if start else flat) * (rise.flip(0) if start + size < length else flat)
        for start in starts
    ]
    cuts = [slice(start * step, (start + size) * step) for start in starts]
    total = torch.zeros(length * step)
    for cut, weight in zip(cuts, weights, strict=True):
        total[cut] += weight
    return [(cut, weight / total[cut]) for cut, weight in zip(cuts, weights, strict=True)]
