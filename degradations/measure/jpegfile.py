"""The quality and chroma subsampling of a JPEG file, from its tables."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

# Annex K.1 of ITU-T T.81, row by row: what libjpeg scales.
_LUMA = """
16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101
72 92 95 98 112 100 103 99"""
_CHROMA = """
17 18 24 47 99 99 99 99 18 21 26 66 99 99 99 99 24 26 56 99 99 99 99 99 47 66 99 99 99 99 99 99
99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99"""
_NAMES = {
    ((1, 1), (1, 1)): "4:4:4",
    ((2, 1), (1, 1)): "4:2:2",
    ((2, 2), (1, 1)): "4:2:0",
    ((1, 2), (1, 1)): "4:4:0",
    ((4, 1), (1, 1)): "4:1:1",
}


@dataclass(frozen=True)
class JpegFile:
    """What the quantisation tables of a JPEG file say."""

    quality: int
    """1 to 100 on libjpeg's scale; the nearest one where the tables are not libjpeg's."""
    tables: str
    """"standard" where they are libjpeg's at this quality, entry for entry; else "own"."""
    chroma: str
    """4:4:4, 4:2:2, 4:2:0, 4:4:0, 4:1:1, grey, or the sampling factors."""
    luma: np.ndarray
    """(8, 8) quantisation steps; rows are vertical frequencies."""


@lru_cache(1)
def standard_tables() -> np.ndarray:
    """(101, 2, 8, 8): luma and chroma steps at each quality, as libjpeg scales them; 0 unused."""
    base = np.array([_LUMA.split(), _CHROMA.split()], int).reshape(2, 8, 8)
    quality = np.maximum(np.arange(101), 1)
    percent = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return np.clip((base * percent[:, None, None, None] + 50) // 100, 1, 255)


def read(image: Image.Image) -> JpegFile | None:
    """The tables of an opened file; None where it is no JPEG or has none."""
    tables: dict[int, list[int]] | None = getattr(image, "quantization", None)
    layers = getattr(image, "layer", None)
    if image.format not in ("JPEG", "MPO") or not tables or not layers:
        return None
    # Pillow gives them row by row, not in zigzag order, since 8.3.
    found = np.array([tables[layer[3]] for layer in layers[:2]]).reshape(-1, 8, 8)
    quality, is_standard = nearest_quality(found)
    return JpegFile(quality, "standard" if is_standard else "own", _chroma(layers), found[0])


def nearest_quality(found: np.ndarray) -> tuple[int, bool]:
    """The quality whose standard tables are nearest to the ones found.

    Distances are between logarithms of the steps; low frequencies weigh more, because they carry
    the picture.

    Args:
        found: (1 or 2, 8, 8) steps of luma and chroma.

    Returns:
        The quality, and whether its tables are the same.
    """
    known = standard_tables()[1:, : len(found)]
    equal = (known == found).all((1, 2, 3))
    if equal.any():
        return int(equal.argmax()) + 1, True
    order = np.add.outer(np.arange(8), np.arange(8))
    far = np.abs(np.log(np.maximum(found, 1) / known)) / (1 + order)
    return int(far.mean((1, 2, 3)).argmin()) + 1, False


def _chroma(layers: list[tuple[int, int, int, int]]) -> str:
    if len(layers) == 1:
        return "grey"
    first, *others = [(h, v) for _, h, v, _ in layers]
    if len(set(others[:2])) == 1 and (first, others[0]) in _NAMES:
        return _NAMES[first, others[0]]
    return ",".join(f"{h}x{v}" for h, v in (first, *others))
