"""Colour and sensor: fading, casts, misplaced chroma, and the noise of a camera before its ISP."""

import math
from typing import Annotated, ClassVar, Literal

import cv2
import numpy as np

from degradations.ops.noise import BT601, standard_normal
from degradations.ops.op import Op, Params, Size
from degradations.ranges import LogUniform, Range, Uniform, within
from degradations.rng import Rng

BLACK = 1 / 16  # pedestal of the raw values, so that noise about black is not cut off
PAD = 2  # even, so that the mosaic keeps its phase


class Fade(Op):
    """Dyes and paper that age: contrast sinks towards a grey, colours pale (Wilhelm 1993)."""

    kind: Literal["fade"] = "fade"
    neutral: ClassVar = {"amount": 0, "desaturation": 0}
    amount: Annotated[Range, within(0, 1)] = Uniform(0.1, 0.6)
    """Share of the contrast that is lost."""
    level: Annotated[Range, within(0, 1)] = Uniform(0.4, 0.8)
    """Grey level towards which the contrast sinks, [0, 1]."""
    desaturation: Annotated[Range, within(0, 1)] = Uniform(0, 0.7)
    """Share of the colour that is lost."""

    def draw(self, rng: Rng) -> Params:
        names = ("amount", "level", "desaturation")
        return {name: getattr(self, name).draw(rng) for name in names}

    @staticmethod
    def apply(rgb: np.ndarray, params: Params, target: Size) -> np.ndarray:
        amount = np.float32(params["amount"])
        pale = rgb + np.float32(params["desaturation"]) * (rgb.mean(2, keepdims=True) - rgb)
        return pale + amount * (np.float32(params["level"]) - pale)


class Cast(Op):
    """A gain for each channel, as of a wrong white balance or a faded dye (von Kries 1902)."""

    kind: Literal["cast"] = "cast"
    neutral: ClassVar = {"red": 1, "green": 1, "blue": 1}
    red: Annotated[Range, within(0, 4)] = Uniform(0.8, 1.25)
    """Gain of the red channel."""
    green: Annotated[Range, within(0, 4)] = Uniform(0.9, 1.1)
    """Gain of the green channel."""
    blue: Annotated[Range, within(0, 4)] = Uniform(0.6, 1.2)
    """Gain of the blue channel."""

    def draw(self, rng: Rng) -> Params:
        return {"gains": [self.red.draw(rng), self.green.draw(rng), self.blue.draw(rng)]}

    @staticmethod
    def apply(rgb: np.ndarray, params: Params, target: Size) -> np.ndarray:
        return np.clip(rgb * np.array(params["gains"], np.float32), 0, 1)


class ChromaShift(Op):
    """Colour beside its luma, as in analogue video (the colour differences of ITU-R BT.601)."""

    kind: Literal["chroma_shift"] = "chroma_shift"
    neutral: ClassVar = {"x": 0, "y": 0}
    x: Annotated[Range, within(-100, 100)] = Uniform(-3, 3)
    """Pixels to the right."""
    y: Annotated[Range, within(-100, 100)] = Uniform(-1, 1)
    """Pixels down."""

    def draw(self, rng: Rng) -> Params:
        return {"x": self.x.draw(rng), "y": self.y.draw(rng)}

    @staticmethod
    def apply(rgb: np.ndarray, params: Params, target: Size) -> np.ndarray:
        luma = rgb @ BT601[:, None]
        return np.clip(luma + _moved(rgb - luma, params["x"], params["y"]), 0, 1)

    @classmethod
    def spread(cls, share: np.ndarray, params: Params, target: Size) -> np.ndarray:
        return np.maximum(share, _moved(share[..., None], params["x"], params["y"])[..., 0])


class SensorNoise(Op):
    """Shot and read noise on a Bayer mosaic in linear light, demosaiced (Brooks et al. 2019).

    The variance of a raw value v is shot v + read; read follows from shot by the paper's line, and
    red and blue are amplified by the white balance. Clipped highlights and the artefacts of
    demosaicing come with it.
    """

    kind: Literal["sensor_noise"] = "sensor_noise"
    neutral: ClassVar = {"shot": 0, "read": 0}
    fades: ClassVar = False  # a sensor without noise is still demosaiced
    shot: Annotated[Range, within(0, 1)] = LogUniform(1e-4, 0.012)
    """Variance of the shot noise at white."""
    read: Annotated[Range, within(0, 100)] = LogUniform(0.6, 1.7)
    """Variance of the read noise, as a factor of the one on the paper's line."""
    red: Annotated[Range, within(1, 8)] = Uniform(1.9, 2.4)
    """Gain of red in the white balance."""
    blue: Annotated[Range, within(1, 8)] = Uniform(1.5, 1.9)
    """Gain of blue in the white balance."""

    def draw(self, rng: Rng) -> Params:
        shot, factor = self.shot.draw(rng), self.read.draw(rng)
        read = factor * math.exp(2.18 * math.log(shot) + 1.2) if shot > 0 else 0.0
        gains = [self.red.draw(rng), 1.0, self.blue.draw(rng)]
        return {"shot": shot, "read": read, "gains": gains, "seed": rng.bits()}

    @staticmethod
    def apply(rgb: np.ndarray, params: Params, target: Size) -> np.ndarray:
        gains = white_balance(params)
        padded = cv2.copyMakeBorder(np.clip(rgb, 0, 1), *(PAD,) * 4, cv2.BORDER_REFLECT_101)
        raw = mosaic(to_linear(padded) / gains)
        noise = standard_normal(params["seed"], raw.shape)
        raw = raw + noise * np.sqrt(np.float32(params["shot"]) * raw + np.float32(params["read"]))
        code = np.clip((raw + BLACK) / (1 + BLACK), 0, 1) * 65535
        code = cv2.cvtColor(np.rint(code).astype(np.uint16), cv2.COLOR_BayerRGGB2RGB_EA)
        linear = code.astype(np.float32) * np.float32((1 + BLACK) / 65535) - np.float32(BLACK)
        return from_linear(np.clip(linear * gains, 0, 1))[PAD:-PAD, PAD:-PAD]

    @classmethod
    def spread(cls, share: np.ndarray, params: Params, target: Size) -> np.ndarray:
        return cv2.dilate(share, np.ones((2 * PAD + 1,) * 2, np.uint8))  # as far as demosaicing


def white_balance(params: Params) -> np.ndarray:
    """The sensor's gains, float32 (3,). Raises ValueError for some that are never drawn."""
    gains = np.array(params["gains"], np.float32)
    if gains.shape != (3,) or not np.all((gains >= 1) & (gains <= 8)):  # in a trace of somebody
        raise ValueError(f"gains are three numbers from 1 to 8, not {params['gains']}")
    return gains


def mosaic(rgb: np.ndarray) -> np.ndarray:
    """(H, W, 3) -> (H, W): what an RGGB colour filter lets through."""
    raw = rgb[..., 1].copy()
    raw[::2, ::2], raw[1::2, 1::2] = rgb[::2, ::2, 0], rgb[1::2, 1::2, 2]
    return raw


def to_linear(rgb: np.ndarray) -> np.ndarray:
    """sRGB (IEC 61966-2-1) -> linear light, both [0, 1]."""
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def from_linear(rgb: np.ndarray) -> np.ndarray:
    """The inverse of to_linear."""
    return np.where(rgb <= 0.0031308, rgb * 12.92, 1.055 * rgb ** (1 / 2.4) - 0.055)


def _moved(planes: np.ndarray, right: float, down: float) -> np.ndarray:
    """(H, W, n) -> the same, the edge repeated."""
    height, width = planes.shape[:2]
    x = np.clip(np.arange(width, dtype=np.float32) - right, 0, width - 1)
    y = np.clip(np.arange(height, dtype=np.float32) - down, 0, height - 1)
    return _between(_between(planes, y).transpose(1, 0, 2), x).transpose(1, 0, 2)


def _between(planes: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Rows of (n, ...) at fractional places in [0, n - 1], linearly between their neighbours."""
    low = np.floor(at).astype(int)
    share = (at - low).astype(np.float32)[:, None, None]
    return planes[low] * (1 - share) + planes[np.minimum(low + 1, len(planes) - 1)] * share
