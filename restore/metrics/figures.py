"""Figures for evaluations: crops side by side and the perception-distortion plane."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from degradations.page import plain
from restore.errors import printable
from restore.images import sandbox
from restore.metrics import fidelity
from restore.metrics.measures import Measure, picture_levels
from restore.metrics.score import ScoredFolder, estimate_mean

COLOURS = ("#1f4e79", "#d1711b", "#2f7d4f", "#8a3a7b", "#7a6a16", "#b02a30", "#4b4b4b", "#2b8a9d")
Place = tuple[int, int]  # top, left


def read_rgb(path: Path) -> np.ndarray:
    """Read a picture as uint8 (H, W, 3), transparency laid on white, as it is measured."""
    return np.rint(picture_levels(sandbox.read(path))).astype(np.uint8)


def find_largest_error(one: np.ndarray, other: np.ndarray, side: int) -> Place:
    """Find the square of `side` pixels where two pictures differ most in luma."""
    error = fidelity.to_luma(one.astype(np.float64)) - fidelity.to_luma(other.astype(np.float64))
    return _peak(np.square(error), side)


def find_most_detail(rgb: np.ndarray, side: int) -> Place:
    """Find the square of `side` pixels with the strongest edges."""
    luma = fidelity.to_luma(rgb.astype(np.float64))
    return _peak(np.abs(luma - cv2.GaussianBlur(luma, (0, 0), 2)), side)


def _peak(values: np.ndarray, side: int) -> Place:
    height, width = values.shape
    tall, wide = min(side, height), min(side, width)
    sums = cv2.integral(values)
    boxes = sums[tall:, wide:] - sums[:-tall, wide:] - sums[tall:, :-wide] + sums[:-tall, :-wide]
    top, left = np.unravel_index(boxes.argmax(), boxes.shape)
    return int(top), int(left)


def crop(rgb: np.ndarray, corner: Place, side: int) -> np.ndarray:
    """Cut a square of `side` pixels, less at the borders, from (top, left) on."""
    top, left = corner
    return rgb[top : top + side, left : left + side]


def enlarge(rgb: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize uint8 (H, W, 3) to (height, width) by Pillow's bicubic, the usual baseline."""
    if rgb.shape[:2] == size:
        return rgb
    return np.asarray(Image.fromarray(rgb).resize(size[::-1], Image.Resampling.BICUBIC))


def draw_sheet(
    heads: Sequence[str], rows: Sequence[tuple[str, Sequence[np.ndarray]]]
) -> Image.Image:
    """Draw crops side by side, unscaled.

    Args:
        heads: Titles of the columns.
        rows: For each picture its name, written below, and its crops, uint8 (H, W, 3).
    """
    font = ImageFont.load_default(13)
    gap, line = 6, 18
    side = max(crop.shape[1] for _, crops in rows for crop in crops)
    tall = max(crop.shape[0] for _, crops in rows for crop in crops)
    size = gap + len(heads) * (side + gap), line + gap + len(rows) * (tall + line)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for column, head in enumerate(heads):
        draw.text((gap + column * (side + gap), 3), printable(head), "black", font)
    for number, (name, crops) in enumerate(rows):
        top = line + gap + number * (tall + line)
        for column, pixels in enumerate(crops):
            sheet.paste(Image.fromarray(pixels), (gap + column * (side + gap), top))
        draw.text((gap, top + tall), printable(name), "#666", font)
    return sheet


def plot_plane(
    groups: Sequence[tuple[str, Sequence[ScoredFolder]]], distortion: Measure, perception: Measure
) -> Any:
    """Plot the perception-distortion plane (Blau and Michaeli 2018).

    There is one plot for each group, a point for each picture, and means with 95 % intervals. A
    folder name has the same colour in all plots.

    Args:
        groups: Title and folders of each plot.
        distortion: Measure of the horizontal axis.
        perception: Measure of the vertical axis.

    Returns:
        A matplotlib Figure.
    """
    from matplotlib.figure import Figure

    columns = min(len(groups), 3)
    rows = -(-len(groups) // columns)
    wide = 7 if columns == 1 else 4.6
    figure = Figure(figsize=(wide * columns, 0.66 * wide * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    names = dict.fromkeys(one.name for _, folders in groups for one in folders)
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)}
    for axis, (title, folders) in zip(axes, groups, strict=False):
        for one in folders:
            _cloud(axis, one, distortion, perception, colours[one.name])
        axis.set(title=plain(title), xlabel=_axis(distortion), ylabel=_axis(perception))
        axis.spines[["top", "right"]].set_visible(False)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False, fontsize=9)
    for axis in axes[len(groups) :]:
        axis.set_visible(False)
    return figure


def _cloud(
    axis: Any, folder: ScoredFolder, distortion: Measure, perception: Measure, colour: str
) -> None:
    x, y = folder.values(distortion), folder.values(perception)
    shared = [key for key in x if key in y]
    if not shared:
        return
    axis.scatter([x[k] for k in shared], [y[k] for k in shared], s=9, color=colour, alpha=0.25)
    middle, spans = [], []
    for measure in (distortion, perception):
        mean = estimate_mean(folder, measure)
        span = None
        if mean["low"] is not None:
            span = [[mean["mean"] - mean["low"]], [mean["high"] - mean["mean"]]]
        middle.append(mean["mean"])
        spans.append(span)
    name = plain(folder.name)
    label = f" {name}" if name.startswith("_") else name  # which a legend would leave out
    style = {"fmt": "o", "ms": 7, "lw": 1.4, "color": colour, "label": label}
    axis.errorbar(*middle, xerr=spans[0], yerr=spans[1], **style)


def _axis(measure: Measure) -> str:
    return f"{measure.label} ({'more' if measure.higher else 'less'} is better)"
