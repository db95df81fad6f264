"""Transforms of albumentations that move pixels, applied to crops before they are degraded."""

import inspect
import os
import warnings
from typing import Any, Self

import cv2
import numpy as np
from pydantic import model_validator

from restore.config import Options
from restore.errors import ConfigError, near

ROOM = 1.5  # the crop that is moved is so many times wider, so that its edges stay outside


class Geometry(Options):
    """One transform by its name (Buslaev et al. 2020), such as Affine with rotate: [-10, 10]."""

    transform: str
    """Name of the transform's class, such as Affine."""
    params: dict[str, Any] = {}
    """Arguments of the transform."""

    @model_validator(mode="after")
    def _can_be_made(self) -> Self:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # it only warns of an unknown argument
                build_transform(self)
        except KeyError as error:
            raise ValueError(str(error.args[0])) from error
        except Exception as error:  # a transform of another package, which may raise anything
            raise ValueError(f"{self.transform} does not take {self.params}: {error}") from error
        return self


def build_transform(geometry: Geometry) -> Any:
    """The transform; edges are mirrored unless its parameters say otherwise.

    Raises:
        KeyError: If albumentations has no geometric transform of that name.
    """
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else it asks the network at import
    import albumentations

    kinds = {
        name: found
        for name, found in vars(albumentations).items()
        if isinstance(found, type)
        and issubclass(found, albumentations.DualTransform)
        and not issubclass(found, albumentations.BaseCompose)
    }
    if geometry.transform not in kinds:
        message = f"albumentations has no geometric transform {geometry.transform!r}"
        raise KeyError(message + near(geometry.transform, kinds))
    kind = kinds[geometry.transform]
    params = {"p": 1.0} | geometry.params
    if "border_mode" in inspect.signature(kind.__init__).parameters:
        params = {"border_mode": cv2.BORDER_REFLECT_101} | params
    return kind(**params)


def move(
    picture: np.ndarray,
    corner: tuple[int, int],
    size: int,
    steps: tuple[Geometry, ...],
    rng: np.random.Generator,
) -> np.ndarray:
    """Cut a crop from a wider one after that went through the transforms.

    Args:
        picture: uint8 (H, W, 3).
        corner: (y, x) of the crop.
        size: Side of the crop, pixels.
        steps: The transforms.
        rng: Seeds them.

    Returns:
        uint8 (size, size, 3).

    Raises:
        ConfigError: If a transform leaves less than the crop.
    """
    places = []
    for start, side in zip(corner, picture.shape, strict=False):
        wide = min(side, round(size * ROOM))
        first = min(max(0, start - (wide - size) // 2), side - wide)
        places.append(slice(first, first + wide))
    wider = np.ascontiguousarray(picture[tuple(places)])
    for step in steps:
        transform = build_transform(step)
        transform.set_random_seed(int(rng.integers(2**32)))
        wider = transform(image=wider)["image"]
    top, left = ((side - size) // 2 for side in wider.shape[:2])
    if min(top, left) < 0:
        names = ", ".join(step.transform for step in steps)
        height, width = wider.shape[:2]
        message = f"{names}: leaves {width}x{height} px of a crop of {size}; leave it out"
        raise ConfigError(f"stage.data.geometry: {message}")
    return wider[top : top + size, left : left + size]
