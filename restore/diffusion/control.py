"""ControlNet (Zhang et al. 2023): a second network that reads a picture and steers the UNet."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from diffusers import ControlNetModel
from torch import Tensor

from restore.diffusion.strips import Strip
from restore.errors import UsageError
from restore.images.masks import Box
from restore.images.picture import Picture, bleed
from restore.images.resample import resize_band
from restore.images.strips import Size

Hint = Callable[[slice, slice], Tensor]
"""(rows, columns) of a canvas in pixels -> the ControlNet's input there, rgb (1, 3, h, w)"""


@dataclass
class Control:
    """A ControlNet and its input.

    Attributes:
        net: The network.
        scale: The conditioning scale: 0 is off, 1 is as trained.
        picture: Of any size. None: the picture that is processed, as tile ControlNets expect.
    """

    net: ControlNetModel
    scale: float = 1.0
    picture: Picture | None = None

    def hint(self, size: Size, default: Picture | None = None, box: Box | None = None) -> Hint:
        """Return a function that gives the network's input for parts of a canvas.

        Args:
            size: (height, width) of the picture in pixels.
            default: The picture that is processed, if there is one.
            box: The part of the picture that the canvas covers. None: all of it.

        Raises:
            UsageError: If there is no picture.
        """
        picture = self.picture or default
        if picture is None:
            raise UsageError("a ControlNet needs a picture here; give it by --control-image FILE")
        if box is not None:
            picture, size = part_of(picture, size, box), sides(box)
        return hint_of(bleed(picture), size)


def hint_of(picture: Picture, size: Size) -> Hint:
    """Resize a picture to `size` and pad it by mirroring, one band of rows at a time."""
    band: tuple[tuple[int, int], Strip] | None = None

    def cut(rows: slice, columns: slice) -> Tensor:
        nonlocal band
        key = rows.start, rows.stop
        if band is None or band[0] != key:  # windows side by side share it
            band = key, Strip(picture, size, key)
        return band[1][..., columns]

    return cut


def part_of(picture: Picture, size: Size, box: Box) -> Picture:
    """Cut a box from a picture resized to `size`; in 8 bits."""
    rows, columns = box
    made = resize_band(bleed(picture), size, (rows.start, rows.stop))[:, columns]
    return replace(picture, pixels=np.rint(made * 255).astype(np.uint8), alpha=None)


def sides(box: Box) -> Size:
    rows, columns = box
    return rows.stop - rows.start, columns.stop - columns.start
