"""Perceptual distance to an original: `pd`, which needs no extra, and LPIPS if installed."""

import importlib.util
import math
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from restore.diffusion import torchvision

WEIGHTS = Path(__file__).with_name("squeezenet1_1.safetensors")
CAFFE_MEAN = (104.0, 117.0, 123.0)  # of blue, green and red
LEAST = 32  # px a side that leave something to the last pooling of either network
LAYERS, STRIDE = 7, 16
STEPS = (2, 4, 8, 16, 16, 16, 16)  # pixels from one feature to the next, layer by layer
HALO = 128  # rows; the last layer sees 88 above its pixel and 118 below
BAND, PIXELS = 256, 2**20  # rows at least, pixels at most where that lets it
BACKBONE = "alexnet-owt-7be5be79.pth"  # torchvision's name for what LPIPS is built on


def pd(one: np.ndarray, other: np.ndarray, band: int = 0) -> float:
    """Perceptual distance, 0 for equal pictures.

    LPIPS's formula (Zhang et al. 2018) over seven layers of SqueezeNet 1.1 with equal weights of
    the channels: the squared difference of unit feature vectors, summed over channels, averaged
    over pixels, summed over layers. It is not LPIPS: no weight was fitted to human judgements.

    Args:
        one: Levels (H, W, 3) in 0 to 255.
        other: The same shape.
        band: Rows at a time, a multiple of 16; it bounds memory and does not change the result. 0
            takes about a megapixel.

    Returns:
        The distance; NaN below 32 pixels a side.
    """
    height, width = one.shape[:2]
    if min(height, width) < LEAST:
        return math.nan
    band = band or max(BAND, PIXELS // width // STRIDE * STRIDE)
    sums, counts = np.zeros(LAYERS), np.zeros(LAYERS)
    for top in range(0, height, band):
        rows = max(0, top - HALO), min(height, top + band + HALO)
        shares = (_batch(array[slice(*rows)]) for array in (one, other))
        for layer, gaps in enumerate(_gaps(*shares)):
            step = STEPS[layer]
            stop = (top + band - rows[0]) // step if top + band < height else None
            own = gaps[:, (top - rows[0]) // step : stop]
            sums[layer] += own.double().sum().item()
            counts[layer] += own.numel()
    return float((sums / counts).sum())


def _gaps(one: Tensor, other: Tensor) -> Iterator[Tensor]:
    """Yield the squared distance of unit features, (B, h, w), layer by layer."""
    with torch.inference_mode():
        for mine, theirs in zip(extract_features(one), extract_features(other), strict=True):
            yield (_unit(mine) - _unit(theirs)).square().sum(1)


def extract_features(rgb: Tensor) -> Iterator[Tensor]:
    """Compute seven feature maps of SqueezeNet 1.1, fine to coarse.

    They are large, so they are yielded one by one. Gradients flow back to `rgb`, so they can serve
    a loss.

    Args:
        rgb: (B, 3, H, W) in 0 to 255.
    """
    weights = load_squeezenet(rgb.device)

    def conv(x: Tensor, name: str, stride: int = 1, padding: int = 0) -> Tensor:
        kernel, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return F.relu(F.conv2d(x, kernel, bias, stride, padding))

    def fire(x: Tensor, number: int) -> Tensor:
        name = f"fire{number}/"
        thin = conv(x, name + "squeeze1x1")
        wide = conv(thin, name + "expand1x1"), conv(thin, name + "expand3x3", padding=1)
        return torch.cat(wide, 1)

    mean = torch.tensor(CAFFE_MEAN, device=rgb.device).view(1, 3, 1, 1)
    x = conv(rgb.flip(1) - mean, "conv1", stride=2)
    yield x
    for fires in ((2, 3), (4, 5), (6,)):
        x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        for number in fires:
            x = fire(x, number)
        yield x
    for number in (7, 8, 9):
        x = fire(x, number)
        yield x


@cache
def load_squeezenet(device: torch.device) -> dict[str, Tensor]:
    """Load SqueezeNet 1.1's convolutions in fp32; SQUEEZENET.md says where they come from."""
    with torch.inference_mode(False):  # they are kept, and a loss may want them later
        tensors = load_file(WEIGHTS, str(device))
        return {name: tensor.float() for name, tensor in tensors.items()}


def explain_lpips_absence() -> str:
    """Say why LPIPS cannot be computed here, and how to mend that; "" if it can.

    Nothing is downloaded.
    """
    if complaint := torchvision.complaint():
        return f"needs torchvision: {complaint}"
    if not (importlib.util.find_spec("lpips") and importlib.util.find_spec("torchvision")):
        return f"needs the package: pip install lpips torchvision, {torchvision.FITTING}"
    path = Path(torch.hub.get_dir()) / "checkpoints" / BACKBONE
    if not path.is_file():
        url = f"https://download.pytorch.org/models/{BACKBONE}"
        return f"needs torchvision's AlexNet and fetches nothing: put {url} at {path}"
    return ""


@cache
def _lpips() -> Callable[[Tensor, Tensor], Tensor]:
    import lpips

    return lpips.LPIPS(net="alex", verbose=False).eval()


def lpips(one: np.ndarray, other: np.ndarray) -> float:
    """LPIPS 0.1 with AlexNet (Zhang et al. 2018).

    Call it only if explain_lpips_absence() returns "".

    Args:
        one: Levels (H, W, 3) in 0 to 255.
        other: The same shape.

    Returns:
        The distance; NaN below 32 pixels a side.
    """
    if min(one.shape[:2]) < LEAST:
        return math.nan
    with torch.inference_mode():
        return float(_lpips()(_batch(one) / 127.5 - 1, _batch(other) / 127.5 - 1))


def _batch(rgb: np.ndarray) -> Tensor:
    return torch.from_numpy(rgb.astype(np.float32)).permute(2, 0, 1)[None].contiguous()


def _unit(x: Tensor) -> Tensor:
    return x / (x.norm(dim=1, keepdim=True) + 1e-10)
