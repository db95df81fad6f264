"""Other people's degradations, called as their users call them. Each raises ImportError if absent.

A crop is uint8 (H, W, 3) RGB; a batch is float32 (B, 3, H, W), [0, 1].
"""

import importlib
import importlib.util
import math
import os
import random
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
from scipy import ndimage

from restore.metrics.niqe import substitute_modules

INSTALL = {
    "basicsr": "pip install setuptools wheel cython && "
    "pip install --no-build-isolation --no-deps basicsr==1.4.2",
    "albumentations": "pip install albumentations==2.0.8",
    "kornia": "pip install kornia",
}
SCALE = 4
_KINDS = ("iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso")
_SHARES = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
_INTERPOLATIONS = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_AREA)


def reseed() -> None:
    """The generators that the peers share, so that every round draws the same."""
    import torch

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def basicsr() -> SimpleNamespace:
    """BasicSR's kernels and noise (d), DiffJPEG (j) and filter2D, USMSharp (f).

    Its packages import much that needs torchvision, which it does not fit any more, so they are
    passed over; of torchvision it needs one function, the luma of ITU-R BT.601.
    """
    found = importlib.util.find_spec("basicsr")
    if not found or not found.submodule_search_locations:
        raise ImportError("basicsr")
    place = found.submodule_search_locations[0]
    names = ("basicsr", "basicsr.data", "basicsr.utils")
    old = "torchvision.transforms.functional_tensor"
    stands = {n: ModuleType(n) for n in (*names, "torchvision", "torchvision.transforms", old)}
    for name in names:
        stands[name].__path__ = [os.path.join(place, *name.split(".")[1:])]
    stands[old].rgb_to_grayscale = _luma
    with substitute_modules(stands):
        d, j, f = (
            importlib.import_module(f"basicsr.{part}")
            for part in ("data.degradations", "utils.diffjpeg", "utils.img_process_util")
        )
    return SimpleNamespace(d=d, j=j, f=f)


def _luma(rgb: Any, num_output_channels: int = 1) -> Any:
    return (rgb * rgb.new_tensor([0.2989, 0.587, 0.114]).view(3, 1, 1)).sum(-3, keepdim=True)


def realesrgan(sharpen: bool, device: str) -> Callable[[Any], Any]:
    """A batch through Real-ESRGAN's two passes, by BasicSR's functions, as its model feeds itself.

    One draw of factor, mode, noise kind and order a batch; kernels, noise and quality one a sample.
    The pool of 180 pairs is left out, and the second sharpening after it.
    """
    import torch
    from torch.nn.functional import interpolate

    parts = basicsr()
    jpeg = parts.j.DiffJPEG(differentiable=False).to(device)
    usm = parts.f.USMSharp().to(device)

    def kernels(count: int, sigma: tuple[float, float]) -> Any:
        made = np.stack([_kernel(parts, sigma) for _ in range(count)])
        return torch.from_numpy(made.astype(np.float32)).to(device)

    def resized(rgb: Any, shares: tuple, ends: tuple, size: tuple | None) -> Any:
        way = random.choices(("up", "down", "keep"), shares)[0]
        ranges = {"up": (1, ends[1]), "down": (ends[0], 1), "keep": (1, 1)}
        factor, mode = random.uniform(*ranges[way]), random.choice(("area", "bilinear", "bicubic"))
        if size is None:
            return interpolate(rgb, scale_factor=factor, mode=mode)
        return interpolate(rgb, size=tuple(int(n * factor) for n in size), mode=mode)

    def noisy(rgb: Any, sigma: tuple, scale: tuple) -> Any:
        how = {"gray_prob": 0.4, "clip": True, "rounds": False}
        if random.random() < 0.5:
            return parts.d.random_add_gaussian_noise_pt(rgb, sigma_range=sigma, **how)
        return parts.d.random_add_poisson_noise_pt(rgb, scale_range=scale, **how)

    def coded(rgb: Any) -> Any:
        out = jpeg(rgb.clamp(0, 1), quality=rgb.new_zeros(len(rgb)).uniform_(30, 95))
        return out.contiguous()  # its filter2D takes views, which newer torch refuses it otherwise

    def feed(rgb: Any) -> Any:
        count, size = len(rgb), tuple(n // SCALE for n in rgb.shape[2:])
        first, second = kernels(count, (0.2, 3)), kernels(count, (0.2, 1.5))
        last = torch.from_numpy(np.stack([_last_sinc(parts) for _ in range(count)])).to(device)
        out = parts.f.filter2D(usm(rgb) if sharpen else rgb, first)
        out = coded(noisy(resized(out, (0.2, 0.7, 0.1), (0.15, 1.5), None), (1, 30), (0.05, 3)))
        if random.random() < 0.8:
            out = parts.f.filter2D(out, second)
        out = noisy(resized(out, (0.3, 0.4, 0.3), (0.3, 1.2), size), (1, 25), (0.05, 2.5))
        sinc_last = random.random() < 0.5
        out = coded(out) if sinc_last else out
        out = parts.f.filter2D(resized(out, (0, 0, 1), (1, 1), size), last)
        out = out if sinc_last else coded(out)
        return (out * 255).round().clamp(0, 255) / 255

    return feed


def _kernel(parts: SimpleNamespace, sigma: tuple[float, float]) -> np.ndarray:
    size = random.choice(range(7, 22, 2))
    if random.random() < 0.1:
        cutoff = random.uniform(math.pi / (3 if size < 13 else 5), math.pi)
        return parts.d.circular_lowpass_kernel(cutoff, size, pad_to=21)
    ranges = sigma, sigma, (-math.pi, math.pi), (0.5, 4), (1, 2)
    kernel = parts.d.random_mixed_kernels(_KINDS, _SHARES, size, *ranges, noise_range=None)
    return np.pad(kernel, (21 - size) // 2)


def _last_sinc(parts: SimpleNamespace) -> np.ndarray:
    kernel = np.zeros((21, 21), np.float32)
    kernel[10, 10] = 1
    if random.random() < 0.8:
        cutoff, size = random.uniform(math.pi / 3, math.pi), random.choice(range(7, 22, 2))
        kernel = parts.d.circular_lowpass_kernel(cutoff, size, pad_to=21)
    return kernel.astype(np.float32)


def bsrgan(crop: np.ndarray) -> np.ndarray:
    """BSRGAN's published order (Zhang et al. 2021) in the calls it uses, without the camera ISP."""
    height, width = (n // SCALE for n in crop.shape[:2])
    image = crop.astype(np.float32) / 255
    order = random.sample(range(6), 6)
    second, third = sorted((order.index(2), order.index(3)))  # the last downscale comes after
    order[second], order[third] = 2, 3
    for step in order:
        if step in (0, 1):
            kernel = _bsrgan_kernel()
            image = ndimage.convolve(image, kernel[..., None], mode="mirror")
        elif step == 2 and random.random() < 0.75:
            factor = random.uniform(1, 2 * SCALE)
            size = tuple(max(1, int(n / factor)) for n in image.shape[1::-1])
            image = cv2.resize(image, size, interpolation=random.choice(_INTERPOLATIONS))
        elif step == 2:
            kernel = _gaussian(25, random.uniform(0.1, 0.6 * SCALE))
            image = ndimage.convolve(image, kernel[..., None], mode="mirror")[::SCALE, ::SCALE]
        elif step == 3:
            image = cv2.resize(image, (width, height), interpolation=random.choice(_INTERPOLATIONS))
        elif step == 4:
            image = _bsrgan_noise(image)
        elif random.random() < 0.9:
            image = _through_jpeg(image)
        image = np.clip(image, 0, 1)
    return np.rint(_through_jpeg(image) * 255).astype(np.uint8)


def _bsrgan_kernel() -> np.ndarray:
    size = 2 * random.randint(2, 11) + 3
    if random.random() < 0.5:
        return _gaussian(size, (2 + 0.2 * SCALE) * random.random())
    turn, axis = random.uniform(0, math.pi), np.arange(size) - size // 2
    u = math.cos(turn) * axis[None, :] + math.sin(turn) * axis[:, None]
    v = math.cos(turn) * axis[:, None] - math.sin(turn) * axis[None, :]
    first, second = ((4 + SCALE) * random.random() + 1e-3 for _ in range(2))
    kernel = np.exp(-0.5 * (u * u / first + v * v / second))
    return kernel / kernel.sum()


def _gaussian(size: int, sigma: float) -> np.ndarray:
    line = cv2.getGaussianKernel(size, max(sigma, 1e-2))
    return line @ line.T


def _bsrgan_noise(image: np.ndarray) -> np.ndarray:
    sigma, kind = random.randint(2, 25) / 255, random.random()
    if kind > 0.6:
        noise = np.random.normal(0, sigma, image.shape)
    elif kind < 0.4:
        noise = np.random.normal(0, sigma, (*image.shape[:2], 1))
    else:
        base = np.random.rand(3, 3)
        mixed = np.linalg.qr(base)[0] * np.random.rand(3) @ np.linalg.qr(base)[0].T
        covariance = sigma**2 * np.abs(mixed)
        noise = np.random.multivariate_normal(
            np.zeros(3), covariance, image.shape[:2], check_valid="ignore"
        )
    return (image + noise).astype(np.float32)


def _through_jpeg(image: np.ndarray) -> np.ndarray:
    levels = np.rint(image * 255).astype(np.uint8)
    quality = [cv2.IMWRITE_JPEG_QUALITY, random.randint(30, 95)]
    data = cv2.imencode(".jpg", cv2.cvtColor(levels, cv2.COLOR_RGB2BGR), quality)[1]
    coded = cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    return coded.astype(np.float32) / 255


def albumentations(size: tuple[int, int]) -> Callable[[np.ndarray], np.ndarray]:
    """Two passes of blur, downscale, noise and JPEG in albumentations, then a resize to `size`."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks the network at import
    import albumentations as A

    passes = [
        step
        for sigma in (3.0, 1.5)
        for step in (
            A.OneOf([A.GaussianBlur((7, 21), (0.2, sigma)), A.AdvancedBlur((7, 21))], p=1),
            A.Downscale((0.25, 0.9), p=1),
            A.GaussNoise((1 / 255, 30 / 255), p=1),
            A.ImageCompression("jpeg", (30, 95), p=1),
        )
    ]
    chain = A.Compose([*passes, A.Resize(*size, interpolation=cv2.INTER_AREA)])
    return lambda crop: chain(image=crop)["image"]


def diff_jpeg() -> Callable[[Any, int], Any]:
    """BasicSR's differentiable JPEG: batch, quality -> batch."""
    codec = basicsr().j.DiffJPEG(differentiable=False)
    # it writes over the qualities it is given
    return lambda rgb, quality: codec.to(rgb.device)(rgb, rgb.new_full((len(rgb),), quality))


def kornia_jpeg() -> Callable[[Any, int], Any]:
    """kornia's differentiable JPEG: batch, quality -> batch."""
    from kornia.enhance import jpeg_codec_differentiable as codec

    return lambda rgb, quality: codec(rgb, rgb.new_full((len(rgb),), quality))
