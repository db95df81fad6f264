"""ControlNet (Zhang et al. 2023): a second network that is shown a picture and steers the UNet."""

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
"""(rows, columns) of a canvas in pixels -> the rgb (1, 3, h, w) that the ControlNet sees there"""


@dataclass
class Control:
    """A ControlNet, and what it is shown.

    scale    how much it counts: 0 is off, 1 as it was trained.
    picture  of whatever size; None: the picture that is being worked on, as a tile net wants it.
    """

    net: ControlNetModel
    scale: float = 1.0
    picture: Picture | None = None

    def hint(self, size: Size, shown: Picture | None = None, box: Box | None = None) -> Hint:
        """What the net sees over a canvas of `size` pixels, made as windows ask for it.

        shown  the picture that is being worked on, where there is one.
        box    the part of a picture of `size` that the canvas is of.
        Raises UsageError if there is nothing to show.
        """
        picture = self.picture or shown
        if picture is None:
            raise UsageError("a ControlNet needs a picture here; give it by --control-image FILE")
        if box is not None:
            picture, size = part_of(picture, size, box), sides(box)
        return hint_of(bleed(picture), size)


def hint_of(picture: Picture, size: Size) -> Hint:
    """The picture resized to `size` and mirrored beyond it; memory holds one band of rows."""
    band: tuple[tuple[int, int], Strip] | None = None

    def cut(rows: slice, columns: slice) -> Tensor:
        nonlocal band
        key = rows.start, rows.stop
        if band is None or band[0] != key:  # windows beside one another share it
            band = key, Strip(picture, size, key)
        return band[1][..., columns]

    return cut


def part_of(picture: Picture, size: Size, box: Box) -> Picture:
    """The box of a picture that was resized to `size`, in 8 bits."""
    rows, columns = box
    made = resize_band(picture, size, (rows.start, rows.stop))[:, columns]
    return replace(picture, pixels=np.rint(made * 255).astype(np.uint8), alpha=None)


def sides(box: Box) -> Size:
    rows, columns = box
    return rows.stop - rows.start, columns.stop - columns.start
