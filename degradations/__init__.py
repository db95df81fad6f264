"""Degrade good pictures as the world does, with every draw recorded, so that it can be replayed.

recipe = degradations.recipes.named("realesrgan").at(0.5)
degraded = recipe.degrade(hr, scale=4, seed=0, key="photo_1")
assert (degradations.replay(degraded.trace, hr) == degraded.lr).all()
"""

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from degradations import recipes
from degradations.batch import degrade_batch
from degradations.errors import RecipeError
from degradations.keys import keyed
from degradations.ops.sharpen import sharpen
from degradations.pipeline import Degraded, Recipe, Trace, rebuild, replay

__all__ = [
    "Degraded",
    "Recipe",
    "RecipeError",
    "Trace",
    "degrade_batch",
    "keyed",
    "rebuild",
    "recipes",
    "replay",
    "sharpen",
]


def __getattr__(name: str) -> ModuleType:
    """A module of this package, loaded when it is first named: `device` needs torch."""
    if not name.startswith("_") and find_spec(f"{__name__}.{name}"):
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
