"""Fill a hole with patches from elsewhere in the picture, for texture and repeated shapes.

Each patch that meets the hole looks for the most similar patch outside of it. The pixels of the
hole become the mean of what those patches hold, and the search begins anew, from coarse to fine
(Wexler et al. 2007, Space-Time Completion of Video). The search is PatchMatch (Barnes et al. 2009).
Patches are compared by colour and texture (Newson et al. 2017, Non-Local Patch-Based Image
Inpainting). What is near the rim counts most, as does a source that is near: both keep other things
of the picture out of the hole. Where patches disagree, their mean is soft, as it should be.
"""

from collections.abc import Iterator
from functools import cached_property

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from restore.images.masks import fill_smoothly

REACH = 3  # px from the middle of a patch to its side
SIDE = 2 * REACH + 1
TEXTURE = 3.0  # weight of a gradient beside a colour, both in [0, 255]
DEPTH = 2.0  # a pixel counts this much less for each px that it lies deeper in the hole
DEEP = 128  # px: depths count from the last multiple of this, or all weights would become 0
UNLIKE = 1e-9  # weight of sources that differ most: where all do, their mean is what there is
FAR = 400.0  # squared levels that a source a picture's side away costs
ROUNDS = (10, 5, 3)  # of search and mean, at the coarsest, a middle and the finest level
CHUNK = 1 << 14  # patches compared at once: 30 MB
OFFSETS = [(y, x) for y in range(-REACH, REACH + 1) for x in range(-REACH, REACH + 1)]
BESIDE = ((0, 1), (0, -1), (1, 0), (-1, 0))


def patchmatch(pixels: np.ndarray, hole: np.ndarray, seed: int = 0) -> np.ndarray:
    """Fill a hole by patches of the same picture.

    Args:
        pixels: (H, W, 3), uint8 or uint16.
        hole: bool (H, W).
        seed: Of the random search.

    Returns:
        The filled pixels. They are filled smoothly if no patch lies wholly outside of the hole.
    """
    smooth = fill_smoothly(pixels, hole)
    if not hole.any() or hole.all() or not (levels := list(pyramid(smooth, hole))):
        return smooth
    rng = np.random.default_rng(seed)
    match = None
    for nth, level in reversed(list(enumerate(levels))):
        rounds = ROUNDS[0] if match is None else ROUNDS[1 if nth else 2]
        match = Match(level, rng, match)
        for done in range(rounds):
            match.improve(rng, thorough=done == 0)
            match.average()
    top = np.iinfo(pixels.dtype).max
    made = smooth.copy()
    made[hole] = np.rint(levels[0].pixels[hole][:, :3] * (top / 255)).clip(0, top)
    return made


class Level:
    """One level of the pyramid.

    Attributes:
        pixels: float32 (H, W, 5): colours in [0, 255], and texture, weighted.
        hole: bool (H, W).
    """

    def __init__(self, pixels: np.ndarray, hole: np.ndarray):
        self.pixels, self.hole = pixels, hole
        square = np.ones((SIDE, SIDE), np.uint8)
        self.touched = cv2.dilate(hole.astype(np.uint8), square) > 0
        inside = np.zeros_like(hole)
        inside[REACH:-REACH, REACH:-REACH] = True
        self.usable = inside & ~self.touched
        self.targets = np.array(np.nonzero(self.touched))
        self.sources = np.array(np.nonzero(self.usable))

    @cached_property
    def index(self) -> np.ndarray:
        """Which target a pixel is, int64 (H, W), or -1."""
        index = np.full(self.hole.shape, -1, np.int64)
        index[tuple(self.targets)] = np.arange(self.targets.shape[1])
        return index

    @cached_property
    def depths(self) -> np.ndarray:
        """How deep in the hole each pixel of a patch is, (H, W, SIDE, SIDE); a view."""
        depth = cv2.distanceTransform(self.hole.astype(np.uint8), cv2.DIST_L2, 5)
        return sliding_window_view(np.pad(depth, REACH, mode="reflect"), (SIDE, SIDE))

    def patches(self) -> np.ndarray:
        """Patches as they are now, (H, W, SIDE, SIDE * 5); a view."""
        around = ((REACH, REACH), (REACH, REACH), (0, 0))
        rows = np.pad(self.pixels, around, mode="reflect").reshape(len(self.hole) + 2 * REACH, -1)
        return sliding_window_view(rows, (SIDE, SIDE * 5))[:, ::5]

    def clip(self, at: np.ndarray) -> np.ndarray:
        """Move rows and columns, (2, N), into the picture."""
        height, width = self.hole.shape
        return np.stack([at[0].clip(0, height - 1), at[1].clip(0, width - 1)])


class Match:
    """The most similar source of each target.

    Attributes:
        at: int64 (2, N): rows and columns of the sources.
        error: float32 (N,): how much they differ, in squared levels a pixel.
    """

    def __init__(self, level: Level, rng: np.random.Generator, coarser: "Match | None"):
        self.level = level
        self.at = self._drawn(rng, level.targets.shape[1])
        self.error = np.zeros(self.at.shape[1], np.float32)
        if coarser is None:
            return
        above = coarser.level
        nth = above.index[tuple(above.clip(level.targets // 2))]
        finer = level.clip(2 * coarser.at[:, nth] + level.targets % 2)
        good = (nth >= 0) & level.usable[tuple(finer)]
        self.at = np.where(good, finer, self.at)
        self.error = np.where(good, 0, 1e9).astype(np.float32)
        self.average()

    def improve(self, rng: np.random.Generator, thorough: bool) -> None:
        """Try the neighbours' sources and random ones, and keep what is more similar."""
        patches, count = self.level.patches(), self.at.shape[1]
        for start in range(0, count, CHUNK):
            some = np.arange(start, min(start + CHUNK, count))
            compare = Comparison(self.level, patches, some)
            self.error[some] = compare(slice(None), self.at[:, some])
            for _ in range(4 if thorough else 2):
                for candidates in self._candidates(some, rng, (1, 2, 4, 8) if thorough else (1, 2)):
                    self._try(some, candidates, compare)

    def average(self) -> None:
        """Give each pixel of the hole the mean of what its patches' sources hold there."""
        level = self.level
        sharp = np.exp(-self.error / (2 * np.percentile(self.error, 75) + 1e-6))
        sharp = np.maximum(sharp, UNLIKE)
        total = np.zeros((*level.hole.shape, 6), np.float32)[level.hole]
        for nth, source in self._votes():
            weight = np.where(nth >= 0, sharp[nth], 0)[:, None]
            total[:, :5] += weight * level.pixels[tuple(source)]
            total[:, 5:] += weight
        level.pixels[level.hole] = total[:, :5] / total[:, 5:]

    def _votes(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield, for each place in a patch, which target speaks for each pixel, or -1, and what."""
        level = self.level
        pixels = np.array(np.nonzero(level.hole))
        for offset in np.array(OFFSETS):
            middle = pixels - offset[:, None]
            inside = level.clip(middle)
            nth = np.where((inside == middle).all(0), level.index[tuple(inside)], -1)
            yield nth, level.clip(self.at[:, nth] + offset[:, None])

    def _candidates(
        self, some: np.ndarray, rng: np.random.Generator, steps: tuple[int, ...]
    ) -> Iterator[np.ndarray]:
        """Yield sources to try for some targets, (2, n); -1 where there is none."""
        level = self.level
        targets = level.targets[:, some]
        for step in steps:
            for beside in BESIDE:
                shift = step * np.array(beside)[:, None]
                nth = level.index[tuple(level.clip(targets - shift))]
                yield np.where(nth >= 0, self.at[:, nth] + shift, -1)
        reach = max(level.hole.shape) // 4
        while reach >= 1:
            yield self.at[:, some] + rng.integers(-reach, reach + 1, targets.shape)
            reach //= 2
        yield self._drawn(rng, len(some))

    def _try(self, some: np.ndarray, candidates: np.ndarray, compare: "Comparison") -> None:
        inside = self.level.clip(candidates)
        usable = (inside == candidates).all(0) & self.level.usable[tuple(inside)]
        usable &= (candidates != self.at[:, some]).any(0)
        tried = np.flatnonzero(usable)
        error = compare(tried, candidates[:, tried])
        better = error < self.error[some[tried]]
        kept = some[tried[better]]
        self.at[:, kept], self.error[kept] = candidates[:, tried[better]], error[better]

    def _drawn(self, rng: np.random.Generator, count: int) -> np.ndarray:
        sources = self.level.sources
        return sources[:, rng.integers(0, sources.shape[1], count)]


class Comparison:
    """Compares the patches of some targets with sources."""

    def __init__(self, level: Level, patches: np.ndarray, some: np.ndarray):
        self.patches, self.targets = patches, level.targets[:, some]
        self.far = FAR / max(level.hole.shape)
        self.mine = patches[tuple(self.targets)].reshape(len(some), -1)
        depth = level.depths[tuple(self.targets)].reshape(len(some), -1)
        middle = depth[:, SIDE**2 // 2, None]
        weights = DEPTH ** (middle // DEEP * DEEP - depth)
        weights = weights / weights.sum(1, keepdims=True)
        self.weights = np.repeat(weights, 5, 1)

    def __call__(self, which: np.ndarray | slice, sources: np.ndarray) -> np.ndarray:
        """Return how much the targets differ from sources (2, n): squared levels a pixel."""
        away = self.patches[tuple(sources)].reshape(-1, self.mine.shape[1])
        away -= self.mine[which]
        error = np.einsum("ij,ij,ij->i", away, away, self.weights[which])
        return error + self.far * np.hypot(*(sources - self.targets[:, which]))


def pyramid(pixels: np.ndarray, hole: np.ndarray) -> Iterator[Level]:
    """Yield levels from fine to coarse, until no hole is deeper than a patch.

    Args:
        pixels: (H, W, 3), the hole filled smoothly.
        hole: bool (H, W).
    """
    deepest = cv2.distanceTransform(hole.astype(np.uint8), cv2.DIST_L2, 5).max()
    halvings = max(0, int(np.ceil(np.log2(max(deepest, 1) / (1.5 * REACH)))))
    colours = pixels.astype(np.float32) * (255 / np.iinfo(pixels.dtype).max)
    values = np.concatenate([colours, TEXTURE * texture(colours, hole, 2 << halvings)], -1)
    for _ in range(halvings + 1):
        level = Level(values, hole)
        if min(hole.shape) < 4 * SIDE or not level.sources.size:
            return
        yield level
        half = (hole.shape[1] + 1) // 2, (hole.shape[0] + 1) // 2
        parts = values[..., :3], values[..., 3:]  # OpenCV takes four channels at most
        smaller = [cv2.resize(part, half, interpolation=cv2.INTER_AREA) for part in parts]
        values = np.concatenate(smaller, -1)
        share = cv2.resize(hole.astype(np.float32), half, interpolation=cv2.INTER_AREA)
        hole = share >= 0.5


def texture(colours: np.ndarray, hole: np.ndarray, size: int) -> np.ndarray:
    """Measure texture: mean sizes of the grey gradients across and down, float32 (H, W, 2).

    Args:
        colours: float32 (H, W, 3).
        hole: bool (H, W); what lies there is filled smoothly.
        size: Pixels that a mean spans.
    """
    grey = colours.mean(-1)
    steps = np.stack([cv2.Sobel(grey, cv2.CV_32F, *axis, ksize=1) for axis in ((1, 0), (0, 1))], -1)
    given = cv2.erode((~hole).astype(np.float32), np.ones((3, 3), np.uint8))
    share = cv2.blur(given, (size, size))
    means = (
        cv2.blur(np.abs(steps) * given[..., None], (size, size))
        / np.maximum(share, 1e-6)[..., None]
    )
    return fill_smoothly(np.rint(64 * means).astype(np.uint16), hole).astype(np.float32) / 64
