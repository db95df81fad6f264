"""Print and screen: few tones, halftone dots, scan lines."""

import math
from functools import lru_cache
from typing import Annotated, ClassVar, Literal

import numpy as np

from degradations.ops.op import Op, Params, Size
from degradations.ranges import Range, Uniform, within
from degradations.rng import Rng

ANGLES = (15.0, 75.0, 0.0)  # degrees, of cyan, magenta and yellow (ISO 12647-2)
_SHEET = Uniform(0, 90)  # degrees, how it lies on the scanner


class Banding(Op):
    """Too few levels for a smooth gradient: uniform quantisation without dither (Bennett 1948)."""

    kind: Literal["banding"] = "banding"
    neutral: ClassVar = {"bits": 8}
    bits: Annotated[Range, within(1, 8)] = Uniform(3, 6)
    """Bits a channel; 2^bits levels, rounded."""

    def draw(self, rng: Rng) -> Params:
        return {"levels": round(2 ** self.bits.draw(rng))}

    @staticmethod
    def apply(rgb: np.ndarray, params: Params, target: Size) -> np.ndarray:
        top = np.float32(params["levels"] - 1)
        return np.rint(np.clip(rgb, 0, 1) * top) / top


class Halftone(Op):
    """Printed dots that grow with the ink, each channel's screen at its own angle (Ulichney 1987).

    The threshold is as likely to have any value, so that the mean tone stays.
    """

    kind: Literal["halftone"] = "halftone"
    neutral: ClassVar = {"strength": 0}
    strength: Annotated[Range, within(0, 1)] = Uniform(0.4, 1)
    """Strength of the dots; at 1 there is only ink and paper."""
    period: Annotated[Range, within(2, 50)] = Uniform(2.5, 8)
    """Distance from dot to dot, pixels."""

    def draw(self, rng: Rng) -> Params:
        angle = _SHEET.draw(rng)
        return {
            "strength": self.strength.draw(rng),
            "period": self.period.draw(rng),
            "angle": angle,
        }

    @staticmethod
    def apply(rgb: np.ndarray, params: Params, target: Size) -> np.ndarray:
        height, width = rgb.shape[:2]
        y, x = np.mgrid[:height, :width].astype(np.float32) * (2 * math.pi / params["period"])
        thresholds = []
        for angle in ANGLES:
            cos, sin = (f(math.radians(angle + params["angle"])) for f in (math.cos, math.sin))
            wave = np.cos(cos * x + sin * y) + np.cos(cos * y - sin * x)
            thresholds.append(np.interp(wave, screen(), np.linspace(0, 1, len(screen()))))
        value = np.clip(rgb, 0, 1)
        over = value - np.stack(thresholds, 2).astype(np.float32)
        # A dot's edge is about a pixel wide, and narrower near paper and full ink, which stay pure.
        room = np.minimum(np.float32(1 / params["period"]), np.minimum(value, 1 - value))
        dots = np.clip(0.5 + 0.5 * over / np.maximum(room, 1e-6), 0, 1)
        return value + np.float32(params["strength"]) * (dots - value)


class ScanLines(Op):
    """Dark gaps between the lines of a cathode ray tube, a raised cosine from line to line.

    The mean sinks by half the strength, as it does on the screen (e.g. Poynton 2012).
    """

    kind: Literal["scan_lines"] = "scan_lines"
    neutral: ClassVar = {"strength": 0}
    strength: Annotated[Range, within(0, 1)] = Uniform(0.1, 0.6)
    """Share of the light that is lost in a gap."""
    period: Annotated[Range, within(2, 50)] = Uniform(2, 6)
    """Distance from line to line, pixels."""

    def draw(self, rng: Rng) -> Params:
        params = {"strength": self.strength.draw(rng), "period": self.period.draw(rng)}
        return params | {"phase": rng.uniform()}

    @staticmethod
    def apply(rgb: np.ndarray, params: Params, target: Size) -> np.ndarray:
        turn = 2 * math.pi * (np.arange(len(rgb)) / params["period"] + params["phase"])
        gain = 1 - params["strength"] * (0.5 - 0.5 * np.cos(turn))
        return rgb * gain.astype(np.float32)[:, None, None]


@lru_cache(1)
def screen() -> np.ndarray:
    """(1025,) quantiles of cos a + cos b over all phases a and b."""
    wave = np.cos((np.arange(512) + 0.5) * (2 * math.pi / 512))
    return np.quantile(wave[:, None] + wave, np.linspace(0, 1, 1025))
