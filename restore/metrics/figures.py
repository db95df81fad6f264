"""Pictures of scores: where to look closer, crops side by side, the perception-distortion plane."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from restore import images
from restore.metrics import fidelity
from restore.metrics.measures import Measure, levels
from restore.metrics.score import Scored, mean

COLOURS = ("#1f4e79", "#d1711b", "#2f7d4f", "#8a3a7b", "#7a6a16", "#b02a30", "#4b4b4b", "#2b8a9d")
Place = tuple[int, int]  # top, left


def read(path: Path) -> np.ndarray:
    """uint8 (H, W, 3), as it is measured."""
    return np.rint(levels(images.read(path))).astype(np.uint8)


def largest_error(one: np.ndarray, other: np.ndarray, side: int) -> Place:
    """Where a square of `side` differs most in luma."""
    error = fidelity.luma(one.astype(np.float64)) - fidelity.luma(other.astype(np.float64))
    return _peak(np.square(error), side)


def most_detail(rgb: np.ndarray, side: int) -> Place:
    """Where a square of `side` has the strongest edges."""
    luma = fidelity.luma(rgb.astype(np.float64))
    return _peak(np.abs(luma - cv2.GaussianBlur(luma, (0, 0), 2)), side)


def _peak(values: np.ndarray, side: int) -> Place:
    height, width = values.shape
    tall, wide = min(side, height), min(side, width)
    sums = cv2.integral(values)
    boxes = sums[tall:, wide:] - sums[:-tall, wide:] - sums[tall:, :-wide] + sums[:-tall, :-wide]
    top, left = np.unravel_index(boxes.argmax(), boxes.shape)
    return int(top), int(left)


def crop(rgb: np.ndarray, place: Place, side: int) -> np.ndarray:
    top, left = place
    return rgb[top : top + side, left : left + side]


def enlarged(rgb: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """By Pillow's bicubic to (height, width); what peers are held against."""
    if rgb.shape[:2] == size:
        return rgb
    return np.asarray(Image.fromarray(rgb).resize(size[::-1], Image.Resampling.BICUBIC))


def sheet(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[np.ndarray]]]) -> Image.Image:
    """Crops side by side, one pixel each: a row a picture, its name below, `heads` above."""
    font = ImageFont.load_default(13)
    gap, line = 6, 18
    side = max(crop.shape[1] for _, crops in rows for crop in crops)
    tall = max(crop.shape[0] for _, crops in rows for crop in crops)
    size = gap + len(heads) * (side + gap), line + gap + len(rows) * (tall + line)
    made = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(made)
    for column, head in enumerate(heads):
        draw.text((gap + column * (side + gap), 3), head, "black", font)
    for number, (name, crops) in enumerate(rows):
        top = line + gap + number * (tall + line)
        for column, pixels in enumerate(crops):
            made.paste(Image.fromarray(pixels), (gap + column * (side + gap), top))
        draw.text((gap, top + tall), name, "#666", font)
    return made


def plane(folders: Sequence[Scored], distortion: Measure, perception: Measure) -> Any:
    """The perception-distortion plane (Blau and Michaeli 2018) as a matplotlib Figure.

    A point a picture, and the means with their 95 % intervals; the good corner is right and below,
    or wherever both measures are at their best.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.6), layout="constrained")
    axis = figure.subplots()
    for number, one in enumerate(folders):
        colour = COLOURS[number % len(COLOURS)]
        x, y = one.values(distortion), one.values(perception)
        both = [key for key in x if key in y]
        if not both:
            continue
        axis.scatter([x[k] for k in both], [y[k] for k in both], s=9, color=colour, alpha=0.25)
        middle = [mean(one, measure) for measure in (distortion, perception)]
        spans = [
            [[at["mean"] - at["low"]], [at["high"] - at["mean"]]] if at["low"] is not None else None
            for at in middle
        ]
        axis.errorbar(
            *(at["mean"] for at in middle),
            xerr=spans[0],
            yerr=spans[1],
            fmt="o",
            ms=7,
            lw=1.4,
            color=colour,
            label=one.name,
        )
    ends = [
        f"{m.label} ({'more' if m.higher else 'less'} is better)" for m in (distortion, perception)
    ]
    axis.set(xlabel=ends[0], ylabel=ends[1])
    axis.spines[["top", "right"]].set_visible(False)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False, fontsize=9)
    return figure
