"""Rows of a picture resized, and the blocks that a canvas is cut into; free of torch."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from restore.images.picture import Picture
from restore.images.resample import Band

Size = tuple[int, int]  # (height, width)


class Strip:
    """Rows of a picture resized to `size`, mirrored beyond it, to be cut by columns."""

    def __init__(self, picture: Picture, size: Size, rows: tuple[int, int]):
        down = mirrored(np.arange(*rows), size[0])
        first = int(down.min())
        self._band = Band(picture, size, (first, int(down.max()) + 1))
        self._down, self._width = down - first, size[1]

    def cut(self, columns: slice) -> np.ndarray:
        """rgb (1, 3, rows, columns), its channels side by side in memory"""
        across = mirrored(np.arange(columns.start, columns.stop), self._width)
        first = int(across.min())
        band = self._band.cut(slice(first, int(across.max()) + 1))
        return band[self._down][:, across - first].transpose(2, 0, 1)[None]


def mirrored(index: np.ndarray, length: int) -> np.ndarray:
    """Indices of a line continued by its mirror image, again and again."""
    index = index % (2 * length)
    return np.where(index < length, index, 2 * length - 1 - index)


@dataclass(frozen=True)
class Block:
    """A rectangle of a canvas and the margin round it that a convolution has to see.

    Attributes:
        inner: Rows and columns that this block gives, as slices of the canvas.
        outer: The same with the margin, cut at the canvas's borders.
    """

    inner: tuple[slice, slice]
    outer: tuple[slice, slice]

    def trim(self, result: Any, scale: float = 1) -> Any:
        """Cut what was made from `outer` (at `scale` times its size) down to `inner`."""
        spans = []
        for inner, outer in zip(self.inner, self.outer, strict=True):
            start = round((inner.start - outer.start) * scale)
            spans.append(slice(start, start + round((inner.stop - inner.start) * scale)))
        return result[..., spans[0], spans[1]]


def blocks(
    needed: tuple[int, int], canvas: tuple[int, int], size: int, halo: int
) -> Iterator[Block]:
    """Cut the first rows and columns of a canvas into blocks.

    Args:
        needed: (rows, columns) that are cut.
        canvas: (height, width) of the canvas, where margins end.
        size: Side of a block.
        halo: Margin on each side of a block.
    """

    def spans(length: int, limit: int) -> list[tuple[slice, slice]]:
        cuts = [(start, min(start + size, length)) for start in range(0, length, size)]
        return [(slice(a, b), slice(max(0, a - halo), min(limit, b + halo))) for a, b in cuts]

    for rows, columns in product(*(spans(n, c) for n, c in zip(needed, canvas, strict=True))):
        yield Block((rows[0], columns[0]), (rows[1], columns[1]))
