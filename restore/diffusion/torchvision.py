"""torchvision where it works, and ways round it where it is absent or does not.

Its wheel beside a torch of another build fails at import, and takes diffusers and transformers with
it, though they need nothing of it here. spandrel needs three small functions of it.
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
    """Whether torchvision can be imported, and the error where it cannot.

    A broken one is taken for absent from here on, in this process, by whoever asks: so this comes
    before diffusers and transformers are imported.
    """
    if find_spec("torchvision") is None:
        return "absent", ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of parts of it that nothing here needs
            importlib.import_module("torchvision")
    except Exception as error:  # RuntimeError, OSError, AttributeError: whatever a mismatch raises
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        sys.modules["torchvision"] = None  # type: ignore[assignment]  # Python's word for absent
        return "broken", f"{type(error).__name__}: {error}".splitlines()[0]
    return "works", ""


class _Before(importlib.abc.MetaPathFinder):
    """Finds nothing itself."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        if fullname in ASKING and self in sys.meta_path:
            sys.meta_path.remove(self)
            tried()


def try_before() -> None:
    """Have it tried just before the first of those that ask for it is imported.

    Not earlier: what needs none of them starts in a quarter of the time.
    """
    if any(name in sys.modules for name in ASKING):
        tried()
    elif not any(isinstance(finder, _Before) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Before())


def complaint() -> str:
    """What is to be told of a broken one, with the mend; nothing if there is nothing to tell."""
    state, why = tried()
    if state != "broken":
        return ""
    return f"torchvision is there and cannot be imported ({why}); it is passed over; {MEND}"


@contextmanager
def standing_in() -> Iterator[None]:
    """For as long as spandrel is imported: its three functions, where there is no torchvision."""
    if tried()[0] == "works":
        yield
        return
    held = {name: sys.modules[name] for name in NAMES if name in sys.modules}
    modules = [ModuleType(name) for name in NAMES]
    for part in (normalize, rotate, InterpolationMode):
        setattr(modules[-1], part.__name__, part)
    sys.modules.update(zip(NAMES, modules, strict=True))
    try:
        yield
    finally:  # others ask whether torchvision is there, and are to hear the truth
        for name in NAMES:
            del sys.modules[name]
        sys.modules.update(held)


class InterpolationMode(enum.Enum):
    """As torchvision's, of which rotate knows these two."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"


def normalize(
    tensor: "Tensor", mean: list[float], std: list[float], inplace: bool = False
) -> "Tensor":
    """(..., C, H, W) less the mean, over the standard deviation, channel by channel."""
    made = (tensor - tensor.new_tensor(mean)[:, None, None]) / tensor.new_tensor(std)[:, None, None]
    return tensor.copy_(made) if inplace else made


def rotate(
    img: "Tensor",
    angle: float,
    interpolation: InterpolationMode = InterpolationMode.NEAREST,
) -> "Tensor":
    """(B, C, H, W) turned by degrees, about its centre and against the clock; black round it."""
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
