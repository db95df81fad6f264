"""Windows over a picture for a network from rgb to rgb, on an absolute grid."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from restore.diffusion import watch
from restore.diffusion.tiling import raised_cosine

Network = Callable[[Tensor], Tensor]
"""rgb (1, 3, h, w) -> rgb (1, 3, scale h, scale w)"""
Read = Callable[[slice, slice], Tensor]  # (rows, columns) -> their rgb
Write = Callable[[slice, slice, Tensor], None]  # takes rows, columns and their rgb


@dataclass(frozen=True)
class Cut:
    """One window along one side of a picture, in pixels of the picture.

    Attributes:
        sees: The input of the network.
        answers: The part of the input whose output is used.
        before: Pixels at the beginning of `answers` that are blended with the window before.
        after: Pixels at its end that are blended with the next window.
    """

    sees: slice
    answers: slice
    before: int
    after: int

    def weight(self, scale: int) -> Tensor:
        """Return the output's weights (scale * length of answers,); neighbours add up to one."""
        weight = torch.ones((self.answers.stop - self.answers.start) * scale)
        first, last = self.before * scale, self.after * scale
        weight[:first] = raised_cosine(first)
        weight[len(weight) - last :] = raised_cosine(last).flip(0)
        return weight


@dataclass(frozen=True)
class PixelWindows:
    """The grid of windows for a network, in pixels of its input.

    Attributes:
        inner: How far each window begins behind the one before.
        margin: How far a window's input extends beyond the part whose output is used.
        ramp: How far to each side of a border two windows are blended; 0 for no blending.
    """

    inner: int
    margin: int
    ramp: int = 0

    @property
    def halo(self) -> int:
        """How far two windows overlap on each side of the border of their answers."""
        return self.margin + self.ramp

    def cuts(self, length: int) -> list[Cut]:
        """Return the windows along a side, which begin at multiples of `inner`.

        All see inner + 2 * halo, the last one less; the first and the last answer for more of it.
        """
        starts = range(0, max(1, length - 2 * self.halo), self.inner)
        cuts = []
        for start in starts:
            before = self.ramp if start else 0
            is_last = start == starts[-1]
            after = 0 if is_last else self.ramp
            first = start + self.halo if start else 0
            end = length if is_last else start + self.inner + self.halo
            sees = slice(start, min(length, end + self.halo))
            cuts.append(Cut(sees, slice(first - before, end + after), 2 * before, 2 * after))
        return cuts

    def is_one(self, size: tuple[int, int]) -> bool:
        """Whether one window holds a picture of (height, width)."""
        return all(len(self.cuts(length)) == 1 for length in size)


def enlarge(
    network: Network,
    scale: int,
    size: tuple[int, int],
    windows: PixelWindows,
    read: Read,
    write: Write,
) -> None:
    """Run a network over a picture by windows.

    Only one window and the rows that two rows of windows share are held in floats.

    Args:
        network: Enlarges rgb.
        scale: How much it enlarges.
        size: (height, width) of the picture.
        windows: The grid.
        read: Gives rgb of the picture.
        write: Takes rgb of the result.
    """
    down, across = (windows.cuts(length) for length in size)
    count = watch.counter(len(down) * len(across), "enlarge")
    above = torch.zeros(0)
    for row in down:
        below = torch.zeros(1, 3, row.after * scale, size[1] * scale)
        left = torch.zeros(0)
        for column in across:
            tile = _weighted(network(read(row.sees, column.sees)), row, column, scale)
            before, after = column.before * scale, tile.shape[-1] - column.after * scale
            if before:
                tile[..., :before] += left
            left, tile = tile[..., after:].clone(), tile[..., :after]
            first = column.answers.start * scale
            columns = slice(first, first + tile.shape[-1])
            before, after = row.before * scale, tile.shape[-2] - row.after * scale
            if before:
                tile[..., :before, :] += above[..., columns].to(tile)
            if row.after:
                below[..., columns] = tile[..., after:, :].to(below)
                tile = tile[..., :after, :]
            first = row.answers.start * scale
            write(slice(first, first + tile.shape[-2]), columns, tile)
            count()
        above = below


def _weighted(tile: Tensor, row: Cut, column: Cut, scale: int) -> Tensor:
    """Cut the part of a window's output that is used, and weight its blended borders."""
    for axis, cut in ((-2, row), (-1, column)):
        first = (cut.answers.start - cut.sees.start) * scale
        tile = tile.narrow(axis, first, (cut.answers.stop - cut.answers.start) * scale)
    if not (row.before or row.after or column.before or column.after):
        return tile
    return tile * (row.weight(scale)[:, None] * column.weight(scale)).to(tile)
