"""Rows of a picture resized to a canvas, as tensors. Only one band is held in floats."""

from types import EllipsisType

import torch
from torch import Tensor

from restore.images import strips


class Strip(strips.Strip):
    """As restore.images.strips.Strip, but slicing gives tensors."""

    def __getitem__(self, key: tuple[EllipsisType, slice]) -> Tensor:
        """Return rgb (1, 3, rows, columns)."""
        return torch.from_numpy(self.cut(key[1]))
