"""The degradations as a transform of albumentations: A.Compose([..., Degrade("realesrgan")]).

The library's own transforms can be steps of a recipe, too: degradations.ops.albumentations.
"""

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else it asks the network at import

import numpy as np
from albumentations.augmentations.geometric.functional import keypoints_scale
from albumentations.core.transforms_interface import BasicTransform

from degradations.keys import key_of
from degradations.pipeline import Recipe, Trace
from degradations.samples import Maker, pixels

TARGETS = "image", "key", "mask", "masks", "bboxes", "keypoints"


class Degrade(BasicTransform):
    """A transform that degrades `image`, and adds the good picture as `hr`.

    It comes last, after the transforms that crop and turn. The result also has `trace`, as JSON:
    degradations.replay makes `image` from `hr`. A recipe that sharpens adds `hr_sharp`, the
    training target. A recipe that draws damage adds `damage`, its mask. Masks stay as they are,
    because they belong to `hr`. Boxes and keypoints belong to the smaller `image`, by whose size
    Compose measures them: times `scale` they are those of `hr`. The transform always acts (p is 1),
    so that all samples have the same items; write a `maybe` into the recipe to degrade only a
    share.

    The draws are a function of the key that is passed with the image, as in transform(image=rgb,
    key="0/17"). Without a key they belong to the picture that degradations.torch.Keyed is at, or
    else to the number of the call. The transform refuses to draw where several workers would draw
    the same.

    Args:
        recipe: A recipe's name, a YAML file, a Recipe, or the values of one.
        scale: HR size over LR size, 1 or more.
        seed: Seed of all draws.
        p: 1; any other value is refused.
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
        return dict.fromkeys(TARGETS, _identity)

    def get_params_dependent_on_data(
        self, params: dict[str, Any], data: dict[str, Any]
    ) -> dict[str, Any]:
        trace = self.maker.draw(pixels(data["image"]), key_of(data.get("key")))
        return {"trace": trace.to_json()}

    def apply_with_params(self, params: dict[str, Any], *args: Any, **data: Any) -> dict[str, Any]:
        hr = np.ascontiguousarray(pixels(data["image"]))
        made = self.maker.sample(hr, Trace.from_json(params["trace"]))
        low = made.pop("lr")
        down, across = (side / of for side, of in zip(low.shape[:2], hr.shape[:2], strict=True))
        points = {
            name: keypoints_scale(value, across, down)
            for name, value in data.items()
            if self._additional_targets.get(name, name) == "keypoints"
        }
        return data | points | {"image": low} | made

    def get_transform_init_args(self) -> dict[str, Any]:
        values = self.maker.recipe.model_dump(mode="json")
        return {"recipe": values, "scale": self.maker.scale, "seed": self.maker.seed}


def _identity(value: Any, **params: Any) -> Any:
    return value
