"""Pictures <-> canvases: mirrored out to whole windows going in, cut to size coming out."""

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
from restore.images.masks import mended, resized
from restore.images.picture import Picture, bleed
from restore.images.resample import resize_alpha
from restore.images.strips import mirrored

BAND = 256  # rows gone over together
Size = tuple[int, int]  # (height, width)


def shown(picture: Picture, size: Size, stack: Stack, hole: np.ndarray | None = None) -> Tensor:
    """The scaled latent (1, C, h, w) of the picture at `size`, on its canvas.

    hole  bool (H, W) of the picture: what is in it is not shown.
    """
    picture, canvas = bleed(picture), stack.canvas(size)
    if hole is not None:  # before it is resized, or the hole would bleed into what is round it
        picture = replace(picture, pixels=mended(picture.pixels, hole))
    height, width = (n * stack.factor for n in canvas)
    grey = stack.layout.hole == "grey" and hole is not None
    columns = mirrored(np.arange(width), size[1])

    def rows(first: int, last: int) -> "Tensor | Strip":
        if not grey:
            return Strip(picture, size, (first, last))
        rgb = canvas_rows(picture, size, width, (first, last))
        lines = resized(hole, size)[mirrored(np.arange(first, last), size[0])]
        return torch.where(torch.from_numpy(lines[:, columns]), GREY, rgb)

    return vae.encode_canvas(stack.vae, rows, (height, width)).to(stack.device)


def trust_map(hole: np.ndarray | None, size: Size, stack: Stack, outside: float) -> Tensor:
    """(1, 1, h, w) of a canvas: a latent that the hole touches at all is repainted.

    A model of ours that was not taught to fill restores the smooth continuation instead.

    hole  bool (*size); None: there is none.
    """
    height, width = stack.canvas(size)
    trust = torch.full((1, 1, 1, 1), outside, device=stack.device).expand(-1, -1, height, width)
    if hole is None:  # one number, wherever it is asked for
        return trust
    step = stack.factor
    across = hole[:, mirrored(np.arange(width * step), size[1])].reshape(len(hole), width, step)
    across = across.max(2)[mirrored(np.arange(height * step), size[0])]
    touched = torch.from_numpy(across.reshape(height, step, width).max(1))
    inside = RESTORE if stack.layout == TRUST and not stack.fills else REPAINT
    return trust.masked_fill(touched.to(stack.device), inside)


def nothing(size: Size, stack: Stack) -> Tensor:
    """Grey, as `shown` would give it; no channels at all where the layout reads none."""
    height, width = stack.canvas(size)
    if stack.layout.known == "nothing":
        return torch.zeros(1, 0, height, width, device=stack.device)
    height, width = height * stack.factor, width * stack.factor
    grey = torch.full((1, 3, 1, width), GREY)
    latent = vae.encode_canvas(
        stack.vae, lambda a, b: grey.expand(-1, -1, b - a, -1), (height, width)
    )
    return latent.to(stack.device)


def render(latent: Tensor, size: Size, like: Picture, stack: Stack) -> Picture:
    """The picture of a latent, cut to `size`, with the depth, alpha, profile and EXIF of `like`.

    Raises NonFiniteError if decoding leaves the finite numbers.
    """
    top = np.iinfo(like.pixels.dtype).max
    pixels = memmap.empty((*size, 3), like.pixels.dtype)

    def write(rows: slice, columns: slice, rgb: Tensor) -> None:
        if not torch.isfinite(rgb).all():  # cast to integers it would be black
            raise NonFiniteError("decoding the latent left the finite numbers")
        if like.grey:
            rgb = rgb.mean(1, keepdim=True).expand_as(rgb)
        levels = (rgb[0].permute(1, 2, 0) * top).round()
        pixels[rows, columns] = levels.cpu().numpy().astype(pixels.dtype)

    vae.decode_canvas(stack.vae, latent, write, size)
    return replace(like, pixels=pixels, alpha=resize_alpha(like, size))


def added(picture: Picture, made: Picture, known: Tensor, stack: Stack) -> Picture:
    """The picture with what a walk changed added to its pixels.

    So nothing shows of what the autoencoder loses, where the walk has nothing to add.

    made   what the walk's latent decodes to.
    known  the latent (1, C, h, w) of the picture, where the walk began.
    """
    before = render(known, picture.size, picture, stack).pixels
    pixels = memmap.empty(before.shape, before.dtype)
    for first in range(0, len(pixels), BAND):
        rows = slice(first, first + BAND)
        changed = picture.pixels[rows].astype(np.int32) + made.pixels[rows] - before[rows]
        pixels[rows] = np.clip(changed, 0, np.iinfo(before.dtype).max)
        memmap.let_go()
    return replace(made, pixels=pixels)


def canvas_rows(picture: Picture, size: Size, width: int, rows: tuple[int, int]) -> Tensor:
    """rgb (1, 3, rows, width) of the picture resized to `size`, mirrored beyond it."""
    return Strip(picture, size, rows)[..., 0:width]
