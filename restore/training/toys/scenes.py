"""Coloured shapes on a plain ground: pictures whose words, class and boxes are exactly known.

A scene is a pure function of (seed, index), so that a stream of them needs no files.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from restore.diffusion.contexts.boxes import Box, written

SIZE = 32  # px on a side
COLOURS = {
    "red": (214, 36, 36),
    "orange": (245, 140, 20),
    "yellow": (250, 226, 60),
    "green": (36, 150, 60),
    "blue": (40, 70, 215),
    "purple": (140, 50, 170),
}
SIZES = {"small": (5, 6), "": (6.75, 7.75), "large": (8.5, 9.5)}  # half the width in px
ALONE = 1.3  # times as large where a scene has room for one thing only
ROWS, COLUMNS = ("top", "", "bottom"), ("left", "", "right")
SHARES = (0.5, 0.35, 0.15)  # of scenes with one, two and three shapes
FINE = 4  # shapes are drawn so many times larger, then averaged
GAP = 1  # px between two shapes, and to the border
TRIES = 20  # places tried for a shape before the whole scene is drawn anew


def outline(shape: str) -> np.ndarray:
    """Corners (n, 2) of a shape that touches all four sides of [-1, 1] x [-1, 1]; y goes down."""
    turns = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    if shape == "star":
        angles = np.arange(10) * np.pi / 5
        points = np.stack([np.sin(angles), -np.cos(angles)], 1)
        points[1::2] *= 0.4
        low, high = points.min(0), points.max(0)
        return (points - low) / (high - low) * 2 - 1
    corners = {
        "circle": np.stack([np.cos(turns), np.sin(turns)], 1),
        "square": [(-1, -1), (1, -1), (1, 1), (-1, 1)],
        "triangle": [(0, -1), (1, 1), (-1, 1)],
        "cross": [
            *((-0.35, -1), (0.35, -1), (0.35, -0.35), (1, -0.35), (1, 0.35), (0.35, 0.35)),
            *((0.35, 1), (-0.35, 1), (-0.35, 0.35), (-1, 0.35), (-1, -0.35), (-0.35, -0.35)),
        ],
    }
    return np.asarray(corners[shape], np.float64)


SHAPES = ("circle", "square", "triangle", "star", "cross")
OUTLINES = {shape: outline(shape) for shape in SHAPES}
LABELS = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)


@dataclass(frozen=True)
class Thing:
    """One shape of a scene."""

    colour: str
    shape: str
    corners: tuple[float, float, float, float]
    """Box (x0, y0, x1, y1), pixels."""
    words: str
    """How the caption calls it."""

    @property
    def label(self) -> str:
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """One to three things of different colours that do not touch, on a grey of that level."""

    ground: int
    """Grey level of the background, 0 to 255."""
    things: tuple[Thing, ...]
    """One to three things of different colours that do not touch."""

    @property
    def caption(self) -> str:
        """ "a large red circle at the top left, a star and a small blue square" """
        *rest, last = (thing.words for thing in self.things)
        return f"{', '.join(rest)} and {last}" if rest else last

    @property
    def layout(self) -> str:
        """The same as boxes, as `restore.diffusion.contexts.boxes` reads them."""
        return written(
            [Box(thing.label, *(x / SIZE for x in thing.corners)) for thing in self.things]
        )

    @property
    def label(self) -> str:
        """The class: the first thing's colour and shape."""
        return self.things[0].label

    def prompt(self, context: str) -> str:
        """The prompt for a model with this kind of context: text, classes or boxes."""
        return {"text": self.caption, "classes": self.label, "boxes": self.layout}[context]

    def render(self) -> np.ndarray:
        """uint8 (SIZE, SIZE, 3), edges averaged."""
        rgb = np.full((SIZE, SIZE, 3), self.ground, np.float32)
        for thing in self.things:
            cover = coverage(thing.shape, thing.corners)[..., None]
            rgb += cover * (np.array(COLOURS[thing.colour], np.float32) - rgb)
        return np.rint(rgb).astype(np.uint8)


def coverage(
    shape: str, corners: tuple[float, float, float, float], size: int = SIZE
) -> np.ndarray:
    """How much of each pixel a shape covers that fills the box: float32 (size, size), [0, 1]."""
    x0, y0, x1, y1 = corners
    # fillPoly fills what its outline runs through as well: from the first pixel to the last one
    last = np.array([x1 - x0, y1 - y0]) * FINE - 1
    points = (OUTLINES[shape] + 1) / 2 * last + np.array([x0, y0]) * FINE
    fine = np.zeros((size * FINE, size * FINE), np.uint8)
    cv2.fillPoly(fine, [np.rint(points * 256).astype(np.int32)], 255, shift=8)
    small = cv2.resize(fine, (size, size), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32) / 255


def scene(seed: int, index: int, most: int = 3, held_out: bool = False) -> Scene:
    """Scene `index` of a stream.

    Args:
        seed: Seed of the stream.
        index: Number of the scene.
        most: Largest number of things.
        held_out: Take it from the tenth of all captions that are not used in training.
    """
    rng = np.random.default_rng((seed, index))
    while True:
        made = draw(rng, most)
        if made and is_held_out(made.caption) == held_out:
            return made


def write(folder: Path, seed: int, count: int) -> None:
    """Scenes 0 to count - 1 as 00000.png and 00000.json: {"caption", "label", "boxes"}."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        made = scene(seed, index)
        said = {"caption": made.caption, "label": made.label, "boxes": made.layout}
        Image.fromarray(made.render()).save(folder / f"{index:05d}.png")
        (folder / f"{index:05d}.json").write_text(json.dumps(said) + "\n")


def is_held_out(caption: str) -> bool:
    return hashlib.blake2b(caption.encode()).digest()[0] < 256 // 10


def draw(rng: np.random.Generator, most: int) -> Scene | None:
    """A scene, or None if no place is left for one of its things."""
    odds = np.array(SHARES[:most]) / sum(SHARES[:most])
    count = 1 + int(rng.choice(most, p=odds))
    ground = int(rng.choice([rng.integers(15, 60), rng.integers(190, 250)]))
    colours = rng.permutation(list(COLOURS))[:count]
    things: list[Thing] = []
    for colour in colours:
        tries = (random_thing(str(colour), rng, ALONE if most == 1 else 1) for _ in range(TRIES))
        free = (thing for thing in tries if not any(are_touching(thing, other) for other in things))
        thing = next(free, None)
        if thing is None:
            return None
        things.append(thing)
    return Scene(ground, tuple(things))


def random_thing(colour: str, rng: np.random.Generator, larger: float) -> Thing:
    """A thing in a ninth of the picture, called by colour and shape, at times by size and place."""
    shape, size = str(rng.choice(SHAPES)), str(rng.choice(list(SIZES)))
    half = larger * rng.uniform(*SIZES[size])
    row, column = rng.integers(3, size=2)
    third, nearest = SIZE / 3, half + GAP
    x, y = (
        float(np.clip(rng.uniform(cell * third, (cell + 1) * third), nearest, SIZE - nearest))
        for cell in (column, row)
    )
    words = f"a {size} {colour} {shape}" if size and rng.random() < 0.5 else f"a {colour} {shape}"
    if rng.random() < 0.6:
        words += " " + describe_place(ROWS[row], COLUMNS[column])
    words = words.replace("a orange", "an orange")
    return Thing(colour, shape, (x - half, y - half, x + half, y + half), words)


def describe_place(row: str, column: str) -> str:
    """The ninth of the picture, in words."""
    if not (row or column):
        return "in the middle"
    return f"at the {row} {column}".strip() if row else f"on the {column}"


def are_touching(one: Thing, other: Thing) -> bool:
    """Whether two boxes are nearer than GAP px."""
    a, b = one.corners, other.corners
    apart = max(a[0] - b[2], b[0] - a[2], a[1] - b[3], b[1] - a[3])
    return apart < GAP


def vocabulary() -> list[str]:
    """Every word that a caption may hold."""
    words = {"a", "an", "and", "at", "the", "in", "on", "middle", *COLOURS, *SHAPES}
    return sorted(words.union(SIZES, ROWS, COLUMNS) - {""})
