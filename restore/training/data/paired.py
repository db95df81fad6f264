"""Pairs that are given: a folder of good pictures and one of bad ones, with the same names."""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np

from restore.errors import ConfigError, ImageError, counted
from restore.file_search import composed
from restore.training.data import sources
from restore.training.data.crops import (
    PATIENCE,
    UNREADABLE,
    Photos,
    apply_turn,
    draw_turn,
    gradient_strength,
)


class Cut(NamedTuple):
    """Crops of the same place of both pictures of a pair."""

    truth: np.ndarray
    """uint8 (size, size, 3)."""
    low: np.ndarray
    """uint8 (size / scale, size / scale, 3)."""
    scale: int
    """How many times larger truth is than low, on each side."""


class PairedPhotos(Photos):
    """Good pictures with degraded partners, which are as large or a whole number of times smaller.

    Partners have the same path within their folder, whatever the extension. Pictures without a
    partner that fits are left out and listed.

    Args:
        high: Where the good pictures are.
        low: Where their partners are.
        smallest: Pixels that a good picture needs on both sides.
        named: Name of a partner, where {} is the name of the good picture, such as {}x4.
        **how: Further arguments of Photos.

    Raises:
        ConfigError: If no pair is left.
    """

    def __init__(
        self, high: sources.Place, low: sources.Place, smallest: int, named: str = "{}", **how
    ):
        self.low, self.named = sources.find(low), named
        self.partner = _stems(self.low.names)
        self.exactly = {composed(name): number for number, name in enumerate(self.low.names)}
        self.unpaired: list[str] = []
        super().__init__(high, smallest, **{**how, "small": "skip"})
        self.low_cache: list[np.ndarray | None] | None = None
        if self.cache:
            self.low_cache = [self.read_low(index) for index in range(len(self.numbers))]

    def _size(self, number: int) -> tuple[int, int] | None:
        name = self.source.names[number]
        size = super()._size(number)
        if not size:
            return None
        others = self._partners(name)
        if len(others) > 1:
            first, second = (self.low.names[n] for n in others[:2])
            why = f"{first} and {second} could both be its partner"
            self.refused.add(name, f"{why}; remove one, or give it the good one's extension")
            return None
        if not others:
            self.unpaired.append(name)
            self.refused.add(name, f"has no partner {self._called(name)} among the low ones")
            return None
        other = others[0]
        try:
            low = self.low.size(other)
        except ImageError as error:
            self.refused.add(self.low.names[other], str(error))
            return None
        return size if self._fits(number, size, low) else None

    def _fits(self, number: int, high: Sequence[int], low: Sequence[int]) -> bool:
        """Whether two sizes are those of a pair; if not, the good picture is listed."""
        if _scale(high, low):
            return True
        why = f"{high[1]}x{high[0]} px is no whole multiple of its partner's {low[1]}x{low[0]}"
        self.refused.add(self.source.names[number], f"{why}; cut it to one")
        return False

    def _partners(self, name: str) -> list[int]:
        """Of the low ones those that may belong to a good one; one of its extension goes first."""
        called = self._called(name)
        exact = self.exactly.get(called + PurePosixPath(name).suffix)
        return self.partner.get(called, []) if exact is None else [exact]

    def _called(self, name: str) -> str:
        """The partner of a good picture, without its extension."""
        path = PurePosixPath(_stem(name))
        return path.with_name(self.named.replace("{}", path.name)).as_posix()

    def _tell(self, photos: sources.Place, small: str) -> None:
        if self.source.names and len(self.unpaired) == len(self.source.names):
            first, low = min(self.unpaired), min(self.low.names, default="none at all")
            raise ConfigError(
                f"none of {counted(len(self.unpaired), 'picture')} has a partner: for {first} "
                f"there is no {self._called(first)} among the low ones ({low}, ...); name them "
                f"alike, or say how they are named by {self._mend(first, low)}"
            )
        if not self.numbers and not self.small and self.refused.why:
            name, why = next(iter(self.refused.why.items()))
            raise ConfigError(f"none of the pairs can be used, the first for this: {name}: {why}")
        super()._tell(photos, small)

    def _mend(self, first: str, low: str) -> str:
        """data.low_name as it seems to be meant."""
        stem, other = PurePosixPath(first).stem, PurePosixPath(low).stem
        seems = other.replace(stem, "{}", 1) if stem and stem in other else "{}x4"
        return f"stage.data.low_name='{seems}'"

    def read_low(self, index: int) -> np.ndarray | None:
        """The partner of a good picture, uint8 (h, w, 3); None if it cannot be read, which is
        listed.
        """
        other = self._partners(self.source.names[self.numbers[index]])[0]
        try:
            return self.low.read(other)
        except ImageError as error:
            self.refused.add(self.low.names[other], str(error))
            return None

    def cut(self, size: int, detail: int, rng: np.random.Generator) -> Cut:
        """Crops of a random pair, turned and mirrored together.

        Args:
            size: Side of the good crop, pixels.
            detail: Number of candidates, of which the most detailed is taken.
            rng: Draws them.

        Raises:
            ConfigError: If the size is no multiple of the scale of a pair, or if very many pictures
                in a row cannot be read.
        """
        for _ in range(PATIENCE):
            if best := self._most_detailed(size, detail, rng):
                break
        else:
            raise ConfigError(UNREADABLE)
        if not self.turns:
            return best
        way = draw_turn(rng)
        return Cut(apply_turn(best.truth, *way), apply_turn(best.low, *way), best.scale)

    def _most_detailed(self, size: int, detail: int, rng: np.random.Generator) -> Cut | None:
        """The best of some candidates; None if no partner of theirs can be read."""
        best, most = None, -1.0
        for _ in range(detail):
            index, high = self.draw(rng)
            low = self.low_cache[index] if self.low_cache else self.read_low(index)
            if low is None or not self._fits(self.numbers[index], high.shape, low.shape):
                continue  # a file may have become another one since
            scale = _scale(high.shape, low.shape)
            if size % scale:
                message = f"a crop of {size} px is no multiple of the scale {scale} of its pairs"
                raise ConfigError(f"{message}; set data.crop to one")
            y, x = (
                int(rng.integers(side - size // scale + 1)) for side in low.shape[:2]
            )  # in low pixels
            truth = high[y * scale : y * scale + size, x * scale : x * scale + size]
            if (strength := gradient_strength(truth)) > most:
                small = low[y : y + size // scale, x : x + size // scale]
                best, most = Cut(truth, small, scale), strength
        return best


def _stem(name: str) -> str:
    return PurePosixPath(composed(name)).with_suffix("").as_posix()


def _stems(names: Sequence[str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        found.setdefault(_stem(name), []).append(number)
    return found


def _scale(high: Sequence[int], low: Sequence[int]) -> int:
    """How many times larger `high` is on both sides; 0 if it is no whole number of times."""
    (height, width), (h, w) = high[:2], low[:2]
    scale = height // h
    return scale if scale and (h * scale, w * scale) == (height, width) else 0
