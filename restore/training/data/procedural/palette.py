"""Colours as photos and pages have them, and soft grounds, for drawn pictures."""

import cv2
import numpy as np

LUMA = np.array([0.299, 0.587, 0.114])
AXES = np.array([[1, 1, 1], [0.4, 0.4, -0.8], [0.7, -0.7, 0]])  # luminance, yellow-blue, red-green


def tones(rng: np.random.Generator, count: int) -> np.ndarray:
    """Colours of one photo, float (count, 3) in [0, 255], scattered about a few hues.

    In logarithms of light, along the axes that are independent in natural images: strong in
    luminance, less from yellow to blue, least from red to green (Ruderman et al. 1998).
    """
    vivid = np.exp(rng.uniform(-1.5, 0.3))
    spread = np.array([0.9, 0.6 * vivid, 0.3 * vivid])
    hues = rng.laplace(0, spread / 2**0.5, (rng.integers(3, 9), 3))
    hues += rng.normal((-1.6, 0.1, 0), (0.4, 0.15, 0.08))  # how bright and of which tint the light
    picked = hues[rng.integers(len(hues), size=count)] + rng.normal(0, spread / 3, (count, 3))
    return 255 * np.exp(np.clip(picked @ AXES, -5, 0)) ** (1 / 2.2)


def contrast(rng: np.random.Generator, inks: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """A ground (3,) and inks (inks, 3) that can be read on it, in [0, 255].

    Most often black on white or nearly so, else lighter or darker, coloured, or light on dark.
    """
    chroma = rng.uniform(-128, 127, (inks + 1, 3))
    chroma -= chroma @ LUMA[:, None]
    chroma *= rng.choice([0, 0.3, 1], size=(inks + 1, 1), p=[0.4, 0.3, 0.3])
    span = rng.uniform(100, 127) if rng.random() < 0.6 else rng.uniform(60, 100)
    middle = 255 - span if rng.random() < 0.7 else rng.uniform(span, 255 - span)
    levels = middle - span * rng.uniform(0.3, 1, (inks + 1, 1))
    levels[:2, 0] = middle + span, middle - span * rng.uniform(0.6, 1)
    if rng.random() < 0.3:
        levels = 255 - levels
    made = np.clip(chroma + levels, 0, 255)
    return made[0], made[1:]


def plain(height: int, width: int, colour: np.ndarray) -> np.ndarray:
    """uint8 (height, width, 3) of one colour."""
    rgb = np.empty((height, width, 3), np.uint8)
    cv2.rectangle(rgb, (0, 0), (width, height), np.rint(colour).tolist(), -1)
    return rgb


def soft(rng: np.random.Generator, size: int, cells: int = 3) -> np.ndarray:
    """A field without edges: float32 (size, size), about [-1, 1]."""
    coarse = rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)


def apply_light(rgb: np.ndarray, light: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3), each pixel as many times as bright as float32 `light` (H, W) says."""
    # by planes: numpy is slow where its innermost axis is one of three
    planes = [np.rint(np.clip(plane * light, 0, 255)) for plane in cv2.split(rgb)]
    return cv2.merge(planes).astype(np.uint8)


def ground(rng: np.random.Generator, size: int, colour: np.ndarray) -> np.ndarray:
    """uint8 (size, size, 3) of one colour, plain or unevenly lit."""
    rgb = plain(size, size, colour)
    return (
        rgb
        if rng.random() < 0.5
        else apply_light(rgb, 1 + rng.uniform(0.02, 0.15) * soft(rng, size))
    )


def halve(fine: np.ndarray) -> np.ndarray:
    """Half the size, areas averaged: what softens the edges of what was drawn larger."""
    height, width = fine.shape[:2]
    return cv2.resize(fine, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
