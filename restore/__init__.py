"""Enlarge, restore and fill pictures with one latent diffusion stack.

import restore

nano = restore.load("nano")
large = nano.upscale(image, scale=4)  # Pillow, numpy or torch: the same kind comes back
"""

from importlib import import_module
from typing import TYPE_CHECKING

from restore.errors import CancelledError as Cancelled
from restore.errors import RestoreError

if TYPE_CHECKING:
    from restore.api import Restorer, load
    from restore.pipelines.restoration import RestorationPipeline

__all__ = ["Cancelled", "RestorationPipeline", "RestoreError", "Restorer", "load"]
LATE = {  # imported at first use, because torch takes seconds
    "Restorer": "restore.api",
    "load": "restore.api",
    "RestorationPipeline": "restore.pipelines.restoration",
}


def __getattr__(name: str) -> object:
    if name in LATE:
        return getattr(import_module(LATE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
