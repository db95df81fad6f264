"""Devices that this torch can use."""

import torch

from restore.errors import ModelError


def pick() -> str:
    """Return the best device: cuda, mps or cpu."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def find(device: str) -> torch.device:
    """Return a device by name, or the best one for `auto`. Raises ModelError if it is missing."""
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    name = pick() if device == "auto" else device
    if not there.get(name.split(":")[0], False):
        found = ", ".join(name for name, is_there in there.items() if is_there)
        raise ModelError(f"{device}: no such device for this torch; there are {found}")
    return torch.device(name)
