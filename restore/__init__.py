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

__all__ = ["Cancelled", "RestoreError", "Restorer", "load"]


def __getattr__(name: str) -> object:
    if name in ("Restorer", "load"):  # not before they are asked for: torch takes seconds
        return getattr(import_module("restore.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
