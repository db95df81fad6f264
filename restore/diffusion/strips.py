"""Rows of a picture resized to a canvas, as tensors: floats of one band at a time."""

from types import EllipsisType

import torch
from torch import Tensor

from restore.images import strips


class Strip(strips.Strip):
    """As tensors; columns of them when sliced."""

    def __getitem__(self, key: tuple[EllipsisType, slice]) -> Tensor:
        """rgb (1, 3, rows, columns)"""
        return torch.from_numpy(self.cut(key[1]))
