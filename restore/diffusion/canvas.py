"""Pictures <-> canvases: padded by mirroring before, cut to size after."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
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
from restore.images.sketches import SIDE
from restore.images.strips import mirrored

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
    picture, canvas = bleed(picture, hole), stack.canvas(size)
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
    pixels = memmap.empty((*size, 3), like.pixels.dtype)

    def write(rows: slice, columns: slice, levels: np.ndarray) -> None:
        pixels[rows, columns] = np.rint(levels)

    decode(latent, size, like, stack, write)
    return replace(like, pixels=pixels, alpha=resize_alpha(like, size))


def decode(
    latent: Tensor,
    size: Size,
    like: Picture,
    stack: Stack,
    write: Callable[[slice, slice, np.ndarray], None],
) -> None:
    """Decode a latent by parts.

    Args:
        latent: Scaled (1, C, h, w).
        size: (height, width) in pixels that the canvas is cut to.
        like: Its depth gives the range of the levels; if it is grey, they are grey.
        stack: Gives the VAE.
        write: Takes rows, columns and their levels (h, w, 3), float32 from 0 to the depth's last.

    Raises:
        NonFiniteError: If decoding produces NaN or infinity.
    """
    top = np.iinfo(like.pixels.dtype).max

    def take(rows: slice, columns: slice, rgb: Tensor) -> None:
        if not torch.isfinite(rgb).all():  # casting to integers would make it black
            raise NonFiniteError("decoding the latent left the finite numbers")
        if like.grey:
            rgb = rgb.mean(1, keepdim=True).expand_as(rgb)
        write(rows, columns, (rgb[0].permute(1, 2, 0) * top).cpu().numpy())

    vae.decode_canvas(stack.vae, latent, take, size)


def sketch(latent: Tensor, size: Size, stack: Stack) -> np.ndarray:
    """Decode a latent to a small picture to look at: it is averaged to fit into SIDE first.

    Args:
        latent: Scaled (1, C, h, w), of a canvas.
        size: (height, width) in pixels that the canvas is cut to.
        stack: Gives the VAE.

    Returns:
        uint8 (h, w, 3).
    """
    step = stack.factor
    needed = [-(-length // step) for length in size]
    cut = latent[..., : needed[0], : needed[1]]
    share = min(1, SIDE / (step * max(needed)))
    fewer = [max(1, round(length * share)) for length in needed]
    rgb = vae.decode(stack.vae, F.adaptive_avg_pool2d(cut.float(), fewer))
    height, width = (round(a / b * c * step) for a, b, c in zip(size, needed, fewer, strict=True))
    rgb = rgb[0, :, : max(1, height), : max(1, width)].permute(1, 2, 0)
    return (rgb.nan_to_num() * 255).round().to("cpu", torch.uint8).numpy()


def add_changes(
    picture: Picture, latent: Tensor, conditioning: Tensor, stack: Stack, depth: np.dtype
) -> Picture:
    """Add to a picture's pixels what sampling changed.

    So the losses of the autoencoder do not show where sampling changes nothing. The sum is rounded
    once: of two roundings, engines that differ in the last bit could differ by two levels.

    Args:
        picture: The picture; of 16 bits, if it is itself a result that was rounded.
        latent: The result of sampling, scaled (1, C, h, w).
        conditioning: The latent of the picture, where sampling started.
        stack: Gives the VAE.
        depth: Of the result.

    Raises:
        NonFiniteError: If decoding produces NaN or infinity.
    """
    size, top = picture.size, np.iinfo(picture.pixels.dtype).max
    before = memmap.empty((*size, 3), np.dtype(np.uint16))
    pixels = memmap.empty((*size, 3), depth)
    last = np.iinfo(depth).max
    share = np.float32(np.iinfo(np.uint16).max / top)

    def note(rows: slice, columns: slice, levels: np.ndarray) -> None:
        before[rows, columns] = np.rint(levels * share)

    def add(rows: slice, columns: slice, levels: np.ndarray) -> None:
        changed = picture.pixels[rows, columns] + (levels - before[rows, columns] / share)
        pixels[rows, columns] = np.rint(changed * np.float32(last / top)).clip(0, last)

    decode(conditioning, size, picture, stack, note)
    decode(latent, size, picture, stack, add)
    return replace(picture, pixels=pixels)


def canvas_rows(picture: Picture, size: Size, width: int, rows: tuple[int, int]) -> Tensor:
    """Resize a picture, pad it by mirroring, and return some of its rows.

    Args:
        picture: The picture.
        size: (height, width) to which it is resized.
        width: Of the canvas, pixels.
        rows: (first, last) row of the canvas.

    Returns:
        rgb (1, 3, last - first, width).
    """
    return Strip(picture, size, rows)[..., 0:width]
