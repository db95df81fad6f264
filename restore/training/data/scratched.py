"""Photos with drawn damage and its mask, and with structures that only look like damage.

A scratch came onto the photo after the lens, the grain and the fading, so it has neither their
softness nor their noise. Wires, railings and branches have both. A network is to learn this
difference, so both are drawn, each at its place in the chain.
"""

import math
from collections.abc import Callable
from typing import Self

import cv2
import numpy as np
from pydantic import Field, model_validator

from degradations import Recipe
from degradations.ops import (
    Cast,
    Dust,
    Fade,
    FilmGrain,
    Folds,
    GaussianNoise,
    Jpeg,
    Maybe,
    OneOf,
    Scratches,
)
from degradations.ops.blur import Blur
from degradations.ops.damage import Damage
from degradations.ranges import Choice, LogUniform, Uniform
from degradations.rng import Rng as OpRng
from restore.training.data.crops import PhotoOptions, Photos
from restore.training.data.procedural import pictures, structures

Rng = np.random.Generator
Layer = tuple[np.ndarray, np.ndarray]  # coverage (H, W) in [0, 1], colour that broadcasts to rgb
ROOM = 3.0  # a crop shows up to so many times its own side of a photo
SEEN = 20 / 255  # a smaller change is harder to see, so it has less weight
UNSEEN = 0.1  # weight of what cannot be seen at all

LENS = Recipe(  # what a photo went through before it was scratched
    name="aged",
    steps=(
        Maybe(p=0.6, step=Blur(sigma=Uniform(0.3, 1.5))),
        Maybe(p=0.5, step=Fade()),
        Maybe(p=0.3, step=Cast(blue=Uniform(0.6, 1))),
        Maybe(
            p=0.75,
            step=OneOf(
                steps=(
                    GaussianNoise(sigma_levels=LogUniform(1, 22), grey=0.7),
                    FilmGrain(sigma_levels=Uniform(2, 20), size=Uniform(0.4, 2)),
                )
            ),
        ),
        Maybe(p=0.5, step=Jpeg(quality=Uniform(30, 95))),
    ),
)
SCANNER = Recipe(  # and after
    name="scanned",
    steps=(
        Maybe(p=0.35, step=Blur(sigma=Uniform(0.3, 0.9))),
        Maybe(p=0.2, step=GaussianNoise(sigma_levels=Uniform(1, 6))),
        Maybe(p=0.7, step=Jpeg(quality=Uniform(40, 97))),
    ),
)
SAVED = Recipe(name="saved", steps=(Maybe(p=0.35, step=Jpeg(quality=Uniform(60, 97))),))


class ScratchedOptions(PhotoOptions):
    """How photos are damaged; `drawn` is the share that is no photo but line art, text and such."""

    hurt: float = Field(0.45, ge=0, le=1)
    """Share of the samples with damage; nothing is to be found in the rest."""
    built: float = Field(0.4, ge=0, le=1)
    """Share of the samples in which wires, railings and the like are drawn as part of the scene."""
    widths: tuple[float, float] = (0.7, 5)
    """Range of the width of a scratch, pixels before the picture is enlarged."""
    enlarged: tuple[float, float] = (0.6, 2)
    """Share of the samples that is enlarged, and the largest factor."""

    @model_validator(mode="after")
    def _can_be_drawn(self) -> Self:
        (thin, wide), (share, most) = self.widths, self.enlarged
        if not 0 < thin <= wide:
            raise ValueError(f"widths are above 0, the thinner first, not {thin:g} to {wide:g}")
        if not 0 <= share <= 1 <= most:
            raise ValueError(
                f"enlarged is a share from 0 to 1 and a factor of 1 or more, not [{share:g}, "
                f"{most:g}]"
            )
        return self


def sample(photos: Photos, options: ScratchedOptions, rng: Rng) -> dict[str, np.ndarray]:
    """One crop with or without damage.

    Args:
        photos: What it is cut from.
        options: Shares of damage and of structures that belong to the scene.
        rng: Draws it.

    Returns:
        pixels, uint8 (S, S, 3); damage and weight, uint8 (S, S), 255 for 1.
    """
    side = options.crop
    share, most = options.enlarged
    zoom = most ** min(1, 1.3 * rng.random()) if rng.random() < share else 1.0
    small = max(16, math.ceil(side / zoom))
    rgb = scene(photos, small, options.detail, rng)
    if rng.random() < options.built:
        rgb = structures.add(rgb, rng)
    if rng.random() < 0.75:
        rgb = degrade(LENS, rgb, rng)
    cover = np.zeros((small, small), np.float32)
    weight = np.ones((small, small), np.float32)
    if rng.random() < options.hurt:
        rgb, cover, weight = add_damage(rgb, options.widths, rng)
    if rng.random() < 0.85:
        rgb = degrade(SCANNER, rgb, rng)
    if small != side:
        how = (cv2.INTER_CUBIC, cv2.INTER_LINEAR, cv2.INTER_LANCZOS4)[rng.integers(3)]
        rgb = cv2.resize(rgb, (side, side), interpolation=how)
        cover, weight = (cv2.resize(x, (side, side)) for x in (cover, weight))
        rgb = degrade(SAVED, rgb, rng)
    damage = np.where(cover >= 0.5, 255, 0).astype(np.uint8)
    return {"pixels": rgb, "damage": damage, "weight": np.rint(weight * 255).astype(np.uint8)}


def scene(photos: Photos, side: int, detail: int, rng: Rng) -> np.ndarray:
    """A random crop of a photo at a random zoom, or a drawn picture: uint8 (side, side, 3).

    Args:
        photos: Where crops come from.
        side: Pixels.
        detail: Number of crops of which the one with most detail is taken.
        rng: Draws place and zoom.
    """
    if rng.random() < photos.drawn:
        return pictures.draw(rng, side, photos.faces)
    room = min(photos.smallest, round(side * 0.7 * (ROOM / 0.7) ** rng.random()))
    crop = photos.crop(max(16, room), detail, rng)
    shrinks = crop.shape[0] >= side
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return cv2.resize(crop, (side, side), interpolation=how)


def degrade(recipe: Recipe, rgb: np.ndarray, rng: Rng) -> np.ndarray:
    """Degrade a picture at its own size by a recipe: uint8 (H, W, 3)."""
    return recipe.degrade(rgb, 1, int(rng.integers(2**62)), "").lr


def add_damage(
    rgb: np.ndarray, widths: tuple[float, float], rng: Rng
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw damage on a picture.

    Args:
        rgb: uint8 (S, S, 3).
        widths: Range of the width of a scratch, pixels.
        rng: Draws it.

    Returns:
        The picture, uint8; float32 (S, S) coverage in [0, 1]; float32 (S, S) weight of each pixel
        in the loss.
    """
    damaged, whole = rgb.astype(np.float32) / 255, np.zeros(rgb.shape[:2], np.float32)
    weight = np.ones(rgb.shape[:2], np.float32)
    names = list(KINDS)
    odds = np.array([KINDS[name][1] for name in names])
    for _ in range(rng.integers(1, 4)):
        kind = names[rng.choice(len(names), p=odds / odds.sum())]
        cover, colour = KINDS[kind][0](rgb.shape[0], widths, rng)
        if rng.random() < 0.3:  # as drawn without antialiasing: bitten out
            cover = np.where(cover >= 0.5 * cover.max(), cover.max(), np.float32(0))
        before, full = damaged, max(float(cover.max()), 1e-6)
        damaged = damaged + cover[..., None] * (tint(colour, cover.shape, rng) - damaged)
        share = cover / full
        whole = np.maximum(whole, share)
        changed = cv2.blur(np.abs(damaged - before), (3, 3)) @ np.full(3, 1 / 3, np.float32)
        weight = np.where(share >= 0.5, np.clip(changed / SEEN, UNSEEN, 1), weight)
        if kind == "folds":  # the edge of a crease is not well defined
            weight[(share > 0.1) & (share < 0.5)] = 0
    return np.rint(np.clip(damaged, 0, 1) * 255).astype(np.uint8), whole, weight


def tint(colour: np.ndarray, size: tuple[int, int], rng: Rng) -> np.ndarray:
    """Colour of damage, float32 (H, W, 3): mostly grey, at times the colour of a layer that is laid
    bare.

    Args:
        colour: Grey or colour that broadcasts to (H, W, 3).
        size: (H, W).
        rng: Draws the tint.
    """
    plane = np.broadcast_to(colour, (*size, colour.shape[-1] if colour.ndim else 1)).astype(
        np.float32
    )
    plane = np.repeat(plane, 3, 2) if plane.shape[2] == 1 else plane.copy()
    if rng.random() < 0.35:
        plane *= rng.uniform(0.4, 1, 3).astype(np.float32)
    if rng.random() < 0.3:  # its surface is uneven
        rough = cv2.GaussianBlur(rng.normal(size=size).astype(np.float32), (0, 0), 1.5)
        plane += (rng.uniform(0, 0.15) * rough / max(float(rough.std()), 1e-6))[..., None]
    return np.clip(plane, 0, 1)


def layer_of(op: Damage, side: int, rng: Rng, beyond: float = 1.6) -> Layer:
    """A layer of an op of the pipeline, cut from a larger canvas, so that lines cross its edges.

    Args:
        op: The op.
        side: Side, pixels.
        rng: Draws its parameters and the place.
        beyond: Side of the canvas, as a factor of `side`.
    """
    large = round(side * beyond)
    params = op.draw(OpRng(int(rng.integers(2**62)), ""))
    cover, colour = op.layer(params, (large, large))
    y, x = rng.integers(large - side + 1, size=2)
    cut = slice(y, y + side), slice(x, x + side)
    return cover[cut], colour[cut] if colour.ndim == 3 else colour


def draw_width(widths: tuple[float, float], rng: Rng) -> float:
    """Draw a width, pixels, uniform in its logarithm."""
    low, high = widths
    return low * (high / low) ** rng.random()


def scratches(side: int, widths: tuple[float, float], rng: Rng) -> Layer:
    """Thin bent scratches over a square of `side` pixels."""
    thick = draw_width(widths, rng) / (1.6 * side) * 1000
    some = LogUniform(1, 10)
    width, opacity = Uniform(thick, thick), Choice((Uniform(0.5, 1), 1.0))
    drawn = Scratches(count=some, width=width, shade=shade_range(rng), opacity=opacity)
    return layer_of(drawn, side, rng)


def dust(side: int, widths: tuple[float, float], rng: Rng) -> Layer:
    """Specks and short hairs over a square of `side` pixels."""
    thick = min(4.0, draw_width(widths, rng)) / (2 * side) * 1000
    some = Dust(count=LogUniform(3, 60), width=Uniform(thick, 1.5 * thick), shade=shade_range(rng))
    return layer_of(some, side, rng)


def folds(side: int, widths: tuple[float, float], rng: Rng) -> Layer:
    """One or two folds across a square of `side` pixels."""
    thick = min(4.0, 0.6 * draw_width(widths, rng)) / side * 1000
    return layer_of(Folds(count=Uniform(1, 2), width=Uniform(thick, thick)), side, rng, 1.0)


def trams(side: int, widths: tuple[float, float], rng: Rng) -> Layer:
    """Straight lines through all of the film, along the way it ran."""
    canvas = np.zeros((side, side), np.uint8)
    width = max(1, round(draw_width(widths, rng)))
    for _ in range(rng.integers(1, 4)):
        at, drift = rng.uniform(0, side), rng.normal(0, 0.03 * side)
        ends = np.rint(np.array([(at, -1), (at + drift, side)]) * 16).astype(np.int32)
        cv2.polylines(canvas, [ends], False, 255, width, cv2.LINE_AA, 4)
    canvas = canvas if rng.random() < 0.7 else canvas.T
    return canvas * np.float32(rng.uniform(0.4, 1) / 255), draw_shade(rng)


def tear(side: int, widths: tuple[float, float], rng: Rng) -> Layer:
    """A ragged way through the paper, now wide, now narrow."""
    steps = 40
    turns = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.35, steps))
    way = np.cumsum(side / 25 * np.stack([np.cos(turns), np.sin(turns)], 1), 0)
    way += rng.uniform(0.2, 0.8, 2) * side - way[rng.integers(steps)]
    width = draw_width((2 * widths[0], 1.5 * widths[1]), rng) * np.abs(rng.normal(0.6, 0.4, steps))
    across = np.stack([-np.sin(turns), np.cos(turns)], 1) * width[:, None] / 2
    outline = np.concatenate([way + across, (way - across)[::-1]])
    canvas = np.zeros((side, side), np.uint8)
    cv2.fillPoly(canvas, [np.rint(outline * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return canvas * np.float32(rng.uniform(0.7, 1) / 255), draw_shade(rng)


def shade_range(rng: Rng) -> Choice:
    """The range of a grey: mostly white or black, at times any grey."""
    if rng.random() < 0.25:
        return Choice((Uniform(0, 1),))
    return Choice((Uniform(0.75, 1), Uniform(0, 0.2)), (3, 1))


def draw_shade(rng: Rng) -> np.ndarray:
    """Draw the grey level of damage, in [0, 1]."""
    return np.array(shade_range(rng).draw(OpRng(int(rng.integers(2**62)), "")), np.float32)


KINDS: dict[str, tuple[Callable[[int, tuple[float, float], Rng], Layer], float]] = {
    "scratches": (scratches, 0.55),
    "dust": (dust, 0.17),
    "trams": (trams, 0.12),
    "folds": (folds, 0.06),
    "tear": (tear, 0.1),
}
