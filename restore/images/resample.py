"""Antialiased bicubic resizing like Pillow's, by bands of rows."""

import numpy as np
from PIL import Image

from restore.images import memmap
from restore.images.picture import Picture


def resize_band(
    source: Picture | np.ndarray, size: tuple[int, int], rows: tuple[int, int]
) -> np.ndarray:
    """Compute some rows of a picture resized by Pillow's antialiased bicubic.

    Args:
        source: A Picture, or an array (H, W, 3) or (H, W): uint8, uint16, or float in [0, 1].
        size: (height, width) of the whole result.
        rows: (first, last) row of the result; last is excluded.

    Returns:
        float32 (last - first, width[, 3]) in [0, 1]. A row has the same bits in every band.
    """
    return Band(source, size, rows).cut(slice(0, size[1]))


class Band:
    """Rows of a resized picture, computed by columns, as floats of a wide picture are large.

    Args:
        source: A Picture, or an array (H, W, 3) or (H, W): uint8, uint16, or float in [0, 1].
        size: (height, width) of the whole result.
        rows: (first, last) row of the result; last is excluded.
    """

    def __init__(self, source: Picture | np.ndarray, size: tuple[int, int], rows: tuple[int, int]):
        array = source.pixels if isinstance(source, Picture) else source
        height, width = size
        self._taps = [_taps(row, array.shape[0], height) for row in range(*rows)]
        self._top = self._taps[0][0]
        rows_in = array[self._top : self._taps[-1][0] + len(self._taps[-1][1])]
        is_wide = array.shape[1] == width  # as integers they are smaller
        self._wide = rows_in if is_wide else _widen(_unit(rows_in), width)

    def cut(self, columns: slice) -> np.ndarray:
        """Compute some columns: float32 (rows, columns[, 3]) in [0, 1]."""
        wide = _unit(self._wide[:, columns])
        band = np.empty((len(self._taps), *wide.shape[1:]), np.float32)
        for row, (first, weights) in enumerate(self._taps):  # row by row: no sum knows the band
            np.multiply(wide[first - self._top], weights[0], out=band[row])
            for offset, weight in enumerate(weights[1:], first - self._top + 1):
                band[row] += wide[offset] * weight
        return np.clip(band, 0, 1, out=band)


def _taps(row: int, height_in: int, height_out: int) -> tuple[int, np.ndarray]:
    """Return the first source row and the weights from it on, for one row (Pillow's Resample.c)."""
    scale = height_in / height_out
    blur = max(scale, 1.0)
    center = (row + 0.5) * scale
    first = max(0, int(center - 2 * blur + 0.5))
    last = min(height_in, int(center + 2 * blur + 0.5))
    x = np.abs((np.arange(first, last) + 0.5 - center) / blur)
    near = (1.5 * x - 2.5) * x * x + 1  # Keys' cubic with a = -0.5
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = np.where(x < 1, near, np.where(x < 2, far, 0))
    return first, (weights / weights.sum()).astype(np.float32)


def _widen(rows: np.ndarray, width: int) -> np.ndarray:
    if rows.shape[1] == width:
        return rows
    size = (width, rows.shape[0])
    planes = np.moveaxis(np.atleast_3d(rows), 2, 0)
    wide = [Image.fromarray(plane).resize(size, Image.Resampling.BICUBIC) for plane in planes]
    return np.stack([np.asarray(plane) for plane in wide], axis=2).reshape(
        rows.shape[0], width, *rows.shape[2:]
    )


def _unit(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "f":
        return array.astype(np.float32, copy=False)
    return array.astype(np.float32) / np.float32(np.iinfo(array.dtype).max)


def resize_alpha(picture: Picture, size: tuple[int, int], band: int = 256) -> np.ndarray | None:
    """Resize the alpha channel to (height, width), in its own dtype; None if there is none."""
    if picture.alpha is None:
        return None
    result = memmap.empty(size, picture.alpha.dtype)
    top = np.iinfo(picture.alpha.dtype).max
    for row in range(0, size[0], band):
        rows = (row, min(row + band, size[0]))
        result[slice(*rows)] = np.rint(resize_band(picture.alpha, size, rows) * top)
    return result
