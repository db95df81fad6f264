"""Noise against luma, from the flattest blocks, through whatever JPEG did to them.

Flat blocks are picked by one half of their DCT coefficients and measured by the other, so that the
picking does not bias (as Pyatykh et al. 2013 and Liu et al. 2013 avoid by models). The measure is
maximum likelihood for a Gaussian that was quantised: it sees noise below the step of the table.

A JPEG without noise has coefficients too, where no block is flat. Three things tell them from
noise: noise is as strong in each band of frequencies, it is everywhere, so that blocks without any
bound it, and it is no weaker than what clean photos read (test_measure has the table of them).
"""

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.special import ndtr

from degradations.measure.blocks import blocks, dct

_ORDER = np.add.outer(np.arange(8), np.arange(8))
_SIGMAS = np.geomspace(0.15, 64, 200)  # levels
_BINS = 12  # of luma
_FEWEST = 24  # blocks of a bin
_WEAK = 0.012, 0.1  # share of a bin's blocks taken for flat, share of the bins below the line
_STRONG = 0.05, 0.3  # the same where noise outdoes most texture: more blocks, less chance
_OUTDOES = 8.0  # levels
_STRAY, _WIDE = 0.015, 4.0  # share of coefficients that are picture after all, and their spread
_UNQUANTISED = np.full((8, 8), 0.5)
_COLOUR = 0.668  # luma noise of three independent channels of deviation 1, BT.601
_CHROMA = {"b": 0.623, "r": 0.649}  # the same of Cb and Cr (ITU-T T.871)
_TELLS = 0.45, 1.2  # of the finest step, and levels on top: clean photos read up to that
_EVERYWHERE = 0.6  # share of the bins that noise shows in
# frequencies that agree on noise, and on texture do not
_BANDS = (_ORDER >= 2) & (_ORDER <= 3), (_ORDER >= 4) & (_ORDER <= 5), _ORDER >= 6
_AGREE = 12.0  # nats that one deviation for all bands may cost
_BOUND = 3.0  # nats by which a larger deviation is excluded


@dataclass(frozen=True)
class Bin:
    """What the flattest blocks of about one luma say: the deviation, or what it is not above."""

    level: float
    """Mean luma of the bin, levels of 255."""
    sigma: float
    """Standard deviation of the noise, levels."""
    count: int
    """Blocks from which the flattest were chosen."""
    is_bound: bool = False
    """Whether sigma is only an upper bound."""


@dataclass(frozen=True)
class Noise:
    """Noise whose variance is read + shot x luma, in levels of 255 squared."""

    sigma: float
    """Standard deviation of the luma over this picture, levels of 255."""
    read: float
    """The constant part of the variance, levels squared."""
    shot: float
    """The part of the variance that grows with the luma: variance = read + shot x luma."""
    curve: tuple[tuple[float, float], ...]
    """(luma, sigma) of each bin of luma that had flat blocks."""
    colour: bool | None
    """Whether the noises of the channels differ; None where JPEG hides it in a colour picture."""


def measure(
    rgb: np.ndarray,
    luma: np.ndarray,
    steps: np.ndarray | None = None,
    corner: tuple[int, int] = (0, 0),
) -> Noise | None:
    """Measure the noise of a picture.

    Args:
        rgb: uint8 (H, W, 3).
        luma: float32 (H, W), levels 0 to 255, as JPEG defines it.
        steps: (8, 8) luma steps of the JPEG that the picture is or was; None: it never was one.
        corner: Corner (top, left) of that JPEG's grid.

    Returns:
        The noise; None if no block is flat and unclipped, or the noise is too weak to be found.
    """
    corners = [corner]
    if steps is None:  # no grid: take blocks at every half
        corners = [(top, left) for top in (0, 4) for left in (0, 4)]
    clipped = ((rgb <= 1) | (rgb >= 254)).any(2)
    keep = np.concatenate([blocks(clipped, *c).mean((1, 2)) < 0.05 for c in corners])
    coefficients = np.concatenate([dct(blocks(luma, *c)) for c in corners])[keep]
    levels = coefficients[:, 0, 0] / 8
    curve, middle, share = _fit(coefficients, levels, _UNQUANTISED if steps is None else steps)
    if not curve or _share_noisy(curve) < _EVERYWHERE:
        return None
    colour = False if is_grey(rgb) else None  # no JPEG hides that
    if steps is None:
        implied = _COLOUR * _chroma_noise(rgb, corners, keep, levels)
        excess = max(middle - implied**2, 0) ** 0.5
        colour = implied > 0.45 * middle**0.5
        if colour and excess < max(2.0, 0.5 * implied):  # so much may be texture of the luma
            middle = implied**2
    read, shot = middle * (1 - share), middle * share / 128
    sigma = float(np.sqrt(np.mean(read + shot * levels)))
    if steps is not None and sigma < _floor(steps):
        return None
    shown = tuple((one.level, one.sigma) for one in curve if not one.is_bound)
    return Noise(sigma, read, shot, shown, colour)


def is_grey(rgb: np.ndarray) -> bool:
    """Whether the three channels of (H, W, 3) are equal."""
    return bool((rgb == rgb[..., :1]).all())


def _fit(
    coefficients: np.ndarray, levels: np.ndarray, steps: np.ndarray
) -> tuple[list[Bin], float, float]:
    """(curve, variance at the middle luma, share of it that is shot noise)."""
    curve, middle, share = [], 0.0, 0.0
    for portion, below in (_WEAK, _STRONG):
        if curve and middle < _OUTDOES**2:
            break
        curve = _curve(coefficients, levels, steps, portion)
        if not curve:
            break
        middle, share = _line(curve, below)
    return curve, middle, share


def _curve(
    coefficients: np.ndarray, levels: np.ndarray, steps: np.ndarray, portion: float
) -> list[Bin]:
    """Each bin of luma, from the flattest portion of its blocks."""
    curve = []
    which = (levels * (_BINS / 256)).astype(int)
    for index in range(_BINS):
        inside = coefficients[which == index]
        if len(inside) < 2 * _FEWEST:
            continue
        bands = np.zeros((len(_BANDS), len(_SIGMAS)))
        for pick, use in _halves(steps):
            chosen = _flattest(inside, pick, portion)
            likelihoods = (_likelihood(chosen[:, use & band], steps[use & band]) for band in _BANDS)
            bands += np.array(list(likelihoods))
        level = float(levels[which == index].mean())
        if not _is_fine(steps):
            sigma, is_bound = _agreed(bands)
            curve.append(Bin(level, sigma, len(inside), is_bound))
        elif best := int(bands.sum(0).argmax()):
            curve.append(Bin(level, float(_SIGMAS[best]), len(inside)))
    return curve


def _agreed(bands: np.ndarray) -> tuple[float, bool]:
    """(deviation, whether it is but a bound) of log likelihoods (bands, _SIGMAS)."""
    together = bands.sum(0)
    if together.max() > bands.max(1).sum() - _AGREE:
        return _most_likely(together)
    return min(map(_most_likely, bands))  # texture is strongest where it is coarse


def _most_likely(likelihood: np.ndarray) -> tuple[float, bool]:
    best = int(likelihood.argmax())
    if best:
        return float(_SIGMAS[best]), False
    allowed = np.flatnonzero(likelihood > likelihood.max() - _BOUND)
    return float(_SIGMAS[allowed[-1]]), True


def _floor(steps: np.ndarray) -> float:
    """Levels that one clean photo in twenty exceeds, whatever the quality."""
    if _is_fine(steps):
        return 0.0
    share, more = _TELLS
    return share * float(steps[_ORDER > 1].min()) + more


def _share_noisy(curve: list[Bin]) -> float:
    """Share of the bins in which there is noise for sure, a large one counting for more."""
    weights = np.sqrt([one.count for one in curve])
    noisy = np.array([not one.is_bound for one in curve])
    return float((weights * noisy).sum() / weights.sum())


def _flattest(coefficients: np.ndarray, pick: np.ndarray, portion: float) -> np.ndarray:
    activity = (coefficients[:, pick] ** 2).sum(1)
    count = max(_FEWEST, int(len(coefficients) * portion))
    return coefficients[np.argpartition(activity, count)[:count]]


def _halves(steps: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Coefficients to pick by and to measure by; of a JPEG both ways, for it has fewer to give."""
    if _is_fine(steps):
        return [((_ORDER >= 1) & (_ORDER <= 5), _ORDER >= 7)]
    odd = (np.arange(8)[:, None] + 2 * np.arange(8)) % 4 < 2
    low = (_ORDER > 0) & (_ORDER <= 2)
    return [((low | half) & (_ORDER > 0), ~half & (_ORDER >= 2)) for half in (odd, ~odd)]


def _is_fine(steps: np.ndarray) -> bool:
    """No JPEG's, or as good as none."""
    return bool((steps <= 1).all())


def _line(curve: list[Bin], below: float) -> tuple[float, float]:
    """(variance at the middle luma, share of it that is shot noise): a quantile regression.

    A bound asks for no more than to be above the line.
    """
    level, sigma, count = np.array([(one.level, one.sigma, one.count) for one in curve]).T
    above = np.array([0.0 if one.is_bound else below for one in curve])
    middle = np.geomspace(0.15, 64, 240)[:, None, None] ** 2
    share = np.linspace(0, 1, 11)[None, :, None]
    miss = 2 * np.log(sigma) - np.log(middle * (1 - share) + middle * share * level / 128)
    loss = np.where(miss > 0, above * miss, (below - 1) * miss)
    cost = (loss * np.sqrt(count)).sum(2) / np.sqrt(count).sum() + 0.003 * share[..., 0]
    i, j = np.unravel_index(cost.argmin(), cost.shape)
    return float(middle[i, 0, 0]), float(share[0, j, 0])


def _chroma_noise(
    rgb: np.ndarray, corners: list[tuple[int, int]], keep: np.ndarray, levels: np.ndarray
) -> float:
    """Deviation of a channel, were the three independent: of Cb and Cr, which hold less texture."""
    found = []
    planes = cv2.cvtColor(rgb.astype(np.float32), cv2.COLOR_RGB2YCrCb)
    for plane, gain in ((planes[..., 1], _CHROMA["r"]), (planes[..., 2], _CHROMA["b"])):
        coefficients = np.concatenate([dct(blocks(plane, *c)) for c in corners])[keep]
        curve, middle, _ = _fit(coefficients, levels, _UNQUANTISED)
        if curve:
            found.append(middle**0.5 / gain)
    return min(found) if found else 0.0


def _likelihood(coefficients: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """(n, k) of steps (k,) -> log likelihood of each of _SIGMAS, with a few strays."""
    total = np.zeros(len(_SIGMAS))
    for step in np.unique(steps):
        cells = np.rint(np.abs(coefficients[:, steps == step]) / step).astype(int).ravel()
        count = np.bincount(np.minimum(cells, 500))
        value = np.arange(len(count))[:, None] * float(step)
        chance = 1e-9
        for share, spread in ((1 - _STRAY, 1.0), (_STRAY, _WIDE)):
            sigma = _SIGMAS * spread
            between = ndtr((value + step / 2) / sigma) - ndtr((value - step / 2) / sigma)
            chance = chance + share * between
        total += count @ np.log(chance)
    return total
