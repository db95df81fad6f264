"""The networks of a first stage in plain torch, and their weights between two trainings.

diffusers' base classes, which load and save them, take seconds to import: see restorer.py.
"""

from copy import deepcopy
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore.diffusion.light import SCALE


class Network(nn.Module):
    """A body of convolutions, and what is done with its answer."""

    body: nn.Sequential
    ends: tuple[int, int]  # channels that its body takes and gives

    def fill(self, channels: int, layers: int) -> None:
        """Give it a body of random weights; see `chain`."""
        self.body = chain(self.ends[0], channels, layers, self.ends[1])

    @property
    def halo(self) -> int:
        """How many pixels of the input a pixel sees to each side."""
        raise NotImplementedError

    def answer(self, *rgb: np.ndarray) -> np.ndarray:
        """As forward, arrays for tensors, wherever the weights are."""
        weight = self.body[0].weight
        given = [torch.from_numpy(one).to(weight.device) for one in rgb]
        given = [one.contiguous(memory_format=torch.channels_last) for one in given]
        with torch.inference_mode():
            return self(*given).float().cpu().numpy()


class Enlarging(Network):
    """What SRVGGNetCompact of x4 does (Wang et al. 2021, Real-ESRGAN)."""

    ends = 3, 3 * SCALE**2

    @property
    def halo(self) -> int:
        return _layers(self.body) + 2

    def forward(self, rgb: Tensor) -> Tensor:
        """rgb (B, 3, H, W) in [0, 1] -> (B, 3, 4 H, 4 W), not clamped."""
        added = F.pixel_shuffle(self.body(rgb), SCALE)
        return added + F.interpolate(rgb, scale_factor=float(SCALE), mode="nearest")


class Fusing(Network):
    """Sees a picture and its restoration at half the size, and mends the latter."""

    ends = 2 * 3 * 4, 3 * 4

    @property
    def halo(self) -> int:
        """How many pixels a pixel sees to each side, even."""
        return 2 * (_layers(self.body) + 2)

    def forward(self, rgb: Tensor, restored: Tensor) -> Tensor:
        """Both (B, 3, H, W) in [0, 1], H and W even -> (B, 3, H, W), not clamped."""
        seen = F.pixel_unshuffle(torch.cat([rgb, restored], 1), 2)
        return restored + F.pixel_shuffle(self.body(seen), 2)


def chain(first: int, channels: int, layers: int, last: int) -> nn.Sequential:
    """Convolutions with a PReLU after each but the last; `layers` between the first and that."""
    body: list[nn.Module] = [nn.Conv2d(first, channels, 3, padding=1), nn.PReLU(channels)]
    for _ in range(layers):
        body += [nn.Conv2d(channels, channels, 3, padding=1), nn.PReLU(channels)]
    body.append(nn.Conv2d(channels, last, 3, padding=1))
    return nn.Sequential(*body)


def _layers(body: nn.Sequential) -> int:
    return (len(body) - 3) // 2


class FirstStage(nn.Module):
    """A restorer in two trainings, and every point between them at no cost; a fusion beside them.

    The weights are interpolated (Wang et al. 2018, ESRGAN): the faithful one was tuned from the
    rich one, so that what lies between them restores too.

    rich      sharp, with the texture that looks right.
    faithful  close to the truth on average; None: there is the rich one alone.
    fusion    for results below twice the input's size; None: they go without.
    """

    def __init__(self, rich: Any, faithful: Any = None, fusion: Any = None):
        super().__init__()
        self.rich, self.faithful, self.fusion = rich, faithful, fusion
        self._made: tuple[float, torch.device, Any] | None = None

    def at(self, fidelity: float) -> Any:
        """The restorer at a fidelity from 0, the rich one, to 1, the faithful one."""
        if self.faithful is None or fidelity == 0:
            return self.rich
        if fidelity == 1:
            return self.faithful
        device = next(self.rich.parameters()).device
        if self._made is None or self._made[:2] != (fidelity, device):
            ends = self.rich.state_dict(), self.faithful.state_dict()
            weights = {name: torch.lerp(ends[0][name], ends[1][name], fidelity) for name in ends[0]}
            made = deepcopy(self.rich)
            made.load_state_dict(weights)
            object.__setattr__(self, "_made", (fidelity, device, made))  # no part of the weights
        assert self._made is not None
        return self._made[2]
