"""Pictures that are drawn, not taken: dead leaves, text, line art, screens, gradients.

Each is a function of a random generator alone, of any size, so that training has as many as it
likes of what photos hold too little of. Edges are averaged over areas, as a camera's are.
"""

import math

import cv2
import numpy as np

from restore.training.data.procedural import lettering
from restore.training.data.procedural.drawings import line_art
from restore.training.data.procedural.lettering import Face
from restore.training.data.procedural.palette import (
    apply_light,
    contrast,
    ground,
    halve,
    soft,
    tones,
)
from restore.training.data.procedural.screens import screen

LEAST = 128  # px on a side of what is drawn whole


def draw(
    rng: np.random.Generator, size: int, faces: tuple[Face, ...], kind: str | None = None
) -> np.ndarray:
    """Draw a picture; small ones are cut out of larger ones.

    Args:
        rng: Draws it.
        size: Side, pixels.
        faces: Fonts for text.
        kind: One of KINDS; None: drawn by SHARES.

    Returns:
        uint8 (size, size, 3).
    """
    if kind is None:
        kind = str(rng.choice(list(SHARES), p=list(SHARES.values())))
    side = max(size, LEAST)
    y, x = rng.integers(side - size + 1, size=2)
    made = KINDS[kind](rng, side, faces)
    return np.ascontiguousarray(made[y : y + size, x : x + size])


def text(rng: np.random.Generator, size: int, faces: tuple[Face, ...]) -> np.ndarray:
    """A page or a screen of text; one of five is rotated a little, as in a photo."""
    colour, inks = contrast(rng)
    if rng.random() < 0.8:
        rgb = ground(rng, size, colour)
        lettering.page(rng, rgb, faces, inks)
        return rgb
    rgb = ground(rng, 2 * size, colour)
    lettering.page(rng, rgb, faces, inks, zoom=2)
    angle = rng.normal(0, 8)
    turn = math.radians(abs(angle))
    whole = math.cos(turn) + math.sin(turn)  # enlarged so far, its corners stay outside
    moved = cv2.getRotationMatrix2D((size, size), angle, whole)
    moved = cv2.warpAffine(rgb, moved, (2 * size, 2 * size), borderMode=cv2.BORDER_REPLICATE)
    return halve(moved)


def leaves(rng: np.random.Generator, size: int, faces: tuple[Face, ...] = ()) -> np.ndarray:
    """Dead leaves: shapes that hide one another, with radii distributed as r^-3 (Lee, Mumford and
    Huang 2001).

    Their statistics are those of natural pictures, at any scale. Each leaf has more or less of one
    of two textures, and soft light is put over the whole.
    """
    side, count = 2 * size, int(rng.integers(300, 900))
    largest = side * rng.uniform(0.15, 0.5)
    smallest = np.full(count, min(3 * np.exp(rng.uniform(0, 1.6)), largest / 2))
    smallest[: count // 4] = largest / 8  # first larger ones, so that no ground is left
    radii = (smallest**-2 - rng.random(count) * (smallest**-2 - largest**-2)) ** -0.5
    centres = rng.uniform(0, side, (count, 2))
    corners = outlines(rng, count) * radii[:, None, None] + centres[:, None]
    corners = np.rint(corners * 16).astype(np.int32)  # in sixteenths of a pixel
    discs = np.rint(np.c_[centres, radii] * 16).astype(int).tolist()
    textured = 128 + rng.uniform(0, 127) * rng.uniform(-1, 1, (count, 1))
    colours = np.rint(np.c_[tones(rng, count), textured]).tolist()
    is_round = rng.random(count) < rng.random()
    canvas = np.empty((side, side, 4), np.uint8)
    cv2.rectangle(canvas, (0, 0), (side, side), colours[0], -1)
    for number, colour in enumerate(colours):
        if is_round[number]:
            x, y, radius = discs[number]
            cv2.circle(canvas, (x, y), radius, colour, -1, cv2.LINE_8, 4)
        else:
            cv2.fillPoly(canvas, [corners[number]], colour, cv2.LINE_8, 4)
    made = halve(canvas)
    amount = made[..., 3] * np.float32(1 / 128) - 1
    one, other = texture(rng, size), (texture if rng.random() < 0.5 else stripes)(rng, size)
    light = 1 + rng.uniform(0, 0.4) * soft(rng, size, 4)
    light *= 1 + np.maximum(amount, 0) * one - np.minimum(amount, 0) * other
    return apply_light(np.ascontiguousarray(made[..., :3]), light)


def outlines(rng: np.random.Generator, count: int) -> np.ndarray:
    """Polygons of seven corners about (0, 0), some long, some jagged: (count, 7, 2)."""
    turns = np.sort(rng.uniform(0, 2 * np.pi, (count, 1)) + 2 * np.pi / 7 * np.arange(7))
    turns = turns + rng.uniform(-0.4, 0.4, turns.shape)
    reach = 1 - rng.random((count, 1)) * rng.uniform(0, 0.7, turns.shape)
    narrow = rng.uniform(0.25, 1, (count, 1))
    shape = np.stack([np.cos(turns) * reach, np.sin(turns) * reach * narrow], 2)
    lean = rng.uniform(0, np.pi, count)
    c, s = np.cos(lean), np.sin(lean)
    return shape @ np.stack([np.stack([c, s], 1), np.stack([-s, c], 1)], 1)


def texture(rng: np.random.Generator, size: int) -> np.ndarray:
    """Roughness of all sizes, weaker the finer it is: float32 (size, size), about [-0.7, 0.7]."""
    sizes, fall = [cells for cells in (8, 32, 128) if cells < size] or [size], rng.uniform(0.3, 1)
    made = np.zeros((size, size), np.float32)
    for number, cells in enumerate(sizes):
        made += np.float32(0.4 * fall**number) * soft(rng, size, cells)
    return made


def stripes(rng: np.random.Generator, size: int) -> np.ndarray:
    """Bent stripes as wood, cloth and fur have them: float32 (size, size), [-0.7, 0.7]."""
    at, angle = np.arange(size, dtype=np.float32), rng.uniform(0, 2 * np.pi)
    rate = 2 * np.pi * np.exp(rng.uniform(-2.8, -1.1))  # 3 to 16 px a wave
    along = rate * (math.cos(angle) * at + math.sin(angle) * at[:, None])
    return np.sin(along + 5 * soft(rng, size, 5)) * (0.4 + 0.3 * soft(rng, size, 8))


def gradient(rng: np.random.Generator, size: int, faces: tuple[Face, ...] = ()) -> np.ndarray:
    """Two to four colours that run into one another, straight, round or every way."""
    colours = tones(rng, 4) if rng.random() < 0.7 else rng.uniform(0, 255, (4, 3))
    if rng.random() < 0.4:
        mesh = colours.astype(np.float32).reshape(2, 2, 3)
        plane = cv2.resize(mesh, (3 * size, 3 * size), interpolation=cv2.INTER_LINEAR)
        plane = plane[size : 2 * size, size : 2 * size]
    else:
        rows, columns = np.mgrid[:size, :size].astype(np.float32) / size
        angle, (y, x) = rng.uniform(0, 2 * np.pi), rng.uniform(-0.3, 1.3, 2)
        straight = columns * math.cos(angle) + rows * math.sin(angle)
        at = straight if rng.random() < 0.6 else np.hypot(rows - y, columns - x)
        at = (at - at.min()) / max(float(np.ptp(at)), 1e-6)
        stops = np.linspace(0, 1, int(rng.integers(2, 5)))
        channels = colours[: len(stops)].T
        plane = np.stack([np.interp(at, stops, channel) for channel in channels], -1)
    return np.rint(np.clip(plane, 0, 255)).astype(np.uint8)


KINDS = {"leaves": leaves, "text": text, "lines": line_art, "screen": screen, "gradient": gradient}
SHARES = {"leaves": 0.25, "text": 0.35, "lines": 0.2, "screen": 0.15, "gradient": 0.05}
