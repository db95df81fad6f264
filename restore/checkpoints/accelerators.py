"""Which devices this torch computes on."""

import torch

from restore.errors import ModelError


def pick() -> str:
    """The best there is."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def find(device: str) -> torch.device:
    """The device of that name, or the best there is for `auto`. Raises ModelError."""
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
