"""Autoencoders behind one pair of functions: rgb <-> scaled latent, whichever class it is."""

from collections.abc import Callable

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, VQModel
from torch import Tensor, nn

from restore.windows import blocks

BLOCK = 256  # latents encoded or decoded at a time, on a side
OVERLAP = 16  # latents round a block of a VAE that sees the whole picture
Vae = AutoencoderTiny | AutoencoderKL | VQModel
ATTENTION_OR_NORM = (nn.GroupNorm, nn.LayerNorm, nn.BatchNorm2d)


def encode(vae: Vae, rgb: Tensor) -> Tensor:
    """rgb (B, 3, H, W) -> scaled latent (B, C, H / factor, W / factor), its mode."""
    signed = rgb * 2 - 1
    if isinstance(vae, AutoencoderTiny):
        return vae.encoder(signed) * scale(vae)
    if isinstance(vae, VQModel):
        return vae.encode(signed).latents * scale(vae)
    return (vae.encode(signed).latent_dist.mode() - shift(vae)) * scale(vae)


def decode(vae: Vae, latent: Tensor) -> Tensor:
    """Scaled latent -> rgb, clamped to [0, 1]. A VQ model quantises first, as latent diffusion."""
    latent = latent / scale(vae) + shift(vae)
    made = vae.decoder(latent) if isinstance(vae, AutoencoderTiny) else vae.decode(latent).sample
    return ((made + 1) / 2).clamp(0, 1)


def scale(vae: Vae) -> float:
    """What a latent is multiplied with; latent diffusion walks over VQ latents as they are."""
    return 1.0 if isinstance(vae, VQModel) else vae.config.scaling_factor


def shift(vae: Vae) -> float:
    return getattr(vae.config, "shift_factor", None) or 0.0


def factor(vae: Vae) -> int:
    """Pixels a latent, on a side."""
    name = (
        "encoder_block_out_channels" if isinstance(vae, AutoencoderTiny) else "block_out_channels"
    )
    return 2 ** (len(vae.config[name]) - 1)


def channels(vae: Vae) -> int:
    """Of the latent."""
    return vae.config.latent_channels


def is_local(vae: Vae) -> bool:
    """Whether a pixel depends on its neighbourhood alone, so that blocks with a halo are exact.

    Group normalisation and attention see the whole picture.
    """
    return not any(isinstance(module, ATTENTION_OR_NORM) for module in vae.modules())


def receptive_field(coder: nn.Module) -> int:
    """How many pixels a local convolutional coder sees to each side of a pixel, at the most."""
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


def encode_canvas(vae: Vae, rows: Callable[[int, int], Tensor], size: tuple[int, int]) -> Tensor:
    """Encode a canvas by blocks -> (1, C, H / factor, W / factor).

    Exact where the VAE sees no further than its halo; elsewhere, by fixed overlapping blocks.

    rows  (first, last) -> rgb (1, 3, last - first, W) of the canvas.
    size  (H, W) of the canvas, multiples of the factor.
    """
    step, (height, width) = factor(vae), size
    latent = torch.empty(1, channels(vae), height // step, width // step, device=vae.device)
    margin = -(-halo(vae, vae.encoder) // step) * step
    band: tuple[slice, Tensor] | None = None
    for block in blocks(size, size, BLOCK * step, margin):
        if band is None or band[0] != block.outer[0]:
            band = block.outer[0], rows(block.outer[0].start, block.outer[0].stop)
        made = encode(vae, band[1][..., block.outer[1]].to(vae.device))
        inner_rows, columns = (slice(s.start // step, s.stop // step) for s in block.inner)
        latent[..., inner_rows, columns] = block.trim(made, 1 / step)
    return latent


def decode_canvas(
    vae: Vae,
    latent: Tensor,
    write: Callable[[slice, slice, Tensor], None],
    size: tuple[int, int],
) -> None:
    """Decode the first `size` (H, W) pixels of a canvas by blocks, as encode_canvas.

    write  (rows, columns, rgb) takes each block's pixels.
    """
    step, (height, width) = factor(vae), size
    needed = -(-height // step), -(-width // step)
    margin = -(-halo(vae, vae.decoder) // step)
    for block in blocks(needed, tuple(latent.shape[-2:]), BLOCK, margin):
        made = block.trim(decode(vae, latent[..., block.outer[0], block.outer[1]]), step)
        rows, columns = (slice(s.start * step, s.stop * step) for s in block.inner)
        rows = slice(rows.start, min(rows.stop, height))
        columns = slice(columns.start, min(columns.stop, width))
        made = made[..., : rows.stop - rows.start, : columns.stop - columns.start]
        write(rows, columns, made)


def halo(vae: Vae, coder: nn.Module) -> int:
    """Pixels that a block has to see around it."""
    return receptive_field(coder) if is_local(vae) else OVERLAP * factor(vae)
