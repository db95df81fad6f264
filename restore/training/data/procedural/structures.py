"""Thin things that scenes hold: wires, railings, windows, masts, branches, lettering.

They are drawn into a photo before its lens softens it, in shaded colours of its own.
"""

import math
from functools import cache

import cv2
import numpy as np

from restore.training.data.procedural import lettering
from restore.training.data.procedural.palette import soft

Rng = np.random.Generator
FINE = 16  # cv2 draws in sixteenths of a pixel


def add(rgb: np.ndarray, rng: Rng) -> np.ndarray:
    """uint8 (S, S, 3) -> the same with one or two structures in it."""
    result = rgb.astype(np.float32)
    for _ in range(rng.integers(1, 3)):
        cover = np.zeros(rgb.shape[:2], np.uint8)
        KINDS[rng.integers(len(KINDS))](cover, rng)
        softened = cv2.GaussianBlur(cover, (0, 0), rng.uniform(0.3, 1.2)) * np.float32(1 / 255)
        light = 1 + rng.uniform(0.05, 0.35) * soft(rng, rgb.shape[0], int(rng.integers(2, 8)))
        result += softened[..., None] * (_colour(rgb, rng) * light[..., None] - result)
    return np.rint(np.clip(result, 0, 255)).astype(np.uint8)


def _colour(rgb: np.ndarray, rng: Rng) -> np.ndarray:
    """Mostly dark; else white, or a darker or lighter shade of what the picture has."""
    kind = rng.random()
    if kind < 0.45:
        return rng.uniform(5, 70) * rng.uniform(0.7, 1, 3)
    if kind < 0.7:
        return rng.uniform(190, 255) * rng.uniform(0.9, 1, 3)
    y, x = rng.integers(rgb.shape[0], size=2)
    return rgb[y, x] * rng.uniform(0.3, 1.7)


def _line(cover: np.ndarray, points: np.ndarray, width: float) -> None:
    placed = np.rint(np.asarray(points) * FINE).astype(np.int32)
    cv2.polylines(cover, [placed], False, 255, max(1, round(width)), cv2.LINE_AA, 4)


def wires(cover: np.ndarray, rng: Rng) -> None:
    """A few lines from edge to edge, each with its sag."""
    side, at = len(cover), np.linspace(-0.1, 1.1, 24)
    slope, gap, width = rng.normal(0, 0.4), rng.uniform(0.03, 0.3), math.exp(rng.uniform(0, 1.3))
    first, is_up = rng.uniform(0, 1), rng.random() < 0.25
    for number in range(rng.integers(1, 7)):
        sag = rng.uniform(0, 0.12) * 4 * at * (1 - at)
        y = first + slope * (at - 0.5) + number * gap + sag
        points = np.stack([at, y], 1) * side
        _line(cover, points[:, ::-1] if is_up else points, width)


def railing(cover: np.ndarray, rng: Rng) -> None:
    """Bars at even distances between two rails, some seen askew."""
    side, width = len(cover), math.exp(rng.uniform(0, 1.4))
    gap = rng.uniform(3, 12) * width
    lean, slope = rng.normal(0, 0.1), rng.normal(0, 0.15)
    top, height = rng.uniform(-0.2, 0.6) * side, rng.uniform(0.2, 0.9) * side
    for x in np.arange(rng.uniform(-gap, 0), side + gap, gap):
        foot = np.array([x, top + slope * x])
        _line(cover, np.array([foot, foot + np.array([lean * height, height])]), width)
    for y in (top, top + height)[: rng.integers(1, 3)]:
        ends = np.array([(-2, y - 2 * slope), (side + 2, y + slope * (side + 2))])
        _line(cover, ends, 1.5 * width)
    if rng.random() < 0.3:
        cover[:] = cover.T.copy()


def window(cover: np.ndarray, rng: Rng) -> None:
    """Frames with panes, upright or nearly so."""
    side, angle = len(cover), rng.normal(0, 0.06)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    width = math.exp(rng.uniform(0, 1.5))
    size = rng.uniform(0.15, 0.7, 2) * side
    for _ in range(rng.integers(1, 4)):
        corner, panes = rng.uniform(-0.1, 0.8, 2) * side, rng.integers(1, 5, 2)
        for axis in (0, 1):
            for share in np.linspace(0, 1, panes[axis] + 1):
                ends = np.zeros((2, 2))
                ends[:, axis], ends[1, 1 - axis] = share * size[axis], size[1 - axis]
                is_rim = share in (0, 1)
                _line(cover, corner + ends @ turn, width * (1.5 if is_rim else 1))


def mast(cover: np.ndarray, rng: Rng) -> None:
    """Poles that end in the picture, with yards and stays; thicker at the foot."""
    side = len(cover)
    for _ in range(rng.integers(1, 4)):
        foot = np.array([rng.uniform(0, 1) * side, side + 2.0])
        head = foot + np.array([rng.normal(0, 0.05), -rng.uniform(0.4, 1)]) * side
        width = math.exp(rng.uniform(0, 1.6))
        for share in (1.0, 0.65, 0.3):
            _line(cover, np.array([foot, foot + share * (head - foot)]), width * (1.3 - share))
        for share in rng.uniform(0.5, 1, rng.integers(0, 4)):
            middle, half = foot + share * (head - foot), rng.uniform(0.02, 0.15) * side
            _line(cover, middle + np.array([(-half, 0), (half, 0)]), 0.6 * width)
        for reach in rng.uniform(-0.5, 0.5, rng.integers(0, 4)) * side:
            _line(cover, np.array([head, foot + np.array([reach, 0])]), 1)


def branches(cover: np.ndarray, rng: Rng) -> None:
    """A bough that forks and grows thinner."""
    side = len(cover)
    start, heading = rng.uniform(0, side, 2), rng.uniform(0, 2 * np.pi)
    start[rng.integers(2)] = 0 if rng.random() < 0.5 else side
    todo = [(start, heading, rng.uniform(1.5, 8))]
    for _ in range(60):
        if not todo:
            return
        point, heading, width = todo.pop(0)
        path = [point]
        for _ in range(5):
            heading += rng.normal(0, 0.2)
            reach = rng.uniform(0.02, 0.05) * side * min(1.5, 0.5 + width / 4)
            path.append(path[-1] + reach * np.array([math.cos(heading), math.sin(heading)]))
        _line(cover, np.array(path), width)
        if width > 0.8:
            forks = rng.uniform(0.2, 0.8, 2) * (1, -1)
            todo += [(path[-1], heading + fork, width * rng.uniform(0.5, 0.85)) for fork in forks]


def letters(cover: np.ndarray, rng: Rng) -> None:
    """A few lines of text, large or small."""
    rgb, faces = np.zeros((*cover.shape, 3), np.uint8), _faces()
    face, px = faces[rng.integers(len(faces))], rng.uniform(8, 40)
    top, left = rng.uniform(-0.2, 0.7, 2) * len(cover)
    for line in range(rng.integers(1, 6)):
        text = " ".join(lettering.words(rng, int(rng.integers(1, 5)), face.scripts[0]))
        lettering.write(rgb, text, (left, top + 1.3 * px * line), px, face, np.full(3, 255.0))
    cover[:] = np.maximum(cover, rgb.max(2))


@cache
def _faces() -> tuple[lettering.Face, ...]:
    return lettering.faces(None)


KINDS = (wires, railing, window, mast, branches, letters)
