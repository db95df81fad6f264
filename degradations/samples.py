"""Training samples from any picture; shared by the loaders and transforms for other libraries."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from degradations import recipes, tiffs
from degradations.errors import RecipeError
from degradations.ops.compose import iterate_ops
from degradations.ops.damage import Damage
from degradations.ops.op import Size
from degradations.ops.sharpen import sharpen
from degradations.pipeline import Recipe, Trace, rebuild, target_size
from degradations.rng import Rng

CHANNELS = 1, 3, 4
BEYOND = 0.25  # that floats may lie outside [0, 1]


@dataclass(frozen=True)
class Maker:
    """Makes samples with a recipe.

    Attributes:
        recipe: What degrades the pictures.
        scale: HR size over LR size, 1 or more.
        seed: Seed of all draws.
    """

    recipe: Recipe
    scale: float
    seed: int

    @classmethod
    def of(cls, recipe: Recipe | str | Path, scale: float, seed: int) -> "Maker":
        """A maker for a recipe that may be given by name or file.

        Args:
            recipe: A recipe's name, a YAML file, or a Recipe.
            scale: HR size over LR size, 1 or more.
            seed: Seed of all draws.

        Raises:
            RecipeError: If there is no such recipe.
            ValueError: If scale is below 1.
        """
        target_size((1, 1), scale)  # refuses what is no scale
        return cls(recipe if isinstance(recipe, Recipe) else recipes.find(str(recipe)), scale, seed)

    def draw(self, hr: np.ndarray, key: str) -> Trace:
        """Draw the trace of a picture, uint8 (H, W, 3), with this key."""
        return self.recipe.draw(hr.shape[:2], self.scale, self.seed, key)

    def sample(self, hr: np.ndarray, trace: Trace, apply: bool = True) -> dict[str, Any]:
        """What a trainer needs of a picture.

        Args:
            hr: uint8 (H, W, 3): the good picture.
            trace: What `draw` returned for it.
            apply: False leaves out lr and damage, for callers whose device makes whole batches of
                them.

        Returns:
            "hr"; "trace" as JSON, where replay(Trace.from_json(trace), hr) is lr; "lr", uint8 (h,
            w, 3); "hr_sharp", the training target, if the recipe sharpens; "damage", uint8 (h, w),
            255 on damage, if the recipe draws any.
        """
        item: dict[str, Any] = {"hr": hr, "trace": trace.to_json()}
        if trace.sharpen:
            item["hr_sharp"] = sharpen(hr)
        if apply:
            degraded = rebuild(trace, hr)
            item["lr"] = degraded.lr
            if draws_damage(self.recipe):
                item["damage"] = degraded.damage
        return item


def draws_damage(recipe: Recipe) -> bool:
    return any(isinstance(op, Damage) for op in iterate_ops(recipe.steps))


def check_crop(crop: int, scale: float) -> None:
    """Refuse a crop whose degraded picture would not be a whole number of pixels.

    Raises:
        RecipeError: Names a crop that fits.
    """
    if not hasattr(crop, "__index__"):
        raise RecipeError(f"a crop is a whole number of pixels, not {crop!r}")
    if not _fits(crop, scale):
        near = (n for n in range(crop, 2 * crop + 100) if _fits(n, scale))
        mend = next((f"give one that is, such as {n}" for n in near), "give a rounder scale")
        raise RecipeError(f"a crop of {crop} px is no multiple of the scale {scale:g}; {mend}")


def _fits(crop: int, scale: float) -> bool:
    return abs(target_size((crop, crop), scale)[0] * scale - crop) < 1e-6


def whole_size(size: Size, scale: float) -> Size:
    """The largest size whose degraded picture is a whole number of pixels.

    Args:
        size: (height, width) that it must fit into.
        scale: HR size over LR size.

    Returns:
        (height, width); 0 where there is none.
    """
    height, width = (
        next((n for n in range(side, max(0, side - 100), -1) if _fits(n, scale)), 0)
        for side in size
    )
    return height, width


def crop_of(photo: np.ndarray, size: int, rng: Rng, turns: bool = False) -> np.ndarray:
    """A random crop of a photo.

    Args:
        photo: uint8 (H, W, 3).
        size: Side of the crop, pixels.
        rng: Draws the place and the turn.
        turns: Turn and mirror it at random.

    Raises:
        RecipeError: If the photo is smaller than the crop.
    """
    (height, width), place = photo.shape[:2], rng.at(0)
    if min(height, width) < size:
        raise RecipeError(f"{width}x{height} px is smaller than the crop of {size} px")
    y, x = (int(place.uniform() * (side - size + 1)) for side in (height, width))
    made = photo[y : y + size, x : x + size]
    return np.ascontiguousarray(turn(made, rng.at(1)) if turns else made)


def turn(hr: np.ndarray, rng: Rng) -> np.ndarray:
    """A picture in one of its eight orientations: quarter turns, then a mirror."""
    hr = np.rot90(hr, int(rng.uniform() * 4))
    return hr[:, ::-1] if rng.uniform() < 0.5 else hr


def pixels(photo: Any) -> np.ndarray:
    """A photo of any kind as uint8 (H, W, 3). Grey becomes RGB, alpha is left out.

    Args:
        photo: A file (it is set upright), a PIL picture, an array (H, W), (H, W, 1), (H, W, 3) or
            (H, W, 4), or a tensor (H, W) or (1, 3 or 4, H, W): uint8, uint16, or floats in [0, 1];
            of a tuple, as datasets return, the first item.

    Raises:
        TypeError: It is something else.
        ValueError: Its shape or its values are others.
        RecipeError: The file cannot be read.
    """
    if isinstance(photo, str | Path):
        return read(Path(photo))
    if isinstance(photo, tuple | list):
        return pixels(photo[0])
    if isinstance(photo, Image.Image):
        # convert() would cut these off at 255
        deep = photo.mode[0] in "IF"
        return _rgb8(_deep(photo)) if deep else np.asarray(photo.convert("RGB"))
    if isinstance(photo, np.ndarray):
        return _rgb8(photo)
    if hasattr(photo, "permute"):
        return _rgb8(_channels_last(photo))
    raise TypeError(f"a photo is a file, an array, a picture or a tensor, not {type(photo)}")


def _deep(photo: Image.Image) -> np.ndarray:
    """A PIL picture of 16 bits or floats; 16 bits may be in int32 there, and only there."""
    values = np.asarray(photo)
    if values.dtype.kind == "i" and values.size and 0 <= values.min() <= values.max() < 2**16:
        return values.astype(np.uint16)
    return values


def _channels_last(photo: Any) -> np.ndarray:
    """A tensor (H, W) or (C, H, W) as an array (H, W, C)."""
    shape = tuple(photo.shape)
    planes = photo[None] if photo.ndim == 2 else photo
    if planes.ndim != 3 or planes.shape[0] not in CHANNELS:
        mend = "; permute(2, 0, 1) puts the channels first" if shape[-1:] == (3,) else ""
        raise ValueError(f"a tensor of shape {shape}: a photo is (3, H, W){mend}")
    planes = planes.detach().cpu().permute(1, 2, 0)
    return (planes.float() if planes.is_floating_point() else planes).numpy()


def _rgb8(photo: np.ndarray) -> np.ndarray:
    """An array of any kind that a photo may have as uint8 (H, W, 3)."""
    planes = photo[..., None] if photo.ndim == 2 else photo
    if planes.ndim != 3 or planes.shape[2] not in CHANNELS:
        raise ValueError(f"an array of shape {photo.shape}: a photo is (H, W, 3)")
    planes = _eight(planes[..., :3])
    return planes if planes.shape[2] == 3 else np.repeat(planes, 3, 2)


def _eight(values: np.ndarray) -> np.ndarray:
    """Values of any kind that a photo may have as uint8."""
    if values.dtype == np.uint8:
        return values
    if values.dtype == bool:
        return values.astype(np.uint8) * np.uint8(255)
    low, high = (float(values.min()), float(values.max())) if values.size else (0, 0)
    if values.dtype.kind == "f":
        # resampling overshoots a little; what is far beyond was normalised, or has another range
        if not (low >= -BEYOND and high <= 1 + BEYOND):
            told = f"values from {low:g} to {high:g}: floats of a photo are in [0, 1]"
            raise ValueError(f"{told}; degrade it before it is normalised")
        return np.rint(values.clip(0, 1) * 255).astype(np.uint8)
    if not is_deep(values.dtype):
        raise ValueError(f"values of type {values.dtype}: a photo has uint8, uint16 or floats")
    return np.rint(values / 257).astype(np.uint8)


def is_deep(dtype: np.dtype) -> bool:
    """Whether it is uint16, in either order of bytes."""
    return dtype.kind == "u" and dtype.itemsize == 2


def read(path: Path) -> np.ndarray:
    """A photo as uint8 (H, W, 3), upright, without alpha.

    Raises:
        RecipeError: If it cannot be read.
    """
    try:
        data = path.read_bytes()
        if (values := tiffs.read(data)) is not None:
            return _upright(_rgb8(values), data)
        if data.startswith(b"Pf"):  # OpenCV keeps its floats
            with Image.open(io.BytesIO(data), formats=["PPM"]) as picture:
                return pixels(picture)
        if data.startswith(b"PF"):
            raise RecipeError(f"{path}: a PFM of colours is not read; convert it to PNG")
        # OpenCV would cut 16 bits to 8; in other formats it leaves 10 and 12 bits unscaled
        depth = cv2.IMREAD_ANYDEPTH if data.startswith(b"\x89PNG") else 0
        whole = np.frombuffer(data, np.uint8)
        rgb = cv2.imdecode(whole, cv2.IMREAD_COLOR_RGB | depth) if whole.size else None
        if rgb is None:
            raise RecipeError(f"{path}: is no picture that OpenCV reads")
        return _upright(_eight(rgb), data)
    except RecipeError:
        raise
    except (OSError, ValueError, cv2.error, Image.DecompressionBombError) as error:
        raise RecipeError(f"{path}: cannot be read: {error}") from error


def _upright(rgb: np.ndarray, data: bytes) -> np.ndarray:
    """A picture turned as its file says, where it is an AVIF: OpenCV turns all others."""
    if data[4:8] != b"ftyp":
        return rgb
    try:
        with Image.open(io.BytesIO(data), formats=["AVIF"]) as picture:
            orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
    except UnidentifiedImageError:  # this Pillow knows no AVIF
        return rgb
    turned = Image.fromarray(rgb)
    turned.getexif()[ExifTags.Base.Orientation] = orientation
    return np.array(ImageOps.exif_transpose(turned))
