"""Detects the things in a picture of a scene by segmentation, without a network."""

from dataclasses import dataclass

import cv2
import numpy as np

from restore.training.toys.scenes import COLOURS, SHAPES, coverage

SMALLEST = 12  # px of a thing's area; the smallest star drawn has 17
SHARE = 0.15  # of a connected region that another colour needs to be a thing of its own
PALETTE = cv2.cvtColor(np.array([list(COLOURS.values())], np.float32) / 255, cv2.COLOR_RGB2LAB)[0]


@dataclass(frozen=True)
class Detection:
    """A thing that was found: its nearest colour and shape, its box, the fit of the shape."""

    colour: str
    shape: str
    corners: tuple[float, float, float, float]
    """Box (x0, y0, x1, y1), pixels."""
    fit: float
    """Intersection over union with the ideal shape in the same box."""

    @property
    def label(self) -> str:
        return f"{self.colour} {self.shape}"


def detect(rgb: np.ndarray) -> list[Detection]:
    """The things in a picture, the largest first.

    Pixels nearer to a colour (in CIE Lab) than to the background, the median of the border, form
    connected regions. Colours that cover enough of a region are things.

    Args:
        rgb: uint8 (H, W, 3).
    """
    lab = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    away = np.linalg.norm(lab[..., None, :] - PALETTE, axis=-1)
    front = away.min(-1) < np.linalg.norm(lab - np.median(_border(lab), 0), axis=-1)
    nearest = away.argmin(-1)
    count, regions = cv2.connectedComponents(front.astype(np.uint8), connectivity=4)
    found = []
    for region in range(1, count):
        inside = regions == region
        areas = np.bincount(nearest[inside], minlength=len(PALETTE))
        large = np.flatnonzero(areas > max(SMALLEST, SHARE * inside.sum()))
        for colour in large:
            own = nearest == colour if len(large) > 1 else inside
            mask = _covered_by(rgb, inside, own, list(COLOURS.values())[colour])
            if mask.sum() >= SMALLEST:
                found.append((mask.sum(), _thing(mask, list(COLOURS)[colour])))
    return [thing for _, thing in sorted(found, key=lambda pair: -pair[0])]


def _border(pixels: np.ndarray) -> np.ndarray:
    return np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])


def _covered_by(rgb: np.ndarray, inside: np.ndarray, visible: np.ndarray, colour) -> np.ndarray:
    """Pixels in or beside `inside` that the colour covers by half or more: their largest part.

    A pixel of an edge mixes colour and ground in proportion, so the share is a projection.

    Args:
        visible: Which pixels of the region count as this colour's.
    """
    ground = np.median(_border(rgb), 0)
    towards = np.array(colour, np.float64) - ground
    share = (rgb - ground) @ towards / (towards @ towards)
    reach = cv2.dilate(inside.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return largest(reach & (share >= 0.5) & (visible | ~inside))


def largest(mask: np.ndarray) -> np.ndarray:
    """The largest connected part of a mask."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    areas = stats[1:, cv2.CC_STAT_AREA]
    return parts == 1 + areas.argmax() if len(areas) else mask


def _thing(mask: np.ndarray, colour: str) -> Detection:
    """The shape that covers the mask best when it fills the mask's box."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    corners = tuple(float(n) for n in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    fits = {}
    for shape in SHAPES:
        ideal = coverage(shape, corners, mask.shape[0]) > 0.5
        fits[shape] = float((mask & ideal).sum() / (mask | ideal).sum())
    best = max(fits, key=fits.__getitem__)
    return Detection(colour, best, corners, fits[best])


def overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Intersection over union of two boxes (x0, y0, x1, y1)."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    common = max(0.0, width) * max(0.0, height)
    areas = ((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return common / (sum(areas) - common)
