"""Crops of photos as tensors, shared by the datasets of degradations.torch."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from degradations.errors import RecipeError
from degradations.rng import Rng
from degradations.samples import Maker, check_crop, crop_of, is_deep, turn

log = logging.getLogger("degradations.torch")
SUFFIXES = frozenset(  # what cv2 or Pillow read
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff"}
)


class Cutter:
    """A photo -> a sample, by a key."""

    def __init__(self, maker: Maker, crop: int | None, turns: bool, read: Callable):
        if crop is not None:
            check_crop(crop, maker.scale)
        self.maker, self.crop, self.turns, self.read = maker, crop, turns, read
        self.refused: set[Any] = set()

    def cut(self, photos: Any, name: Any, key: str) -> np.ndarray | str:
        """The good picture out of photos[name], or why there is none."""
        rng = Rng(self.maker.seed, f"crop/{key}")
        try:
            rgb = self.read(photos[name])
            if self.crop is not None:
                return crop_of(rgb, self.crop, rng, self.turns)
            return np.ascontiguousarray(turn(rgb, rng.at(1))) if self.turns else rgb
        except MemoryError:
            raise
        except Exception as error:  # whatever a reader may raise; a bad photo costs no other
            if name not in self.refused:
                log.warning("photo %s is left out: %s", name, error)
            self.refused.add(name)
            return str(error)

    def sample(self, hr: np.ndarray, key: str, apply: bool) -> dict[str, Any]:
        made = self.maker.sample(hr, self.maker.draw(hr, key), apply)
        return {name: to_planes(v) / 255 if name != "trace" else v for name, v in made.items()}


def files_in(folder: str | Path) -> list[Path]:
    """The pictures in a folder and its subfolders, sorted by name; or the one that it names.

    Raises:
        RecipeError: If there are none.
    """
    if Path(folder).is_file():
        return [Path(folder)]
    found = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in SUFFIXES)
    if not found:
        raise RecipeError(f"{os.fspath(folder)}: holds no picture ({', '.join(sorted(SUFFIXES))})")
    return found


def to_planes(rgb: np.ndarray) -> Tensor:
    """uint8 (H, W[, 3]) -> uint8 (3 or 1, H, W)."""
    planes = rgb[None] if rgb.ndim == 2 else rgb.transpose(2, 0, 1)
    return torch.from_numpy(np.array(planes, order="C"))


def like(rgb: np.ndarray, picture: Any) -> Any:
    """uint8 (H, W[, 3]) in the type of another picture."""
    if isinstance(picture, Image.Image):
        return Image.fromarray(rgb)
    if isinstance(picture, np.ndarray):
        if picture.dtype.kind == "f":
            return (rgb / 255).astype(picture.dtype)
        return rgb.astype(picture.dtype) * 257 if is_deep(picture.dtype) else rgb
    if not isinstance(picture, Tensor):
        return rgb
    planes = to_planes(rgb)
    if picture.dtype != torch.uint8:
        planes = planes / 255 if picture.is_floating_point() else planes.int() * 257
    planes = planes.to(picture.device, picture.dtype)
    return planes if type(picture) is Tensor else planes.as_subclass(type(picture))
