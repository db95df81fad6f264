"""Faults of Real-ESRGAN's published code, for fair comparison; new recipes want none of these.

Kept apart from the ops that are right, so that nothing there needs a switch.
"""

import math
from typing import Annotated, ClassVar, Literal

import numpy as np
from scipy.fft import dctn, idctn
from scipy.special import j1

from degradations.ops.blur import Sinc, correlate
from degradations.ops.jpeg import CHROMA_TABLE, LUMA_TABLE, to_uint8
from degradations.ops.noise import BT601, PoissonNoise, poisson_residue
from degradations.ops.op import Op, Params, Size
from degradations.ops.resize import PUBLISHED, Resize
from degradations.ranges import Choice, Range, Uniform, Words, among, within
from degradations.rng import Rng

_LUMA = BT601.astype(np.float64)


class CompatSinc(Sinc):
    """Sinc cut off without a window: small kernels amplify low frequencies by up to 1.6."""

    kind: Literal["compat_sinc"] = "compat_sinc"

    @staticmethod
    def apply(rgb: np.ndarray, params: Params, target: Size) -> np.ndarray:
        size, cutoff = params["size"], params["cutoff"]
        axis = np.arange(size) - size // 2
        r = np.hypot(axis[None, :], axis[:, None])
        r[size // 2, size // 2] = 1
        kernel = cutoff * j1(cutoff * r) / (2 * np.pi * r)
        kernel[size // 2, size // 2] = cutoff**2 / (4 * np.pi)
        return correlate(rgb, (kernel / kernel.sum()).astype(np.float32))


class CompatResize(Resize):
    """torch's interpolate without antialias; `of: current` drops the fraction and so shifts."""

    kind: Literal["compat_resize"] = "compat_resize"
    mode: Annotated[Words, among((*PUBLISHED, "nearest"))] = Choice(PUBLISHED)
    """Interpolation."""
    antialias: Literal[False] = False
    """False as published; `resize` is the one that can filter before shrinking."""

    @staticmethod
    def apply(rgb: np.ndarray, params: Params, target: Size) -> np.ndarray:
        import torch  # nothing else here needs it
        from torch.nn.functional import interpolate

        factor, mode, size = params["factor"], params["mode"], None
        if params["of"] == "target":
            size, factor = [max(1, int(n * factor)) for n in target], None
        else:
            factor = max(factor, 1 / min(rgb.shape[:2]))  # or nothing would be left
        planes = torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1)))[None]
        out = interpolate(planes, size, factor, mode)[0]
        return np.ascontiguousarray(out.numpy().transpose(1, 2, 0))


class CompatPoissonNoise(PoissonNoise):
    """The photons of white follow from the number of distinct values in the picture."""

    kind: Literal["compat_poisson_noise"] = "compat_poisson_noise"

    @staticmethod
    def apply(rgb: np.ndarray, params: Params, target: Size) -> np.ndarray:
        base = rgb @ BT601[:, None] if params["grey"] else rgb
        levels = to_uint8(base).reshape(base.shape)
        white = 2 ** math.ceil(math.log2(len(np.unique(levels))))
        noise = poisson_residue(params["seed"], levels, white) * np.float32(params["scale"])
        return np.clip(rgb + noise, 0, 1)


class CompatJpeg(Op):
    """BasicSR's differentiable JPEG: luma table transposed, black padding, chroma replicated."""

    kind: Literal["compat_jpeg"] = "compat_jpeg"
    neutral: ClassVar = {"quality": 99.9}  # at 100 its table would be 0
    fades: ClassVar = False
    quality: Annotated[Range, within(1, 99.9)] = Uniform(30, 95)
    """Quality on libjpeg's scale, not rounded."""

    def draw(self, rng: Rng) -> Params:
        return {"quality": self.quality.draw(rng)}

    @staticmethod
    def apply(rgb: np.ndarray, params: Params, target: Size) -> np.ndarray:
        (height, width), quality = rgb.shape[:2], params["quality"]
        factor = (50 / quality) if quality < 50 else (2 - quality / 50)
        padding = ((0, -height % 16), (0, -width % 16), (0, 0))
        padded = np.pad(np.clip(rgb, 0, 1).astype(np.float64) * 255, padding)
        luma = padded @ _LUMA
        chroma = [(padded[..., i] - luma) / (2 - 2 * _LUMA[i]) for i in (2, 0)]
        small = [c.reshape(len(c) // 2, 2, -1, 2).mean((1, 3)) for c in chroma]
        luma = _coded(luma - 128, LUMA_TABLE.T * factor) + 128
        blue, red = (
            _coded(c, CHROMA_TABLE * factor).repeat(2, 0).repeat(2, 1) * (2 - 2 * _LUMA[i])
            for c, i in zip(small, (2, 0), strict=True)
        )
        green = -(_LUMA[2] * blue + _LUMA[0] * red) / _LUMA[1]
        out = np.stack([red, green, blue], 2) + luma[..., None]
        return (np.clip(out, 0, 255)[:height, :width] / 255).astype(np.float32)


def _coded(plane: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Quantised in blocks of 8 x 8, and back."""
    height, width = plane.shape
    blocks = plane.reshape(height // 8, 8, width // 8, 8)
    spectrum = dctn(blocks, axes=(1, 3), norm="ortho")
    table = table[None, :, None, :]
    return idctn(np.rint(spectrum / table) * table, axes=(1, 3), norm="ortho").reshape(plane.shape)
