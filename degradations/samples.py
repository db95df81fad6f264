"""Training samples from any picture; shared by the loaders and transforms for other libraries."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from degradations import recipes
from degradations.errors import RecipeError
from degradations.ops.compose import iterate_ops
from degradations.ops.damage import Damage
from degradations.ops.op import Size
from degradations.ops.sharpen import sharpen
from degradations.pipeline import Recipe, Trace, rebuild, target_size
from degradations.rng import Rng


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
    """A photo of any kind as uint8 (H, W, 3).

    Args:
        photo: A file (it is set upright, alpha is left out), an array, a PIL picture, or a tensor
            (3, H, W), uint8 or in [0, 1]; of a tuple, as datasets return, the first item.
    """
    if isinstance(photo, str | Path):
        return read(Path(photo))
    if isinstance(photo, tuple | list):
        return pixels(photo[0])
    if isinstance(photo, Image.Image):
        return np.asarray(photo.convert("RGB"))
    if isinstance(photo, np.ndarray):
        return photo
    if hasattr(photo, "permute"):
        rgb = photo if not photo.is_floating_point() else (photo * 255).round().clamp(0, 255).byte()
        return np.ascontiguousarray(rgb.permute(1, 2, 0).cpu().numpy())
    raise TypeError(f"a photo is a file, an array, a picture or a tensor, not {type(photo)}")


def read(path: Path) -> np.ndarray:
    """A photo as uint8 (H, W, 3), upright, without alpha.

    Raises:
        RecipeError: If OpenCV cannot read it.
    """
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
        rgb = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB) if data.size else None
    except (OSError, cv2.error) as error:
        raise RecipeError(f"{path}: cannot be read: {error}") from error
    if rgb is None:
        raise RecipeError(f"{path}: is no picture that OpenCV reads")
    return rgb
