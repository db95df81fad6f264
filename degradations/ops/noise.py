"""Noise: Gaussian, Poisson (shot), speckle and film grain, in colour or grey."""

import math
from functools import lru_cache
from typing import Annotated, ClassVar, Literal

import cv2
import numpy as np
from pydantic import Field
from scipy.special import ndtri, pdtr

from degradations.kernels import gaussian_1d
from degradations.ops.jpeg import to_uint8
from degradations.ops.op import Op, Params, Size
from degradations.ranges import Range, Uniform, within
from degradations.rng import Rng, words16

Share = Annotated[float, Field(ge=0, le=1)]
BT601 = np.array([0.299, 0.587, 0.114], np.float32)  # luma (ITU-R BT.601)
LUMA = np.array([0.2989, 0.587, 0.114], np.float32)  # as torchvision's rgb_to_grayscale
WHITE = 256  # photons of a white pixel; the published code counts the image's unique values
STRATA_BITS = 11


class GaussianNoise(Op):
    """Independent for each pixel, and for each channel unless grey (Real-ESRGAN)."""

    kind: Literal["gaussian_noise"] = "gaussian_noise"
    neutral: ClassVar = {"sigma_levels": 0}
    sigma_levels: Annotated[Range, within(0, 255)] = Uniform(1, 30)
    """Standard deviation, levels of 255."""
    grey: Share = 0.4
    """Share of the images whose three channels get the same noise."""

    def draw(self, rng: Rng) -> Params:
        sigma, grey = self.sigma_levels.draw(rng), rng.uniform() < self.grey
        return {"sigma_levels": sigma, "grey": grey, "seed": rng.bits()}

    @staticmethod
    def apply(rgb: np.ndarray, params: Params, target: Size) -> np.ndarray:
        height, width = rgb.shape[:2]
        shape = (height, width, 1 if params["grey"] else 3)
        noise = standard_normal(params["seed"], shape)
        noise *= np.float32(params["sigma_levels"] / 255)
        return _added(rgb, noise)


class PoissonNoise(Op):
    """Shot noise whose variance grows with brightness, times `scale` (Real-ESRGAN)."""

    kind: Literal["poisson_noise"] = "poisson_noise"
    neutral: ClassVar = {"scale": 0}
    scale: Annotated[Range, within(0, 100)] = Uniform(0.05, 3)
    """Factor of the shot noise."""
    grey: Share = 0.4
    """Share of the images whose three channels get the noise of their luma."""

    def draw(self, rng: Rng) -> Params:
        scale, grey = self.scale.draw(rng), rng.uniform() < self.grey
        return {"scale": scale, "grey": grey, "seed": rng.bits()}

    @staticmethod
    def apply(rgb: np.ndarray, params: Params, target: Size) -> np.ndarray:
        base = rgb @ LUMA[:, None] if params["grey"] else rgb
        noise = poisson_residue(params["seed"], to_uint8(base).reshape(base.shape))
        noise *= np.float32(params["scale"])
        return _added(rgb, noise)


class Speckle(Op):
    """Multiplicative noise, as of coherent light and of many scanners (Goodman 1976)."""

    kind: Literal["speckle"] = "speckle"
    neutral: ClassVar = {"sigma": 0}
    sigma: Annotated[Range, within(0, 1)] = Uniform(0.02, 0.15)
    """Standard deviation, as a share of the pixel's value."""
    grey: Share = 0.4
    """Share of the images whose three channels get the same noise."""

    def draw(self, rng: Rng) -> Params:
        sigma, grey = self.sigma.draw(rng), rng.uniform() < self.grey
        return {"sigma": sigma, "grey": grey, "seed": rng.bits()}

    @staticmethod
    def apply(rgb: np.ndarray, params: Params, target: Size) -> np.ndarray:
        noise = standard_normal(params["seed"], (*rgb.shape[:2], 1 if params["grey"] else 3))
        noise *= np.float32(params["sigma"])
        return _added(rgb, noise * rgb)


class FilmGrain(Op):
    """Grain: spatially correlated, strongest in the middle tones, none in black and white.

    The deviation 2 sqrt(v (1 - v)) sigma is that of a grain that covers its spot with probability v
    (Newson et al. 2017, A Stochastic Film Grain Model).
    """

    kind: Literal["film_grain"] = "film_grain"
    neutral: ClassVar = {"sigma_levels": 0}
    sigma_levels: Annotated[Range, within(0, 255)] = Uniform(3, 20)
    """Standard deviation in the middle tone, levels of 255."""
    size: Annotated[Range, within(0, 5)] = Uniform(0.4, 1.5)
    """Sigma of the spatial correlation, pixels."""
    grey: Share = 0.6
    """Share of the images whose grain is that of black and white film."""

    def draw(self, rng: Rng) -> Params:
        params = {"sigma_levels": self.sigma_levels.draw(rng), "size": self.size.draw(rng)}
        return params | {"grey": rng.uniform() < self.grey, "seed": rng.bits()}

    @staticmethod
    def apply(rgb: np.ndarray, params: Params, target: Size) -> np.ndarray:
        kernel = gaussian_1d(2 * math.ceil(3 * params["size"]) + 1, params["size"])
        kernel /= np.sqrt((kernel**2).sum())  # keeps the variance of white noise
        height, width = rgb.shape[:2]
        pad = len(kernel) // 2  # so that the deviation is the same at the edge
        shape = height + 2 * pad, width + 2 * pad, 1 if params["grey"] else 3
        grain = cv2.sepFilter2D(standard_normal(params["seed"], shape), -1, kernel, kernel)
        grain = grain.reshape(shape)[pad : pad + height, pad : pad + width]
        value = np.clip(rgb @ BT601[:, None] if params["grey"] else rgb, 0, 1)
        deviation = np.sqrt(value * (1 - value)) * np.float32(params["sigma_levels"] / 255 * 2)
        return _added(rgb, grain * deviation)


def standard_normal(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """float32 deviates, a function of seed and shape: 16-bit quantiles, up to 4.3 sigma."""
    return normal_table().take(words16(seed, int(np.prod(shape)))).reshape(shape)


def poisson_residue(seed: int, levels: np.ndarray, white: int = WHITE) -> np.ndarray:
    """uint8 levels -> float32 Pois(white v) / white - v, where v = level / 255."""
    place = levels.astype(np.uint32)
    place <<= STRATA_BITS
    place |= words16(seed, levels.size).reshape(levels.shape) >> (16 - STRATA_BITS)
    return poisson_table(white).take(place)


def _added(rgb: np.ndarray, noise: np.ndarray) -> np.ndarray:
    total = rgb + noise
    return np.clip(total, 0, 1, out=total)


@lru_cache(1)
def normal_table() -> np.ndarray:
    """(65536,) quantiles at the middle of each of 65536 equal strata."""
    return ndtri((np.arange(65536) + 0.5) / 65536).astype(np.float32)


@lru_cache(9)
def poisson_table(white: int) -> np.ndarray:
    """(256 levels x strata,) quantiles of the residue; 2 MB."""
    middles = (np.arange(1 << STRATA_BITS) + 0.5) / (1 << STRATA_BITS)
    means = np.arange(256) / 255 * white
    counts = [np.searchsorted(pdtr(np.arange(2 * white + 16), mean), middles) for mean in means]
    return ((np.stack(counts) - means[:, None]) / white).astype(np.float32).ravel()
