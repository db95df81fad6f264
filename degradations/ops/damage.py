"""Damage of old pictures, with a mask of it, from which models learn to fill it in.

Lengths are in thousandths of the picture's longer side, so that crops of any size look alike.
"""

import math
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

import cv2
import numpy as np

from degradations.ops.op import Op, Params, Size
from degradations.ranges import Choice, Range, Uniform, within
from degradations.rng import Rng

Opacity = Annotated[Range, within(0, 1)]
MOST = 1000  # marks
Count = Annotated[Range, within(0, MOST)]  # rounded
Length = Annotated[Range, within(0, 1000)]  # thousandths of the longer side
_LIGHT_OR_DARK = Choice((Uniform(0.8, 1), Uniform(0, 0.2)), (3, 1))
_STAIN = (0.42, 0.30, 0.14)  # brown
_FAINT = 2 / 255  # coverage below it is none
_SHIFT = 4  # cv2 draws in sixteenths of a pixel


class Damage(Op):
    """Marks over the picture. A subclass implements `paint`; all else follows from it."""

    neutral: ClassVar = {"count": 0}
    count: Count = Uniform(1, 5)
    """Number of marks, rounded."""
    opacity: Opacity = Uniform(0.5, 1)
    """Opacity of the marks."""

    def draw(self, rng: Rng) -> Params:
        ranges = {
            name: getattr(self, name)
            for name in type(self).model_fields
            if isinstance(getattr(self, name), Uniform | Choice)
        }
        params = {name: values.draw(rng) for name, values in ranges.items()}
        return params | {"count": round(params["count"]), "seed": rng.bits()}

    @staticmethod
    def paint(params: Params, size: Size) -> tuple[np.ndarray, np.ndarray]:
        """Draw the marks.

        Args:
            params: What `draw` returned.
            size: (height, width).

        Returns:
            Coverage (H, W) in [0, 1], and the colour below it: (H, W, 1 or 3), or one that
                broadcasts.
        """
        raise NotImplementedError

    @classmethod
    def apply(cls, rgb: np.ndarray, params: Params, target: Size) -> np.ndarray:
        cover, colour = cls.layer(params, rgb.shape[:2])
        return rgb + cover[..., None] * (colour - rgb)

    @classmethod
    def mask(cls, params: Params, size: Size) -> np.ndarray:
        """uint8 (H, W): 255 where `apply` draws, else 0."""
        return to_mask(cls.layer(params, size)[0])

    @classmethod
    def layer(cls, params: Params, size: Size) -> tuple[np.ndarray, np.ndarray]:
        """As `paint`, in float32 and without coverage too faint to see."""
        cover, colour = cls.paint(params, size)
        return np.where(cover < _FAINT, 0, cover).astype(np.float32), colour.astype(np.float32)


def to_mask(share: np.ndarray) -> np.ndarray:
    """uint8 (H, W): 255 where the share of a mark can be seen, else 0."""
    return np.where(share < _FAINT, np.uint8(0), np.uint8(255))


class Scratches(Damage):
    """Thin strokes that wander, the emulsion gone or dirt in them (Wan et al. 2020)."""

    kind: Literal["scratches"] = "scratches"
    width: Length = Uniform(0.5, 4)
    """Width, thousandths of the picture's longer side."""
    shade: Opacity = _LIGHT_OR_DARK
    """Grey of the marks."""

    @staticmethod
    def paint(params: Params, size: Size) -> tuple[np.ndarray, np.ndarray]:
        canvas, side = np.zeros(size, np.uint8), max(size)
        for rng in _each(params):
            point, length = _point(rng, size), Uniform(0.05, 0.8).draw(rng) * side
            heading, turn = rng.uniform() * 2 * math.pi, Uniform(-0.3, 0.3)
            path = [point]
            for _ in range(8):
                heading += turn.draw(rng)
                point = point + length / 8 * np.array([math.cos(heading), math.sin(heading)])
                path.append(point)
            _stroke(canvas, path, params["width"] / 1000 * side)
        return canvas * (params["opacity"] / 255), np.array(params["shade"])


class Dust(Damage):
    """Specks, and a hair for every four of them, as on films and scanners (Ivanova et al. 2023)."""

    kind: Literal["dust"] = "dust"
    count: Count = Uniform(5, 60)
    """Number of specks and hairs, rounded."""
    width: Length = Uniform(1, 5)
    """Width, thousandths of the picture's longer side."""
    shade: Opacity = _LIGHT_OR_DARK
    """Grey of the marks."""

    @staticmethod
    def paint(params: Params, size: Size) -> tuple[np.ndarray, np.ndarray]:
        canvas, side = np.zeros(size, np.uint8), max(size)
        width = params["width"] / 1000 * side
        for rng in _each(params):
            point, angle = _point(rng, size), rng.uniform() * 2 * math.pi
            if rng.uniform() < 0.2:
                radius, arc = Uniform(3, 12).draw(rng) * width, Uniform(0.5, 3).draw(rng)
                turns = angle + np.linspace(0, arc, 12)
                path = point + radius * np.stack([np.cos(turns), np.sin(turns)], 1)
                _stroke(canvas, list(path), width / 4)
            else:
                end = point + rng.uniform() * width * np.array([math.cos(angle), math.sin(angle)])
                _stroke(canvas, [point, end], width * Uniform(0.4, 1).draw(rng))
        return canvas * (params["opacity"] / 255), np.array(params["shade"])


class Folds(Damage):
    """Creases across the whole picture: a bright broken ridge, one flank in shadow (Wan et al.)."""

    kind: Literal["folds"] = "folds"
    count: Count = Uniform(1, 3)
    """Number of creases, rounded."""
    width: Length = Uniform(1, 4)
    """Width, thousandths of the picture's longer side."""

    @staticmethod
    def paint(params: Params, size: Size) -> tuple[np.ndarray, np.ndarray]:
        y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
        ridge, shadow = np.zeros((2, *size), np.float32)
        width = max(params["width"] / 1000 * max(size), 0.5)
        for rng in _each(params):
            place, angle = _point(rng, size), rng.uniform() * 2 * math.pi
            across = (x - place[0]) * math.cos(angle) + (y - place[1]) * math.sin(angle)
            ridge = np.maximum(ridge, np.exp(-0.5 * (across / width) ** 2))
            flank = np.exp(-0.5 * (across / (3 * width)) ** 2) * 0.4
            shadow = np.maximum(shadow, np.where(across > 0, flank, 0))
        colour = np.where(ridge >= shadow, np.float32(0.92), np.float32(0.15))
        return np.maximum(ridge, shadow) * params["opacity"], colour[..., None]


class Stains(Damage):
    """Blots with a darker rim, where a drop dries last (Deegan et al. 1997)."""

    kind: Literal["stains"] = "stains"
    count: Count = Uniform(1, 4)
    """Number of blots, rounded."""
    opacity: Opacity = Uniform(0.2, 0.7)
    """Opacity of the blots."""
    radius: Length = Uniform(30, 180)
    """Radius, thousandths of the picture's longer side."""

    @staticmethod
    def paint(params: Params, size: Size) -> tuple[np.ndarray, np.ndarray]:
        y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
        cover = np.zeros(size, np.float32)
        for rng in _each(params):
            centre = _point(rng, size)
            radius = max(params["radius"] / 1000 * max(size) * Uniform(0.5, 1).draw(rng), 0.5)
            angle = np.arctan2(y - centre[1], x - centre[0])
            edge = np.ones(size, np.float32)
            for wave in range(2, 7):
                edge += 0.25 / wave * np.cos(wave * angle + rng.uniform() * 2 * math.pi)
            away = np.hypot(y - centre[1], x - centre[0]) / (radius * edge)  # 1 at the rim
            soft = np.clip((1 - away) * radius / 2, 0, 1)  # over two pixels
            cover = np.maximum(cover, soft * (0.5 + 0.5 * away**6))
        return cover * params["opacity"], np.array(_STAIN)


def _each(params: Params) -> Iterator[Rng]:
    """The draws of each scratch, speck or fold: a function of the seed and its number."""
    if params["count"] > MOST:  # in a trace of somebody: it would take minutes
        raise ValueError(f"count is at most {MOST}, not {params['count']}")
    return (Rng(params["seed"], "").at(index) for index in range(params["count"]))


def _point(rng: Rng, size: Size) -> np.ndarray:
    """(x, y) in pixels."""
    return np.array([rng.uniform() * size[1], rng.uniform() * size[0]])


def _stroke(canvas: np.ndarray, path: list[np.ndarray], width: float) -> None:
    """Draw white; a stroke thinner than a pixel is drawn a pixel wide."""
    points = np.rint(np.array(path) * 2**_SHIFT).astype(np.int32)
    cv2.polylines(canvas, [points], False, 255, max(1, round(width)), cv2.LINE_AA, _SHIFT)
