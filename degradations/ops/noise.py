"""Sensor noise: Gaussian, and Poisson (shot) noise, in colour or grey."""

from functools import lru_cache
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field
from scipy.special import ndtri, pdtr

from degradations.ops.op import Op, Params, Size
from degradations.ranges import Range, Uniform, within
from degradations.rng import Rng, words16

Share = Annotated[float, Field(ge=0, le=1)]
_LUMA = np.array([0.2989, 0.587, 0.114], np.float32)  # as torchvision's rgb_to_grayscale
_LEVELS = 256  # photons of a white pixel; the published code counts the image's unique values
_STRATA_BITS = 11


class GaussianNoise(Op):
    """Independent for each pixel, and for each channel unless grey (Real-ESRGAN)."""

    kind: Literal["gaussian_noise"] = "gaussian_noise"
    neutral: ClassVar = {"sigma_levels": 0}
    sigma_levels: Annotated[Range, within(0, 255)] = Uniform(1, 30)  # of 255
    grey: Share = 0.4  # the share of images whose three channels get one field

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
    grey: Share = 0.4  # the share of images whose three channels get the noise of their luma

    def draw(self, rng: Rng) -> Params:
        scale, grey = self.scale.draw(rng), rng.uniform() < self.grey
        return {"scale": scale, "grey": grey, "seed": rng.bits()}

    @staticmethod
    def apply(rgb: np.ndarray, params: Params, target: Size) -> np.ndarray:
        base = rgb @ _LUMA[:, None] if params["grey"] else rgb
        noise = poisson_residue(params["seed"], np.rint(np.clip(base, 0, 1) * 255).astype(np.int32))
        noise *= np.float32(params["scale"])
        return _added(rgb, noise)


def standard_normal(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """float32 deviates, a function of seed and shape: 16-bit quantiles, up to 4.3 sigma."""
    return _normal_table().take(words16(seed, int(np.prod(shape)))).reshape(shape)


def poisson_residue(seed: int, levels: np.ndarray) -> np.ndarray:
    """int32 levels 0 to 255 -> float32 Pois(256 v) / 256 - v, where v = level / 255."""
    stratum = words16(seed, levels.size).reshape(levels.shape) >> (16 - _STRATA_BITS)
    return _poisson_table().take((levels << _STRATA_BITS) | stratum)


def _added(rgb: np.ndarray, noise: np.ndarray) -> np.ndarray:
    total = rgb + noise
    return np.clip(total, 0, 1, out=total)


@lru_cache(1)
def _normal_table() -> np.ndarray:
    """(65536,) quantiles at the middle of each of 65536 equal strata."""
    return ndtri((np.arange(65536) + 0.5) / 65536).astype(np.float32)


@lru_cache(1)
def _poisson_table() -> np.ndarray:
    """(256 levels x strata,) quantiles of the residue; 2 MB."""
    middles = (np.arange(1 << _STRATA_BITS) + 0.5) / (1 << _STRATA_BITS)
    means = np.arange(256) / 255 * _LEVELS
    counts = [np.searchsorted(pdtr(np.arange(2 * _LEVELS), mean), middles) for mean in means]
    return ((np.stack(counts) - means[:, None]) / _LEVELS).astype(np.float32).ravel()
