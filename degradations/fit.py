"""Distributions as ranges that a recipe can draw from, and a recipe from measured photos."""

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import numpy as np

from degradations.errors import counted
from degradations.measure import Measured
from degradations.ops import (
    Blur,
    Cast,
    Fade,
    GaussianNoise,
    Jpeg,
    Maybe,
    OneOf,
    PoissonNoise,
    Resize,
    Step,
)
from degradations.ops import Sequence as Steps
from degradations.pipeline import Recipe
from degradations.ranges import Choice, Uniform

_COLOUR = 0.668  # luma noise of three independent channels of deviation 1, BT.601
_LARGEST_BLUR = 6.0  # pixels; the kernels have at most 25 taps
_FEW_VALUES = 5
_CLEAR = 0.06  # a cast, from what photos have
# Gains of 97 clean photos, which are warm on average, and how far they spread by their subjects.
_USUAL_CAST, _SUBJECTS = (1.03, 1.0, 0.97), (0.07, 0.03, 0.09)
_FADED = 0.1, 0.88  # blacks above, whites below
_FULL = 0.8  # contrast that a quarter of the photos has where none is faded
_FLAT = 0.05  # contrast below which a picture is a blank page, of which nothing can be said
_USUAL = 0.94  # contrast of a photo that is not faded, luma of 99 % of its pixels


def fit(values: Iterable[float], digits: int = 3) -> Uniform | Choice:
    """A range that has the quantiles of the values: equally likely pieces, each uniform.

    Few values give one piece, many up to six. From 25 values on, the outer 2 % at each end are left
    out as outliers.

    Args:
        values: Measured values.
        digits: Decimal places of the range's ends.
    """
    found = np.sort([float(value) for value in values])
    pieces = int(np.clip(len(found) // 6, 1, 6))
    tail = 0.02 if len(found) >= 25 else 0.0
    ends = np.quantile(found, np.linspace(tail, 1 - tail, pieces + 1)).round(digits).tolist()
    if pieces == 1 or ends[0] == ends[-1]:
        return Uniform(ends[0], ends[-1])
    return Choice(tuple(Uniform(a, b) for a, b in pairwise(ends)))


def fit_whole(values: Iterable[int]) -> Uniform | Choice:
    """As `fit` for whole numbers; up to five distinct ones become a choice by their counts."""
    counts = Counter(values)
    if len(counts) == 1:
        return Uniform(*[next(iter(counts))] * 2)
    if len(counts) <= _FEW_VALUES:
        options = sorted(counts)
        return Choice(tuple(options), tuple(float(counts[option]) for option in options))
    return fit(counts.elements(), digits=0)


def recipe_of(photos: Sequence[Measured], name: str) -> Recipe:
    """A recipe for photos like these: blur or enlargement, tone, noise, the earlier and the last
    JPEG.
    """
    makers: tuple[Callable[[Sequence[Measured]], Step | None], ...]
    makers = _softness, _fading, _cast, _noise, _earlier_jpeg, _last_jpeg
    steps: list[Step] = [Resize(of="target", mode=Choice(("area",)))]
    steps += [step for make in makers if (step := make(photos)) is not None]
    paper = f"measured on {counted(len(photos), 'photo')}"
    return Recipe(name=name, paper=paper, steps=tuple(steps))


def _maybe(step: Step, share: float) -> Step:
    return step if share >= 1 else Maybe(p=round(share, 3), step=step)


def _weighted(ways: list[tuple[Step, int]], total: int) -> Step | None:
    """One of the ways by its count; none of them for the rest of the total."""
    ways = [(step, count) for step, count in ways if count]
    count = sum(number for _, number in ways)
    if not ways:
        return None
    steps, counts = zip(*ways, strict=True)
    step = steps[0] if len(ways) == 1 else OneOf(steps=steps, weights=tuple(map(float, counts)))
    return _maybe(step, count / total)


def _softness(photos: Sequence[Measured]) -> Step | None:
    """An enlarged photo is soft because of it, so its blur is not counted again."""
    enlarged = [photo.enlarged for photo in photos if photo.enlarged]
    soft = [min(p.blur, _LARGEST_BLUR) for p in photos if p.blur is not None and not p.enlarged]
    ways: list[tuple[Step, int]] = []
    if soft and max(soft) > 0:
        blur = Blur(shape=Choice(("isotropic",)), size=Choice((25,)), sigma=fit(soft))
        ways.append((blur, len(photos) - len(enlarged)))
    if enlarged:
        smaller = fit(1 / factor for factor in enlarged)
        modes = Choice(("bilinear", "bicubic"))
        shrunk = Resize(of="target", factor=smaller, mode=Choice(("area",)))
        ways.append((Steps(steps=(shrunk, Resize(of="target", mode=modes))), len(enlarged)))
    return _weighted(ways, len(photos))


def _noise(photos: Sequence[Measured]) -> Step | None:
    """Of one deviation, or growing with the light where most of the variance does.

    Grey pictures have grey noise, and say nothing of the noise of those in colour.
    """
    noisy = [p for p in photos if p.noise is not None]
    in_colour = [p for p in noisy if not p.grey]
    known = [p.colour_noise for p in in_colour if p.colour_noise is not None]
    colour = sum(known) / len(known) if known else 1.0
    usual = colour * _COLOUR + (1 - colour)
    colour *= len(in_colour) / max(len(noisy), 1)
    even, shot = [], []
    for p in photos:
        if p.noise is None or p.noise_read is None or p.noise_shot is None:
            continue
        if p.noise_shot * 128 > p.noise_read:
            # The shot noise that alone would have the variance at the middle luma.
            shot.append((p.noise_shot + p.noise_read / 128) ** 0.5 / _gain(p, usual))
        else:
            even.append(p.noise / _gain(p, usual))
    grey = round(1 - colour, 3)
    ways: list[tuple[Step, int]] = []
    if even:
        ways.append((GaussianNoise(sigma_levels=fit(even), grey=grey), len(even)))
    if shot:  # var = scale^2 x luma, within 1 %
        ways.append((PoissonNoise(scale=fit(shot), grey=grey), len(shot)))
    return _weighted(ways, len(photos))


def _gain(photo: Measured, usual: float) -> float:
    """Luma noise for a deviation of 1 in each channel."""
    if photo.colour_noise is None:
        return usual
    return _COLOUR if photo.colour_noise else 1.0


def _fading(photos: Sequence[Measured]) -> Step | None:
    photos = [photo for photo in photos if photo.white - photo.black > _FLAT]
    if not photos:
        return None
    black = statistics.median(photo.black for photo in photos)
    white = statistics.median(photo.white for photo in photos)
    full = float(np.quantile([photo.white - photo.black for photo in photos], 0.75))
    if black < _FADED[0] or white > _FADED[1] or full > _FULL:
        return None
    amounts = [min(max(1 - (p.white - p.black) / _USUAL, 0), 1) for p in photos]
    levels = [min(p.black / max(a, 0.05), 1) for p, a in zip(photos, amounts, strict=True)]
    return Fade(amount=fit(amounts), level=fit(levels), desaturation=Uniform(0, 0))


def _cast(photos: Sequence[Measured]) -> Step | None:
    gains = np.array([photo.cast for photo in photos if photo.cast])
    if len(gains) < max(2, len(photos) / 2):
        return None
    middle = np.median(gains, 0)
    # Few photos may agree by chance, so they spread as those of other subjects at least.
    spread = np.maximum(np.median(np.abs(gains - middle), 0) * 1.48, _SUBJECTS)
    apart = np.abs(middle - np.array(_USUAL_CAST))
    clear = apart > np.maximum(_CLEAR, 3 * spread / len(gains) ** 0.5)
    if not clear.any():
        return None
    # The subjects' own colours spread as well, so the middle half is what the cast may be.
    low, high = np.quantile(gains, (0.25, 0.75), 0).round(3)
    red, green, blue = (Uniform(float(a), float(b)) for a, b in zip(low, high, strict=True))
    return Cast(red=red, green=green, blue=blue)


def _earlier_jpeg(photos: Sequence[Measured]) -> Step | None:
    before = [p.earlier_quality for p in photos if p.quality and p.earlier_quality]
    if not before:
        return None
    return _maybe(Jpeg(quality=fit_whole(before)), len(before) / len(photos))


def _last_jpeg(photos: Sequence[Measured]) -> Step | None:
    quality = [photo.last_quality for photo in photos if photo.last_quality]
    if not quality:
        return None
    near = {name: name for name in ("4:2:2", "4:4:0", "4:4:4")} | {"grey": "4:4:4"}
    chroma = Counter(near.get(p.chroma, "4:2:0") for p in photos if p.chroma)
    names = sorted(chroma) or ["4:2:0"]
    counts = tuple(float(chroma[name]) for name in names) if len(names) > 1 else None
    jpeg = Jpeg(quality=fit_whole(quality), chroma=Choice(tuple(names), counts))
    return _maybe(jpeg, len(quality) / len(photos))
