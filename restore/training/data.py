"""Training samples: pure functions of (seed, index), so that workers and resume change nothing."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from restore.config import Options
from restore.decoding import FORMATS
from restore.errors import ConfigError

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"}


class PhotoOptions(Options):
    """Where training photos come from and how crops are cut from them."""

    photos: Path
    crop: int = Field(64, ge=16, multiple_of=4)  # px
    detail: int = Field(2, ge=1, le=16)  # of so many candidate crops the most detailed is taken


class Photos:
    """Every photo of a folder, decoded once and kept as uint8 (H, W, 3) arrays.

    Raises ConfigError if the folder holds no photo that is at least `smallest` px on both sides.
    """

    def __init__(self, folder: Path, smallest: int):
        paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
        with ThreadPoolExecutor(cpu_count()) as pool:
            decoded = list(track(pool.map(decode, paths), "reading photos", len(paths)))
        self.pictures = [rgb for rgb in decoded if min(rgb.shape[:2]) >= smallest]
        if not self.pictures:
            raise ConfigError(
                f"{folder}: none of its {len(paths)} pictures is {smallest} px or more on both "
                "sides; name a folder of photos with data.photos, or make data.crop smaller"
            )
        # A photo is met as often as it has room for crops, with a square root's restraint.
        area = np.array([rgb.shape[0] * rgb.shape[1] for rgb in self.pictures], np.float64)
        self.odds = np.sqrt(area) / np.sqrt(area).sum()

    def crop(self, size: int, detail: int, rng: np.random.Generator) -> np.ndarray:
        """One uint8 (size, size, 3) crop, turned and mirrored at random.

        Of `detail` candidates the one with the strongest gradients wins, since most of any photo
        is sky and wall.
        """
        best, most = None, -1.0
        for _ in range(detail):
            picture = self.pictures[rng.choice(len(self.pictures), p=self.odds)]
            y = rng.integers(picture.shape[0] - size + 1)
            x = rng.integers(picture.shape[1] - size + 1)
            crop = picture[y : y + size, x : x + size]
            green = crop[..., 1].astype(np.float32)
            strength = np.abs(np.diff(green, axis=0)).mean() + np.abs(np.diff(green, axis=1)).mean()
            if strength > most:
                best, most = crop, strength
        best = np.rot90(best, rng.integers(4))
        return (best[:, ::-1] if rng.random() < 0.5 else best).copy()


def decode(path: Path) -> np.ndarray:
    with Image.open(path, formats=FORMATS) as image:
        return np.asarray(image.convert("RGB"))


class Samples(Dataset):
    """The endless stream make(rng of (seed, index)), addressed by index."""

    def __init__(self, make: Callable[[np.random.Generator, int], object], seed: int):
        self.make, self.seed = make, seed

    def __getitem__(self, index: int) -> object:
        return self.make(np.random.default_rng((self.seed, index)), index)


def batches(samples: Dataset, size: int, first: int, last: int, workers: int) -> DataLoader:
    """Batches number `first` up to `last` of the stream, `size` samples each, in order."""
    indices = range(first * size, last * size)
    return DataLoader(samples, size, sampler=indices, num_workers=workers)


def to_rgb(pixels: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) -> rgb (B, 3, H, W), [0, 1], channels last in memory."""
    return pixels.permute(0, 3, 1, 2).to(torch.float32) / 255
