"""How a degraded picture gets the size of the good one before it is encoded."""

import hashlib
from collections.abc import Callable
from copy import deepcopy

import numpy as np
from PIL import Image

from restore.diffusion.compact import FirstStage
from restore.diffusion.stack import Stack
from restore.images.picture import Picture
from restore.tasks.first_stage import restored

Enlarge = Callable[[np.ndarray, int], np.ndarray]
"""(uint8 (h, w, 3), side) -> uint8 (side, side, 3)"""


def bicubic(low: np.ndarray, side: int) -> np.ndarray:
    """Enlarge uint8 (h, w, 3) to (side, side, 3) by interpolation."""
    return np.array(Image.fromarray(low).resize((side, side), Image.Resampling.BICUBIC))


class ByFirstStage:
    """Enlarges by a first stage, on the CPU, where worker processes can.

    Args:
        stage: A copy is used.
        fidelity: 0 rich to 1 faithful.
    """

    def __init__(self, stage: FirstStage, fidelity: float):
        self.stage, self.fidelity = deepcopy(stage).to("cpu").float(), fidelity

    def __call__(self, low: np.ndarray, side: int) -> np.ndarray:
        return restored(Picture(low), (side, side), self.stage, self.fidelity).pixels


def enlarger(stack: Stack) -> Enlarge:
    """What makes the conditioning that this stack samples over."""
    if not isinstance(stack.restorer, FirstStage):
        return bicubic
    return ByFirstStage(stack.restorer, stack.fidelity)


def digest(stack: Stack) -> str:
    """Digest of what `enlarger` computes with; empty for interpolation."""
    if not isinstance(stack.restorer, FirstStage):
        return ""
    found = hashlib.sha256(str(stack.fidelity).encode())
    for name, tensor in stack.restorer.state_dict().items():
        found.update(name.encode() + tensor.float().cpu().numpy().tobytes())
    return found.hexdigest()
