"""The degradations as a transform of albumentations: A.Compose([..., Degrade("realesrgan")]).

The library's own transforms can be steps of a recipe, too: degradations.ops.albumentations.
"""

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else it asks the network at import

import numpy as np
from albumentations.core.transforms_interface import BasicTransform

from degradations.keys import next_key
from degradations.pipeline import Recipe, Trace
from degradations.samples import Maker


class Degrade(BasicTransform):
    """`image` becomes what the recipe makes of it, and `hr` the good picture that it was.

    The last of the transforms, after those that cut and turn. The result has `trace` too, as JSON:
    degradations.replay gives `image` from `hr`. A recipe that sharpens adds `hr_sharp`, the
    training target, one that draws damage `damage`. Masks, boxes and the like stay as they are:
    they lie on `hr`. It always acts (p is 1), so that samples are alike; a `maybe` in the recipe is
    how a share is told.

    The draw is that of the key that comes beside the image, as in transform(image=rgb, key="0/17"),
    or of the picture that degradations.torch.Keyed is at; else of the number of the call. Where
    workers would draw alike it is refused.

    Args:
        recipe: A name, a YAML file, a Recipe or its values.
    """

    def __init__(
        self, recipe: Recipe | str | Path | dict, scale: float = 4, seed: int = 0, p: float = 1
    ):
        if p != 1:
            raise ValueError(f"p is 1, not {p}, for a sample without a trace would be another kind")
        super().__init__(p=p)
        given = Recipe.model_validate(recipe) if isinstance(recipe, dict) else recipe
        self.maker = Maker.of(given, scale, seed)

    @property
    def targets(self) -> dict[str, Any]:
        return {"image": _identity, "key": _identity}

    def get_params_dependent_on_data(
        self, params: dict[str, Any], data: dict[str, Any]
    ) -> dict[str, Any]:
        trace = self.maker.draw(data["image"], data.get("key") or next_key())
        return {"trace": trace.to_json()}

    def apply_with_params(self, params: dict[str, Any], *args: Any, **data: Any) -> dict[str, Any]:
        hr = np.ascontiguousarray(data["image"])
        made = self.maker.sample(hr, Trace.from_json(params["trace"]))
        return data | {"image": made.pop("lr")} | made

    def get_transform_init_args(self) -> dict[str, Any]:
        values = self.maker.recipe.model_dump(mode="json")
        return {"recipe": values, "scale": self.maker.scale, "seed": self.maker.seed}


def _identity(value: Any, **params: Any) -> Any:
    return value
