"""Use torchvision if it works, and work without it if it is absent or broken.

A torchvision built for another torch fails at import. Importing diffusers and transformers then
fails too, although nothing here needs it. spandrel needs three small functions of it.
"""

import enum
import importlib.abc
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

MEND = (
    "pip uninstall torchvision, or install the one that was built for this torch; for a CPU's: pip "
    "install --force-reinstall --no-deps torchvision --index-url "
    "https://download.pytorch.org/whl/cpu"
)
FITTING = "the torchvision that was built for this torch; `restore doctor` tells whether it works"
ASKING = "diffusers", "transformers"
State = Literal["works", "absent", "broken"]
NAMES = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")


@cache
def tried() -> tuple[State, str]:
    """Try to import torchvision.

    If it is broken, it looks absent to this whole process from then on. So call this before
    diffusers and transformers are imported.

    Returns:
        Whether it can be imported, and the error if it cannot.
    """
    if find_spec("torchvision") is None:
        return "absent", ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about parts of it that are not needed here
            importlib.import_module("torchvision")
    except Exception as error:  # a build for another torch fails in many ways
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        sys.modules["torchvision"] = None  # makes Python's import say that it is absent
        return "broken", f"{type(error).__name__}: {error}".splitlines()[0]
    return "works", ""


class _Before(importlib.abc.MetaPathFinder):
    """An import hook that finds nothing itself, but runs `tried` before diffusers is imported."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        if fullname in ASKING and self in sys.meta_path:
            sys.meta_path.remove(self)
            tried()


def install_check() -> None:
    """Run `tried` just before the first import of diffusers or transformers.

    It does not run earlier, because programs that import neither start in a quarter of the time.
    """
    if any(name in sys.modules for name in ASKING):
        tried()
    elif not any(isinstance(finder, _Before) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Before())


def complaint() -> str:
    """Return a warning about a broken torchvision and how to mend it; else an empty text."""
    state, why = tried()
    if state != "broken":
        return ""
    return f"torchvision is there and cannot be imported ({why}); it is passed over; {MEND}"


@contextmanager
def standing_in() -> Iterator[None]:
    """Provide the three functions that spandrel imports, if torchvision does not work."""
    if tried()[0] == "works":
        yield
        return
    replaced = {name: sys.modules[name] for name in NAMES if name in sys.modules}
    modules = [ModuleType(name) for name in NAMES]
    for part in (normalize, rotate, InterpolationMode):
        setattr(modules[-1], part.__name__, part)
    sys.modules.update(zip(NAMES, modules, strict=True))
    try:
        yield
    finally:  # other libraries must not find these stand-ins
        for name in NAMES:
            del sys.modules[name]
        sys.modules.update(replaced)


class InterpolationMode(enum.Enum):
    """As torchvision's, with the two modes that rotate supports."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"


def normalize(
    tensor: "Tensor", mean: list[float], std: list[float], inplace: bool = False
) -> "Tensor":
    """Subtract the mean of each channel and divide by its standard deviation; (..., C, H, W)."""
    made = (tensor - tensor.new_tensor(mean)[:, None, None]) / tensor.new_tensor(std)[:, None, None]
    return tensor.copy_(made) if inplace else made


def rotate(
    img: "Tensor",
    angle: float,
    interpolation: InterpolationMode = InterpolationMode.NEAREST,
) -> "Tensor":
    """Rotate (B, C, H, W) about its centre, counter-clockwise in degrees; black outside."""
    import math

    import torch
    from torch.nn import functional as F

    height, width = img.shape[-2:]
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    matrix = [[cosine, -sine * height / width, 0.0], [sine * width / height, cosine, 0.0]]
    grid = F.affine_grid(
        img.new_tensor([matrix]).expand(len(img), -1, -1), list(img.shape), align_corners=False
    )
    made = F.grid_sample(img, grid, mode=interpolation.value, align_corners=False)
    return torch.as_tensor(made)
