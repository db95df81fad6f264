"""Detection of scratches in old photos by a small network; a proposal for the user to correct."""

from functools import cache
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from scipy import ndimage
from torch import Tensor, nn

from restore.images.masks import label_parts
from restore.images.picture import Picture

WEIGHTS = Path(__file__).with_name("scratches.safetensors")
SIDE = 1024  # px at which a picture is looked at, and its scratches with it
STRIDE = 16  # px between the coarsest features
LIKELY, EVEN = 0.6, 0.9  # odds of a pixel, and of a mark on the whole
LONG = 0.04  # of the longer side: a shorter mark may be anything
# Damage rarely comes alone: a picture has some only if one mark is longer than DOUBTFUL and
# sure; its odds on the whole and BONUS for each longer side of length make SURE.
DOUBTFUL, SURE, BONUS = 0.06, 0.939, 0.02
MOST = 0.15  # of a picture's area: of more, the surest marks
HALO = 160  # rows that an answer depends on, on either side
BAND = 512  # rows at a time, which bounds memory


class ScratchNet(nn.Module):
    """A U-Net (Ronneberger et al. 2015) that maps pictures to logits of damage.

    It has no normalization, so bands of a picture give the same result as the whole. It works at
    half resolution; pixels are shuffled to channels and back (Shi et al. 2016).

    Args:
        widths: Channels of each level, finest first.
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
        """Map (B, 3, H, W) in [0, 1] to logits (B, 1, H, W); sides are multiples of STRIDE."""
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
    """Two convolutions with a skip connection (He et al. 2016)."""

    def __init__(self, width: int):
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        return F.relu(x + self.second(F.relu(self.first(x))))


@cache
def load_network() -> ScratchNet:
    """Load the network that ships; scratches.md says what it was trained on."""
    made = ScratchNet()
    made.load_state_dict({name: tensor.float() for name, tensor in load_file(WEIGHTS).items()})
    return made.eval().requires_grad_(False)


def find(picture: Picture) -> np.ndarray:
    """Propose a mask of scratches, dust and tears: long thin marks that no lens has softened.

    Check it: masts, frames and highlights of sharp pictures may be among them.

    Returns:
        uint8 (H, W), 255 on damage, else 0.
    """
    rgb, size = _scaled(picture), picture.size
    likely = predict(rgb, load_network())
    likely[~_sure(likely)] = 0
    if likely.shape != size:
        how = cv2.INTER_AREA if likely.shape[0] > size[0] else cv2.INTER_LINEAR
        likely = cv2.resize(likely, size[::-1], interpolation=how)
    found = likely > LIKELY
    if picture.alpha is not None:
        found &= picture.alpha > 0
    return np.where(found, 255, 0).astype(np.uint8)


def _scaled(picture: Picture) -> np.ndarray:
    """Scale to at most SIDE px on a side, small pictures up to twice: float32 (3, H, W) in [0, 1].

    So scratches of the same photo have about the same width at any resolution.
    """
    rgb, scale = picture.pixels, min(2.0, SIDE / max(picture.size))
    if scale != 1:
        size = [max(1, round(side * scale)) for side in picture.size[::-1]]
        rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    return (rgb.astype(np.float32) / np.iinfo(rgb.dtype).max).transpose(2, 0, 1)


def _sure(likely: np.ndarray) -> np.ndarray:
    """Select connected parts that are long enough and likely all along, bool (H, W).

    Nothing is selected unless at least one of them is beyond doubt.
    """
    marks = label_parts(likely > LIKELY)
    count = int(marks.max())
    if not count:
        return marks > 0
    names = np.arange(1, count + 1)
    sides = [[side.stop - side.start for side in box] for box in ndimage.find_objects(marks)]
    length = np.hypot(*np.array(sides).T) / max(likely.shape)
    even = np.asarray(ndimage.mean(likely, marks, names))
    keep = (length >= LONG) & (even >= EVEN)
    if not np.any((length >= DOUBTFUL) & (even + BONUS * length >= SURE)):
        keep[:] = False
    area = np.bincount(marks.ravel())[1:] * keep
    surest = np.argsort(-even)
    keep[surest] &= np.cumsum(area[surest]) <= MOST * marks.size
    return np.concatenate([[False], keep])[marks]


@torch.inference_mode()
def predict(rgb: np.ndarray, network: ScratchNet, band: int = BAND) -> np.ndarray:
    """Predict how likely each pixel is damaged.

    Args:
        rgb: float32 (3, H, W) in [0, 1].
        network: The network.
        band: Rows at a time; it bounds memory and does not change the result.

    Returns:
        float32 (H, W) in [0, 1].
    """
    _, height, width = rgb.shape
    more = [(0, 0), (0, -height % STRIDE), (0, -width % STRIDE)]
    rgb = np.pad(rgb, more, "symmetric")
    found = []
    for top in range(0, rgb.shape[1], band):
        first, last = max(0, top - HALO), min(rgb.shape[1], top + band + HALO)
        logits = network(torch.from_numpy(np.ascontiguousarray(rgb[None, :, first:last])))[0, 0]
        found.append(logits[top - first : top - first + band].sigmoid().numpy())
    return np.concatenate(found)[:height, :width]
