"""Colour casts and fading, as far as one picture shows them apart from its subject."""

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Tone:
    """Colour cast, darkest and lightest luma of a picture."""

    cast: tuple[float, float, float] | None
    """Gains of red, green and blue with the mean 1; None in a grey picture."""
    black: float
    """The darkest luma but for 0.5 %, [0, 1]."""
    white: float
    """The lightest luma but for 0.5 %, [0, 1]."""


def measure(rgb: np.ndarray) -> Tone:
    """Measure the tone of uint8 (H, W, 3).

    The cast is the geometric mean of two: grey world (Buchsbaum 1980), and the brightest twentieth
    of the pixels, which is mostly neutral (white patch, Land 1977).
    """
    small = cv2.resize(rgb, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    small = small.reshape(-1, 3).astype(np.float32)
    luma = small @ np.array([0.299, 0.587, 0.114], np.float32)
    black, white = (float(np.quantile(luma, share)) / 255 for share in (0.005, 0.995))
    if np.ptp(small, axis=1).max() <= 2:
        return Tone(None, black, white)
    bright = small[luma >= np.quantile(luma, 0.95)].mean(0) + 1
    gains = np.sqrt((small.mean(0) + 1) * bright)
    red, green, blue = (float(gain) for gain in gains / gains.mean())
    return Tone((red, green, blue), black, white)
