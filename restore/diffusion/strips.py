"""Rows of a picture resized to a canvas, as they are asked for: floats of one band at a time."""

from types import EllipsisType

import numpy as np
import torch
from torch import Tensor

from restore.images.picture import Picture
from restore.images.resample import Band

Size = tuple[int, int]  # (height, width)


class Strip:
    """Rows of a picture resized to `size`, mirrored beyond it; columns of them when sliced."""

    def __init__(self, picture: Picture, size: Size, rows: tuple[int, int]):
        down = mirrored(np.arange(*rows), size[0])
        first = int(down.min())
        self._band = Band(picture, size, (first, int(down.max()) + 1))
        self._down, self._width = down - first, size[1]

    def __getitem__(self, key: tuple[EllipsisType, slice]) -> Tensor:
        """rgb (1, 3, rows, columns)"""
        across = mirrored(np.arange(key[1].start, key[1].stop), self._width)
        first = int(across.min())
        band = self._band.cut(slice(first, int(across.max()) + 1))
        return torch.from_numpy(band[self._down][:, across - first]).permute(2, 0, 1)[None]


def mirrored(index: np.ndarray, length: int) -> np.ndarray:
    """Indices of a line continued by its mirror image, again and again."""
    index = index % (2 * length)
    return np.where(index < length, index, 2 * length - 1 - index)
