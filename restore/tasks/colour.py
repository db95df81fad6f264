"""Restore the input's colours, by bands of rows: no whole picture is held in floats."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import cv2
import numpy as np
from scipy import sparse

from restore.diffusion import watch
from restore.images import memmap
from restore.images.picture import Picture, bleed
from restore.images.resample import resize_band
from restore.options import Colour

Band = Callable[[int, int], np.ndarray]
"""(first, last) row -> float32 (last - first, W, 3) in [0, 1]"""

BAND = 256  # rows; no result depends on it
LEVELS = 5  # levels of the wavelet, as in StableSR
REACH = 2**LEVELS - 1  # rows that its blurs see to each side
ROUNDS = 12  # most rounds of lowpass
END = 0.005  # the share of the pixels that count as black, and as white
GREY_BLACK = 8.0, 16.0  # levels: the darkest is black up to the first, faded from the second
GREY_WHITE = 246.0, 252.0  # levels: the brightest is faded up to the first, white from the second
CLOSE = 0.1 / 255  # lowpass stops at this error


def match(result: Picture, like: Picture, how: Colour, band: int = BAND) -> Picture:
    """Give a result the colours of the picture it was made from.

    Args:
        result: The picture whose colours change.
        like: The picture it was made from, at its own size, which may be smaller.
        how: wavelet: coarse scales from the input, fine ones from the result (Wang et al. 2023,
            StableSR). adain: each channel gets the input's mean and standard deviation (Huang and
            Belongie 2017). lowpass: the result, averaged down to the input's size, equals the
            input, up to an error that the picture's warnings state (Irani and Peleg 1991,
            back-projection). none: no change.
        band: Rows processed together; it does not change the result.
    """
    if how == "none":
        return result
    shown = bleed(like)
    if how == "lowpass":
        return lowpass(result, shown, band)
    rows = wavelet(result, shown) if how == "wavelet" else adain(result, shown, band)
    return replace(result, pixels=levels(rows, result, band))


def levels(rows: Band, like: Picture, band: int) -> np.ndarray:
    """Round bands into an array with the size and depth of `like`."""
    pixels = memmap.empty(like.pixels.shape, like.pixels.dtype)
    for first, last in bands(len(pixels), band):
        made = np.clip(rows(first, last), 0, 1) * np.float32(np.iinfo(pixels.dtype).max)
        pixels[first:last] = np.rint(made)
        memmap.release_pages()
    return pixels


def bands(height: int, band: int) -> Iterator[tuple[int, int]]:
    """Cut `height` rows into (first, last) bands of `band` rows; progress is reported for each."""
    cuts = [(first, min(first + band, height)) for first in range(0, height, band)]
    return watch.over(cuts, "colour")


def unit(picture: Picture, first: int, last: int) -> np.ndarray:
    """Return rows of a picture as float32 in [0, 1]."""
    return picture.pixels[first:last] / np.float32(np.iinfo(picture.pixels.dtype).max)


def unfaded(picture: Picture, share: float, hidden: np.ndarray | None = None) -> Picture:
    """Restore the contrast of a faded picture, whose black and white became grey.

    The darkest half a percent of each channel counts as black and the brightest as white, as in the
    levels of photo editors. If either is near its end of the range, the picture is not faded. The
    picture's warnings say what was done.

    Args:
        picture: The picture.
        share: How much of the fading is undone, 0 to 1; 0 changes nothing.
        hidden: bool (H, W): what does not count; None for nothing.
    """
    top = np.iinfo(picture.pixels.dtype).max
    planes = [picture.pixels[..., channel] for channel in range(3)]
    blacks = np.array([level_of(plane, END, hidden) for plane in planes]) / top
    white = max(level_of(plane, 1 - END, hidden) for plane in planes) / top
    share = share * float(np.interp(blacks.min() * 255, GREY_BLACK, (0, 1)))
    share = share * float(np.interp(white * 255, GREY_WHITE, (1, 0)))
    if share == 0:
        return picture
    levels = np.arange(top + 1) / top
    moved = share * blacks[:, None]
    table = np.rint((levels - moved) / (1 - moved) * top).clip(0, top).astype(picture.pixels.dtype)
    pixels = memmap.empty(picture.pixels.shape, picture.pixels.dtype)
    for first in range(0, len(pixels), BAND):
        rows = slice(first, first + BAND)
        for channel in range(3):
            pixels[rows, :, channel] = table[channel][picture.pixels[rows, :, channel]]
        memmap.release_pages()
    after = (blacks - moved[:, 0]) / (1 - moved[:, 0])
    lay, put = (", ".join(f"{255 * x:.0f}" for x in xs) for xs in (blacks, after))
    note = f"faded: its blacks lay at ({lay}) and are at ({put}) now; --unfade 0 leaves them"
    return replace(picture, pixels=pixels, warnings=(*picture.warnings, note))


def level_of(plane: np.ndarray, share: float, hidden: np.ndarray | None = None) -> int:
    """Return the level that a share of the pixels does not exceed, of those that are not hidden."""
    counts = np.zeros(np.iinfo(plane.dtype).max + 1, np.int64)
    for first in range(0, len(plane), BAND):
        part = plane[first : first + BAND]
        seen = part.ravel() if hidden is None else part[~hidden[first : first + BAND]]
        counts += np.bincount(seen, minlength=len(counts))
    return int(np.searchsorted(counts.cumsum(), share * counts.sum()))


def wavelet(result: Picture, like: Picture) -> Band:
    """Return a function that gives rows of the result with the coarse scales of `like`."""
    height = result.size[0]

    def rows(first: int, last: int) -> np.ndarray:
        top, bottom = max(0, first - REACH), min(height, last + REACH)
        change = resize_band(like, result.size, (top, bottom)) - unit(result, top, bottom)
        return unit(result, first, last) + coarse(change)[first - top : last - top]

    return rows


def coarse(rgb: np.ndarray) -> np.ndarray:
    """Return the coarse part of five a trous levels.

    They are blurs of [1 2 1] / 4 with holes of 1, 2, 4, 8 and 16. REACH rows beside a cut are
    wrong.

    Args:
        rgb: float32 (H, W, 3).
    """
    for level in range(LEVELS):
        kernel = np.zeros(2 ** (level + 1) + 1, np.float32)
        kernel[[0, 2**level, -1]] = 0.25, 0.5, 0.25
        rgb = cv2.sepFilter2D(rgb, -1, kernel, kernel, borderType=cv2.BORDER_REPLICATE)
    return rgb


def adain(result: Picture, like: Picture, band: int) -> Band:
    """Return a function that gives rows of the result with mean and spread of `like`."""
    seen = None if result.alpha is None else result.alpha > 0
    old, spread = moments(lambda *rows: unit(result, *rows), result.size[0], seen, band)
    # measured at the result's size, because enlarging alone lowers the standard deviation
    mean, wanted = moments(
        lambda *rows: resize_band(like, result.size, rows), result.size[0], seen, band
    )
    gain = np.where(spread > 0, wanted / np.maximum(spread, 1e-9), 1).astype(np.float32)
    return lambda first, last: (unit(result, first, last) - old) * gain + mean


def moments(
    rows: Band, height: int, seen: np.ndarray | None, band: int
) -> tuple[np.ndarray, np.ndarray]:
    """Compute mean and standard deviation of each channel.

    Args:
        rows: Gives the picture by bands.
        height: Rows of the picture.
        seen: bool (H, W): the pixels that count; None for all.
        band: Rows processed together.

    Returns:
        Mean and standard deviation, float32 (3,) each.
    """
    sums, squares = np.zeros((2, height, 3))  # row by row, so that the band does not matter
    count = 0
    for first, last in bands(height, band):
        rgb = rows(first, last).astype(np.float64)
        share = np.ones(rgb.shape[:2]) if seen is None else seen[first:last].astype(np.float64)
        count += share.sum()
        sums[first:last] = (rgb * share[..., None]).sum(1)
        squares[first:last] = (rgb**2 * share[..., None]).sum(1)
        memmap.release_pages()
    mean = sums.sum(0) / max(count, 1)
    spread = np.sqrt(np.maximum(squares.sum(0) / max(count, 1) - mean**2, 0))
    return mean.astype(np.float32), spread.astype(np.float32)


def lowpass(result: Picture, like: Picture, band: int) -> Picture:
    """Add the enlarged difference of the averages until it is small; see `match`."""
    # the correction at the input's size; 0 to 1 stands for -2 to 2, because resize_band clips
    change = np.full((*like.size, 3), 0.5, np.float32)

    def rows(first: int, last: int) -> np.ndarray:
        added = (resize_band(change, result.size, (first, last)) - 0.5) * 4
        return np.clip(unit(result, first, last) + added, 0, 1)

    for _ in range(ROUNDS):
        lack = missing(rows, result.size, like, band)
        if np.abs(lack).max() <= CLOSE:
            break
        np.clip(change + lack / 4, 0, 1, out=change)
    done = replace(result, pixels=levels(rows, result, band))
    bound = np.abs(missing(lambda *cut: unit(done, *cut), result.size, like, band)).max()
    note = f"lowpass: averaged back down, within {bound * 255:.2f} of 255 levels of the input"
    return replace(done, warnings=(*result.warnings, note))


def missing(rows: Band, size: tuple[int, int], like: Picture, band: int) -> np.ndarray:
    """Return the input minus the result averaged over each input pixel, float32 (*like.size, 3).

    Args:
        rows: Gives rows of the result.
        size: (height, width) of the result.
        like: The input.
        band: Rows of the result that are processed together.
    """
    down, across = (averaging(*lengths) for lengths in zip(like.size, size, strict=True))
    lack = np.empty((*like.size, 3), np.float32)
    for first, last in bands(like.size[0], max(1, band * like.size[0] // size[0])):
        part = down[first:last]
        top, bottom = part.indices.min(), part.indices.max() + 1
        rgb = rows(top, bottom)
        low = part[:, top:bottom] @ rgb.reshape(len(rgb), -1)  # (rows, W * 3)
        low = low.reshape(-1, size[1], 3).swapaxes(0, 1).reshape(size[1], -1)
        low = (across @ low).reshape(like.size[1], -1, 3).swapaxes(0, 1)
        lack[first:last] = unit(like, first, last) - low
    return lack


def averaging(short: int, long: int) -> sparse.csr_matrix:
    """Return a matrix (short, long) that averages a line of `long` pixels to `short` pixels.

    Each row holds the shares of the pixels that it covers, and sums to 1.
    """
    edges = np.arange(short + 1) * (long / short)
    first = np.minimum(edges[:-1].astype(int), long - 1)
    last = np.minimum(np.ceil(edges[1:]).astype(int), long)
    index = [np.arange(a, max(b, a + 1)) for a, b in zip(first, last, strict=True)]
    covers = [
        np.minimum(cut + 1, high) - np.maximum(cut, low)
        for cut, low, high in zip(index, edges[:-1], edges[1:], strict=True)
    ]
    data = np.concatenate([part / part.sum() for part in covers]).astype(np.float32)
    ends = np.cumsum([0, *map(len, index)])
    return sparse.csr_matrix((data, np.concatenate(index), ends), shape=(short, long))
