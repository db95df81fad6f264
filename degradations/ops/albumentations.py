"""Any pixel transform of albumentations by its name; importing this module imports the library."""

import os
import warnings
from typing import Any, ClassVar, Literal, Self

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else it asks the network at import

import albumentations
import numpy as np
from pydantic import model_validator

from degradations.errors import RecipeError, mend
from degradations.ops.jpeg import to_uint8
from degradations.ops.op import Op, Params, Size
from degradations.rng import Rng

_PIXEL = {
    name: found
    for name, found in vars(albumentations).items()
    if isinstance(found, type) and issubclass(found, albumentations.ImageOnlyTransform)
}
_TRIAL = np.indices((64, 64, 3)).sum(0).astype(np.uint8)  # what is tried when a recipe is loaded


class Albumentations(Op):
    """One transform of albumentations (Buslaev et al. 2020), by name, on 8 bits, seeded by us.

    Transforms that move pixels are refused: the result would not match its good original.
    Severity does not change its strength; a `maybe` around it sets how often it is applied.
    """

    kind: Literal["albumentations"] = "albumentations"
    fades: ClassVar = False
    transform: str
    """Name of the transform, such as RandomRain."""
    params: dict[str, Any] = {}
    """Arguments of the transform."""

    @model_validator(mode="after")
    def _can_be_made(self) -> Self:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # it only warns of an unknown argument
                _build(self.transform, self.params)
                warnings.simplefilter("ignore")
                transform = _build(self.transform, self.params | {"p": 1.0})
                transform.set_random_seed(0)
                _transformed(transform, _TRIAL)
        except RecipeError:
            raise
        except Exception as error:  # a transform of another package, which may raise anything
            raise RecipeError(f"{self.transform} does not take {self.params}: {error}") from error
        return self

    def draw(self, rng: Rng) -> Params:
        seed = rng.bits() & 0xFFFFFFFF
        return {"transform": self.transform, "params": self.params, "seed": seed}

    @staticmethod
    def apply(rgb: np.ndarray, params: Params, target: Size) -> np.ndarray:
        transform = _build(params["transform"], params["params"])
        transform.set_random_seed(params["seed"])
        made = _transformed(transform, to_uint8(rgb))
        return made.astype(np.float32) * np.float32(1 / 255)


def _transformed(transform: Any, rgb: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) -> the same. Raises RecipeError where a transform gives something else."""
    made = transform(image=rgb)["image"]
    is_kept = isinstance(made, np.ndarray) and made.dtype == np.uint8 and made.shape == rgb.shape
    if not is_kept:
        what = (
            f"{made.dtype} {tuple(made.shape)}" if hasattr(made, "dtype") else type(made).__name__
        )
        raise RecipeError(
            f"{type(transform).__name__} makes {what} of uint8 {rgb.shape}; a step keeps pictures "
            "of 8 bits in RGB: leave such a transform to the trainer's own pipeline"
        )
    return made


def _build(name: str, params: dict[str, Any]) -> Any:
    if name not in _PIXEL:
        raise RecipeError(f"albumentations has no pixel transform {name!r}; {mend(name, _PIXEL)}")
    return _PIXEL[name](**{"p": 1.0} | params)
