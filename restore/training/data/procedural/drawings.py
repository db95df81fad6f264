"""Line art: curves, hatching, polygons and diagrams, drawn by chance."""

import math

import cv2
import numpy as np

from restore.training.data.procedural.lettering import Face, words, write
from restore.training.data.procedural.palette import contrast, halve, plain, tones

Rng = np.random.Generator
FINE = 4  # line art is drawn so many times larger, then averaged


class Pen:
    """Draws lines and flat areas; points are (n, 2), as x and y in shares of the side."""

    def __init__(self, rng: Rng, size: int):
        colour, self.inks = contrast(rng, 4)
        self.rgb = plain(FINE * size, FINE * size, colour)
        self.width = math.exp(rng.uniform(-0.5, 1)) / size  # 0.6 to 2.7 px
        flat = np.concatenate([self.inks, tones(rng, 4)])
        self.flats = colour + (flat - colour) * rng.uniform(0.2, 0.9, (len(flat), 1))

    def line(self, points: np.ndarray, rng: Rng, closed: bool = False, thin: float = 1) -> None:
        ink = self.inks[0 if rng.random() < 0.7 else rng.integers(len(self.inks))]
        width = max(1, round(self.width * len(self.rgb) * thin))
        cv2.polylines(self.rgb, self._at(points), closed, ink.tolist(), width, cv2.LINE_8, 4)

    def lines(self, segments: np.ndarray, ink: np.ndarray, thin: float = 1) -> None:
        """segments (n, m, 2), all of one ink."""
        width = max(1, round(self.width * len(self.rgb) * thin))
        cv2.polylines(self.rgb, self._at(segments), False, ink.tolist(), width, cv2.LINE_8, 4)

    def fill(self, points: np.ndarray, rng: Rng) -> None:
        flat = self.flats[rng.integers(len(self.flats))]
        cv2.fillPoly(self.rgb, self._at(points), flat.tolist(), cv2.LINE_8, 4)

    def _at(self, points: np.ndarray) -> list[np.ndarray]:
        placed = np.rint(points * len(self.rgb) * 16).astype(np.int32)
        return [*placed] if placed.ndim == 3 else [placed]


def circle(turns: np.ndarray) -> np.ndarray:
    """Points (n, 2) on the unit circle."""
    return np.stack([np.cos(turns), np.sin(turns)], 1)


def wave(rng: Rng, turns: float, harmonics: int = 4) -> np.ndarray:
    """Part of a smooth closed curve about (0, 0), which reaches as far as 1: (96, 2)."""
    at = np.linspace(0, 2 * np.pi * turns, 96)[:, None, None]
    order = np.arange(1, harmonics + 1)[:, None]
    size, phase = rng.normal(size=(harmonics, 2)) / order**1.5, rng.uniform(0, 7, (harmonics, 2))
    points = (size * np.sin(at * order + phase)).sum(1)
    return points / np.abs(points).max()


def blob(pen: Pen, rng: Rng) -> None:
    """A closed shape, filled or not; at times with others inside, as contour lines."""
    at, order = np.linspace(0, 2 * np.pi, 96, endpoint=False), np.arange(2, 6)
    bumps = rng.normal(0, 0.25, 4) / order**0.5
    radius = 1 + np.cos(at[:, None] * order + rng.uniform(0, 7, 4)) @ bumps
    shape = rng.uniform(0.06, 0.35) * circle(at) * radius[:, None] * rng.uniform(0.4, 1, 2)
    centre, rings = rng.uniform(0, 1, 2), 1 if rng.random() < 0.7 else int(rng.integers(3, 9))
    if rng.random() < 0.6:
        pen.fill(centre + shape, rng)
    for inner in np.linspace(1, 0, rings, endpoint=False):
        pen.line(centre + inner * shape, rng, closed=True)


def curve(pen: Pen, rng: Rng) -> None:
    path = rng.uniform(0.1, 0.6) * wave(rng, rng.uniform(0.3, 0.9))
    pen.line(rng.uniform(0, 1, 2) + path, rng)


def strands(pen: Pen, rng: Rng) -> None:
    """Curves side by side, as hair, water and engravings have them."""
    path = rng.uniform(0.2, 0.6) * wave(rng, rng.uniform(0.2, 0.5), 3)
    step = rng.uniform(1.8, 5) * pen.width * circle(rng.uniform(0, 7, 1))
    many = np.arange(rng.integers(4, 24))[:, None, None] * step
    pen.lines(rng.uniform(0, 1, 2) + path + many, pen.inks[rng.integers(2)], 0.7)


def polygon(pen: Pen, rng: Rng) -> None:
    corners, deep = int(rng.integers(3, 9)), rng.choice([0, 0.6])
    at = (np.arange(corners) + rng.uniform(0, 0.8, corners)) * 2 * np.pi / corners
    radius = rng.uniform(0.05, 0.3) * rng.uniform(1 - deep, 1, corners)
    shape = rng.uniform(0, 1, 2) + circle(at) * radius[:, None]
    if rng.random() < 0.6:
        pen.fill(shape, rng)
    pen.line(shape, rng, closed=True)


def hatching(pen: Pen, rng: Rng) -> None:
    """Parallel lines, or two ways of them, within an ellipse or a box that leans."""
    half, centre = rng.uniform(0.05, 0.25, 2), rng.uniform(0, 1, 2)
    off = np.arange(-half[1], half[1], rng.uniform(2, 6) * pen.width)
    inside = 1 - (off / half[1]) ** 2 if rng.random() < 0.5 else np.ones(len(off))
    reach = half[0] * np.sqrt(np.maximum(inside, 0))
    ends = np.stack([np.stack([-reach, off], 1), np.stack([reach, off], 1)], 1)
    ink, lean = pen.inks[rng.integers(2)], rng.uniform(0, np.pi)
    for angle in (lean, lean + rng.uniform(0.6, 1.6))[: rng.integers(1, 3)]:
        c, s = math.cos(angle), math.sin(angle)
        pen.lines(centre + ends @ [[c, s], [-s, c]], ink, 0.6)


def boxes(pen: Pen, rng: Rng) -> None:
    """Two boxes of a diagram and the arrow from one to the other."""
    places = rng.uniform(0.1, 0.9, (2, 2))
    way = places[1] - places[0]
    along = way / max(float(np.linalg.norm(way)), 1e-6)
    across, tip = np.array([-along[1], along[0]]), 0.008 + 2.5 * pen.width
    pen.line(places, rng)
    head = places[0] + 0.7 * way
    pen.fill(head + tip * np.array([2 * along, across, -across]), rng)
    for place in places:
        half = rng.uniform(0.04, 0.14, 2)
        corners = place + half * [[-1, -1], [1, -1], [1, 1], [-1, 1]]
        pen.fill(corners, rng)
        pen.line(corners, rng, closed=True)


ITEMS = (blob, curve, strands, polygon, hatching, boxes)


def line_art(rng: Rng, size: int, faces: tuple[Face, ...]) -> np.ndarray:
    """Curves, hatching, polygons and diagrams in thin lines and flat colours, some with labels."""
    pen, chosen = Pen(rng, size), rng.choice(len(ITEMS), rng.integers(1, 4), replace=False)
    if rng.random() < 0.2:  # squared paper
        at = np.arange(0, 1, rng.uniform(8, 32) / size) + rng.uniform(0, 0.05)
        ends = np.stack([np.stack([at, 0 * at], 1), np.stack([at, 0 * at + 1], 1)], 1)
        pen.lines(np.concatenate([ends, ends[..., ::-1]]), pen.flats[0], 0.3)
    for _ in range(rng.integers(4, 20)):
        ITEMS[chosen[rng.integers(len(chosen))]](pen, rng)
    rgb = halve(halve(pen.rgb))
    if rng.random() < 0.5:
        face, px = faces[rng.integers(len(faces))], rng.uniform(8, 24)
        for word in words(rng, int(rng.integers(1, 9)), face.scripts[0]):
            write(rgb, word, tuple(size * rng.uniform(0, 0.9, 2)), px, face, pen.inks[0])
    return rgb
