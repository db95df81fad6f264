"""Masks as run lengths, COCO's RLE: numbers of pixels out, in, out, ... down the columns."""

from typing import Any

import numpy as np

MOST = 1_000_000  # runs of one mask, or characters that encode them
DIGITS = 9  # of five bits, in one number: enough for the pixels of any picture


def read(segmentation: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
    """Read the run lengths of a mask, from a list or from COCO's compressed text.

    Args:
        segmentation: COCO's object, with `size` and `counts`.
        size: (height, width) of the picture in px.

    Returns:
        Numbers of pixels out, in, out, ...; they sum to the picture's area.

    Raises:
        ValueError: The object is not valid, or its runs do not fill the picture.
    """
    given = segmentation.get("size")
    if given != list(size):
        raise ValueError(f"a run-length mask of {given!r:.60}, for a picture of {list(size)}")
    counts = segmentation.get("counts")
    if not isinstance(counts, str | list):
        raise ValueError(f"run lengths that are a {type(counts).__name__}, no list and no text")
    if len(counts) > MOST:
        raise ValueError(f"{len(counts):,} run lengths; the limit is {MOST:,}")
    if isinstance(counts, str):
        runs = _spelled(counts)
    elif all(type(count) is int and 0 <= count <= 2**53 for count in counts):
        runs = np.array(counts, np.int64)
    else:
        raise ValueError("run lengths that are no whole numbers of pixels")
    area = size[0] * size[1]
    if len(runs) and runs.min() < 0:
        raise ValueError("run lengths below 0")
    if (total := runs.sum(dtype=np.float64)) != area:
        raise ValueError(f"run lengths of {total:,.0f} px together, for a picture of {area:,}")
    return runs.astype(np.int32) if area < 2**31 else runs


def _spelled(text: str) -> np.ndarray:
    """Decode COCO's compressed runs: digits of five bits, lowest first, as characters 0 to o.

    From the fourth on, a number is the difference from the run two before it.
    """
    digits = np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.int64) - ord("0")
    if not len(digits):
        return digits
    if digits.min() < 0 or digits.max() > 63:
        raise ValueError("run lengths with letters that are none of theirs")
    ends = np.flatnonzero(digits & 32 == 0)
    if not len(ends) or ends[-1] != len(digits) - 1:
        raise ValueError("run lengths that end within a number")
    begins = np.append(0, ends[:-1] + 1)
    lengths = ends - begins + 1
    if lengths.max() > DIGITS:
        raise ValueError("run lengths with a number beyond any picture")
    place = np.arange(len(digits)) - np.repeat(begins, lengths)
    numbers = np.add.reduceat((digits & 31) << 5 * place, begins)
    numbers -= np.where(digits[ends] & 16, 1 << 5 * lengths, 0)  # the highest bit is the sign
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def columns(runs: np.ndarray, height: int) -> range:
    """The columns that the mask covers, from the first to the last."""
    ends = np.cumsum(runs, dtype=np.int64)
    inner = np.flatnonzero(runs[1::2]) * 2 + 1
    if not len(inner):
        return range(0)
    first, last = int(ends[inner[0] - 1]), int(ends[inner[-1]]) - 1
    return range(first // height, last // height + 1)


def draw(runs: np.ndarray, height: int, within: range) -> np.ndarray:
    """Draw the columns that the mask covers.

    Args:
        runs: As `read` returns them.
        height: Of the picture in px.
        within: The columns, as `columns` returns them; not empty.

    Returns:
        uint8 (height, len(within)), 255 inside the mask.
    """
    inner = np.flatnonzero(runs[1::2]) * 2 + 1
    first, last = int(inner[0]), int(inner[-1])
    lead = int(runs[:first].sum(dtype=np.int64)) - within.start * height
    kept = runs[first : last + 1].astype(np.int64)
    area = len(within) * height
    lengths = np.concatenate([[lead], kept, [area - lead - kept.sum()]])
    values = np.zeros(len(lengths), np.uint8)
    values[1:-1:2] = 255
    return np.repeat(values, lengths).reshape(len(within), height).T
