"""Windows over a picture for a network from rgb to rgb: cut on an absolute grid, joined again."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from restore.diffusion import watch
from restore.diffusion.tiling import raised_cosine

Network = Callable[[Tensor], Tensor]
"""rgb (1, 3, h, w) -> rgb (1, 3, scale h, scale w)"""
Read = Callable[[slice, slice], Tensor]  # gives the rgb of those rows and columns
Write = Callable[[slice, slice, Tensor], None]  # takes it


@dataclass(frozen=True)
class Cut:
    """One window along one side of a picture, in its pixels.

    sees     what the network is shown.
    answers  the part of it whose answer counts.
    before   pixels at the beginning of `answers` that are shared with the window before; `after`,
             at its end, with the next one.
    """

    sees: slice
    answers: slice
    before: int
    after: int

    def weight(self, scale: int) -> Tensor:
        """How much each pixel of the answer counts, (scale * length of answers,).

        Neighbours add up to one.
        """
        weight = torch.ones((self.answers.stop - self.answers.start) * scale)
        first, last = self.before * scale, self.after * scale
        weight[:first] = raised_cosine(first)
        weight[len(weight) - last :] = raised_cosine(last).flip(0)
        return weight


@dataclass(frozen=True)
class PixelWindows:
    """The grid for a network; all in pixels of the picture that it reads.

    inner   side of the squares that the picture is parted into, one for each window.
    margin  what a window sees beyond the part that it answers for.
    ramp    how far to each side of a border two windows blend; 0: they meet there.
    """

    inner: int
    margin: int
    ramp: int = 0

    @property
    def halo(self) -> int:
        """What a window sees beyond its square."""
        return self.margin + self.ramp

    def cuts(self, length: int) -> list[Cut]:
        """The windows along a side; where squares begin depends on nothing but the grid.

        A last square no larger than the halo is left to the window before it.
        """
        starts = range(0, max(1, length - self.halo), self.inner)
        cuts = []
        for start in starts:
            before = self.ramp if start else 0
            is_last = start == starts[-1]
            after = 0 if is_last else self.ramp
            end = length if is_last else start + self.inner
            sees = slice(max(0, start - self.halo), min(length, end + self.halo))
            cuts.append(Cut(sees, slice(start - before, end + after), 2 * before, 2 * after))
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
    """Read a picture of (height, width) by windows, and write the network's answer, `scale` times
    as large.

    Beside a window, what rows of windows share is held in floats, and nothing else.
    """
    down, across = (windows.cuts(length) for length in size)
    count = watch.counter(len(down) * len(across), "enlarge")
    above = torch.zeros(0)
    for row in down:
        below = torch.zeros(1, 3, row.after * scale, size[1] * scale)
        left = torch.zeros(0)
        for column in across:
            made = _weighted(network(read(row.sees, column.sees)), row, column, scale)
            before, after = column.before * scale, made.shape[-1] - column.after * scale
            if before:
                made[..., :before] += left
            left, made = made[..., after:].clone(), made[..., :after]
            first = column.answers.start * scale
            columns = slice(first, first + made.shape[-1])
            before, after = row.before * scale, made.shape[-2] - row.after * scale
            if before:
                made[..., :before, :] += above[..., columns].to(made)
            if row.after:
                below[..., columns] = made[..., after:, :].to(below)
                made = made[..., :after, :]
            first = row.answers.start * scale
            write(slice(first, first + made.shape[-2]), columns, made)
            count()
        above = below


def _weighted(made: Tensor, row: Cut, column: Cut, scale: int) -> Tensor:
    """What counts of a window's answer, its shared borders weighted."""
    for axis, cut in ((-2, row), (-1, column)):
        first = (cut.answers.start - cut.sees.start) * scale
        made = made.narrow(axis, first, (cut.answers.stop - cut.answers.start) * scale)
    if not (row.before or row.after or column.before or column.after):
        return made
    return made * (row.weight(scale)[:, None] * column.weight(scale)).to(made)
