"""The JPEG that a picture once was, from the lattice of its DCT coefficients.

As Fan and de Queiroz 2003 (Identification of bitmap compression history) for pixels that were
decoded once, and Bianchi and Piva 2012 for those that were quantised again: within each step of a
candidate table, are coefficients where that table would have put them, or spread as a picture's?
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import ndtr

from degradations.measure.blocks import blocks, dct
from degradations.measure.jpegfile import standard_tables

_MODES = tuple((u, s - u) for s in range(1, 8) for u in range(s + 1))  # 35 lowest, without the mean
_REACH = 300.0  # coefficients beyond are too few
_FINE = 0.25  # width of a bin of coefficients that were not quantised since
_ROUNDING = 0.3  # deviation of a coefficient through pixels that were rounded
_STRAY = 0.05  # share of coefficients off the lattice, e.g. of blocks with clipped pixels
_SURE = 20.0  # nats per mode set beyond which a lattice is believed
_MAX_BLOCKS = 8192
_LOOK = 200  # pixels a side in which the grid is looked for


@dataclass(frozen=True)
class Lattice:
    """The JPEG grid that the DCT coefficients of a picture lie on."""

    quality: int
    """Quality of the earlier JPEG, on libjpeg's scale."""
    top: int
    """Row of the grid's corner."""
    left: int
    """Column of the grid's corner."""
    luma: np.ndarray
    """(8, 8) quantisation steps of the luma."""
    evidence: float
    """Log likelihood ratio, nats."""


def earlier(luma: np.ndarray, steps: np.ndarray | None = None) -> Lattice | None:
    """Find the JPEG that a picture was before.

    In a JPEG file only an earlier quality below the present one can be found.

    Args:
        luma: float (H, W), levels 0 to 255.
        steps: (8, 8) luma steps of the file, on the grid (0, 0); None: the picture is no JPEG.

    Returns:
        The grid of the earlier JPEG; None if there is no clear evidence of one.
    """
    found = _lattice(luma, 0, 0, steps)
    if found.evidence <= _SURE and steps is None:
        found = _lattice(luma, *_corner(luma), steps)  # a crop of one
    return found if found.evidence > _SURE else None


def _corner(luma: np.ndarray) -> tuple[int, int]:
    """The grid with the most zeros at high frequencies: JPEG's zeros are zeros only on its grid."""
    top, left = (max(0, side - _LOOK) // 16 * 8 for side in luma.shape)
    part = luma[top : top + _LOOK, left : left + _LOOK]
    high = np.add.outer(np.arange(8), np.arange(8)) >= 6
    corners = [(row, column) for row in range(8) for column in range(8)]
    zeros = [(np.abs(dct(blocks(part, *c))[:, high]) < 2 * _ROUNDING).mean() for c in corners]
    return corners[int(np.argmax(zeros))]


def _lattice(luma: np.ndarray, top: int, left: int, steps: np.ndarray | None) -> Lattice:
    cut = blocks(luma, top, left)
    cut = cut[:: -(-len(cut) // _MAX_BLOCKS) or 1]
    cut = cut[(cut.min((1, 2)) > 1) & (cut.max((1, 2)) < 254)]  # clipping moves coefficients
    coefficients = np.abs(dct(cut))
    tables = standard_tables()[:, 0]
    evidence = np.zeros(101)
    for mode in _MODES:
        present = 0 if steps is None else int(steps[mode])
        by_step = {
            step: _evidence(coefficients[:, *mode], step, present)
            for step in np.unique(tables[1:, *mode])
            if step > present
        }
        evidence += [by_step.get(step, 0.0) for step in tables[:, *mode]]
    evidence[0] = -np.inf
    quality = int(evidence.argmax())
    return Lattice(quality, top, left, tables[quality], float(evidence[quality]))


def _evidence(coefficients: np.ndarray, step: int, present: int) -> float:
    """Log likelihood ratio, in nats: a lattice of `step` against a smooth decay, cell by cell.

    The cell round 0 is left out: both models have a peak there.

    Args:
        coefficients: (n,) magnitudes; `present` is the step they were quantised with since, or 0.
    """
    width = float(present or _FINE)
    cells, far, on = _comb(step, width)
    count = np.bincount(np.rint(coefficients / width).astype(int), minlength=len(on))[: len(on)]
    beyond = coefficients[coefficients > step / 2]
    if not len(beyond):
        return 0.0
    off = np.exp(-far / max(float(beyond.mean()) - step / 2, step / 4))
    off /= np.bincount(cells, off)[cells]
    ratio = np.log((1 - _STRAY) * on / off + _STRAY)
    return float((count * ratio)[cells > 0].sum())


@lru_cache(8192)
def _comb(step: int, width: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each bin below _REACH: its cell, the distance to the lattice, and the chance within."""
    value = np.arange(int(_REACH / width) + 1) * width
    cells = np.floor(value / step + 0.5).astype(int)
    far = value - cells * step
    on = ndtr((far + width / 2) / _ROUNDING) - ndtr((far - width / 2) / _ROUNDING)
    return cells, far, on / np.maximum(np.bincount(cells, on)[cells], 1e-12)
