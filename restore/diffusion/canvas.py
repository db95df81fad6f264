"""Pictures <-> canvases: padded to whole windows by mirroring before, cut to size after."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from restore.diffusion import vae
from restore.diffusion.layouts import GREY, REPAINT, RESTORE, TRUST
from restore.diffusion.stack import Stack
from restore.diffusion.strips import Strip
from restore.errors import NonFiniteError
from restore.images import memmap
from restore.images.masks import fill_smoothly, resize
from restore.images.picture import Picture, bleed
from restore.images.resample import resize_alpha
from restore.images.strips import mirrored

BAND = 256  # rows processed together
Size = tuple[int, int]  # (height, width)


def encode_picture(
    picture: Picture, size: Size, stack: Stack, hole: np.ndarray | None = None
) -> Tensor:
    """Encode a picture at `size`, on its canvas.

    Args:
        picture: The picture, of any size.
        size: (height, width) in pixels that it is resized to.
        stack: Gives the VAE and the size of the canvas.
        hole: bool (H, W) of the picture. Its content is replaced before encoding: by mid grey or by
            a smooth continuation, as the layout says.

    Returns:
        The scaled latent (1, C, h, w).
    """
    picture, canvas = bleed(picture), stack.canvas(size)
    if hole is not None:  # before resizing, which would mix the hole into its surroundings
        picture = replace(picture, pixels=fill_smoothly(picture.pixels, hole))
    height, width = (n * stack.factor for n in canvas)
    grey = stack.layout.hole == "grey" and hole is not None
    columns = mirrored(np.arange(width), size[1])

    def rows(first: int, last: int) -> "Tensor | Strip":
        if not grey:
            return Strip(picture, size, (first, last))
        rgb = canvas_rows(picture, size, width, (first, last))
        lines = resize(hole, size)[mirrored(np.arange(first, last), size[0])]
        return torch.where(torch.from_numpy(lines[:, columns]), GREY, rgb)

    return vae.encode_canvas(stack.vae, rows, (height, width)).to(stack.device)


def trust_map(hole: np.ndarray | None, size: Size, stack: Stack, outside: float) -> Tensor:
    """Make the trust map of a canvas.

    Each latent that touches the hole is repainted. Our models that were not trained to fill restore
    the smooth continuation of the hole instead.

    Args:
        hole: bool (*size), or None.
        size: (height, width) in pixels.
        stack: Gives the layout and the size of the canvas.
        outside: The trust outside the hole: 0 keep, 0.5 restore, 1 repaint.

    Returns:
        The trust (1, 1, h, w).
    """
    height, width = stack.canvas(size)
    trust = torch.full((1, 1, 1, 1), outside, device=stack.device).expand(-1, -1, height, width)
    if hole is None:  # one number everywhere
        return trust
    step = stack.factor
    across = hole[:, mirrored(np.arange(width * step), size[1])].reshape(len(hole), width, step)
    across = across.max(2)[mirrored(np.arange(height * step), size[0])]
    touched = torch.from_numpy(across.reshape(height, step, width).max(1))
    inside = RESTORE if stack.layout == TRUST and not stack.fills else REPAINT
    return trust.masked_fill(touched.to(stack.device), inside)


def encode_nothing(size: Size, stack: Stack) -> Tensor:
    """Encode a grey canvas; without channels if the layout has no picture."""
    height, width = stack.canvas(size)
    if stack.layout.conditioning == "nothing":
        return torch.zeros(1, 0, height, width, device=stack.device)
    height, width = height * stack.factor, width * stack.factor
    grey = torch.full((1, 3, 1, width), GREY)
    latent = vae.encode_canvas(
        stack.vae, lambda a, b: grey.expand(-1, -1, b - a, -1), (height, width)
    )
    return latent.to(stack.device)


def render(latent: Tensor, size: Size, like: Picture, stack: Stack) -> Picture:
    """Decode a latent to a picture.

    Args:
        latent: Scaled (1, C, h, w).
        size: (height, width) in pixels that the canvas is cut to.
        like: The result gets its depth, alpha, profile and EXIF.
        stack: Gives the VAE.

    Raises:
        NonFiniteError: If decoding produces NaN or infinity.
    """
    top = np.iinfo(like.pixels.dtype).max
    pixels = memmap.empty((*size, 3), like.pixels.dtype)

    def write(rows: slice, columns: slice, rgb: Tensor) -> None:
        if not torch.isfinite(rgb).all():  # casting to integers would make it black
            raise NonFiniteError("decoding the latent left the finite numbers")
        if like.grey:
            rgb = rgb.mean(1, keepdim=True).expand_as(rgb)
        levels = (rgb[0].permute(1, 2, 0) * top).round()
        pixels[rows, columns] = levels.cpu().numpy().astype(pixels.dtype)

    vae.decode_canvas(stack.vae, latent, write, size)
    return replace(like, pixels=pixels, alpha=resize_alpha(like, size))


def add_changes(picture: Picture, made: Picture, conditioning: Tensor, stack: Stack) -> Picture:
    """Add to a picture's pixels what sampling changed.

    So the losses of the autoencoder do not show where sampling changes nothing.

    Args:
        picture: The picture.
        made: The decoded result of sampling.
        conditioning: The latent (1, C, h, w) of the picture, where sampling started.
        stack: Gives the VAE.
    """
    before = render(conditioning, picture.size, picture, stack).pixels
    pixels = memmap.empty(before.shape, before.dtype)
    for first in range(0, len(pixels), BAND):
        rows = slice(first, first + BAND)
        changed = picture.pixels[rows].astype(np.int32) + made.pixels[rows] - before[rows]
        pixels[rows] = np.clip(changed, 0, np.iinfo(before.dtype).max)
        memmap.release_pages()
    return replace(made, pixels=pixels)


def canvas_rows(picture: Picture, size: Size, width: int, rows: tuple[int, int]) -> Tensor:
    """Resize a picture to `size` and pad it by mirroring; rgb (1, 3, rows, width) of some rows."""
    return Strip(picture, size, rows)[..., 0:width]
