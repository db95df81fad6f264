"""Propose where an old photo is scratched, for its user to correct: a small network of our own."""

from functools import cache
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from restore.images.picture import Picture

WEIGHTS = Path(__file__).with_name("scratches.safetensors")
SIDE = 1024  # px; a larger picture is looked at so small, and its scratches with it
STRIDE = 16  # px between the coarsest features
HALO = 160  # rows that an answer depends on, on either side
BAND = 512  # rows at a time, which bounds memory


class Finder(nn.Module):
    """rgb (B, 3, H, W) in [0, 1] -> logits (B, 1, H, W); H and W are multiples of STRIDE.

    A U-Net (Ronneberger et al. 2015) without norms, so that bands of a picture answer as the whole
    does. It works at half resolution (Shi et al. 2016): full pixels come by a shuffle at the end.
    """

    def __init__(self, widths: tuple[int, ...] = (24, 32, 40, 40)):
        super().__init__()
        pairs = list(pairwise(widths))
        self.stem = nn.Conv2d(12, widths[0], 3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in pairs)
        self.within = nn.ModuleList(Residual(width) for width in widths[1:])
        self.up = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairs)
        self.joined = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for width in widths[:-1])
        self.head = nn.Conv2d(widths[0], 4, 3, padding=1)

    def forward(self, rgb: Tensor) -> Tensor:
        x = F.relu(self.stem(F.pixel_unshuffle(rgb - 0.5, 2)))
        finer = []
        for down, within in zip(self.down, self.within, strict=True):
            finer.append(x)
            x = within(F.relu(down(x)))
        for level in reversed(range(len(self.up))):
            larger = F.interpolate(self.up[level](x), scale_factor=2)
            x = F.relu(self.joined[level](F.relu(finer[level] + larger)))
        return F.pixel_shuffle(self.head(x), 2)


class Residual(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(F.relu(self.first(x))))


@cache
def network() -> Finder:
    """The one that ships; scratches.md tells what it learnt from."""
    made = Finder()
    made.load_state_dict({name: tensor.float() for name, tensor in load_file(WEIGHTS).items()})
    return made.eval().requires_grad_(False)


def odds(picture: Picture, finder: Finder | None = None) -> np.ndarray:
    """float32 (H, W): how likely each pixel is damaged, by bands, at SIDE px or less."""
    rgb = picture.pixels
    height, width = rgb.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    if scale < 1:
        small = max(1, round(width * scale)), max(1, round(height * scale))
        rgb = cv2.resize(rgb, small, interpolation=cv2.INTER_AREA)
    rgb = (rgb.astype(np.float32) / np.iinfo(rgb.dtype).max).transpose(2, 0, 1)
    found = _by_bands(rgb, finder or network())
    if scale < 1:
        found = cv2.resize(found, (width, height), interpolation=cv2.INTER_LINEAR)
    return found


@torch.inference_mode()
def _by_bands(rgb: np.ndarray, finder: Finder) -> np.ndarray:
    _, height, width = rgb.shape
    more = [(0, 0), (0, -height % STRIDE), (0, -width % STRIDE)]
    rgb = np.pad(rgb, more, "symmetric")
    found = []
    for top in range(0, rgb.shape[1], BAND):
        first, last = max(0, top - HALO), min(rgb.shape[1], top + BAND + HALO)
        logits = finder(torch.from_numpy(np.ascontiguousarray(rgb[None, :, first:last])))[0, 0]
        found.append(logits[top - first : top - first + BAND].sigmoid().numpy())
    return np.concatenate(found)[:height, :width]


def find(picture):
    raise NotImplementedError
