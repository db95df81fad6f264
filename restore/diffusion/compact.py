"""The networks of a first stage in plain torch, and interpolation between two trainings.

restorer.py has the same networks with diffusers' base classes, which load and save them but take
seconds to import.
"""

from copy import deepcopy
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore.diffusion.lazy_stack import SCALE


class Network(nn.Module):
    """A convolutional network: a body, and a `forward` that uses its output.

    Attributes:
        body: The convolutions.
        ends: Channels of the body's input and output.
    """

    body: nn.Sequential
    ends: tuple[int, int]

    def fill(self, channels: int, layers: int) -> None:
        """Make a body with random weights; see `chain`."""
        self.body = chain(self.ends[0], channels, layers, self.ends[1])

    @property
    def halo(self) -> int:
        """How many input pixels to each side an output pixel depends on."""
        raise NotImplementedError

    def answer(self, *rgb: np.ndarray) -> np.ndarray:
        """As forward, but with arrays, on whatever device the weights are."""
        weight = self.body[0].weight
        given = [torch.from_numpy(one).to(weight.device) for one in rgb]
        given = [one.contiguous(memory_format=torch.channels_last) for one in given]
        with torch.inference_mode():
            return self(*given).float().cpu().numpy()


class Enlarging(Network):
    """SRVGGNetCompact for x4 (Wang et al. 2021, Real-ESRGAN)."""

    ends = 3, 3 * SCALE**2

    @property
    def halo(self) -> int:
        return _layers(self.body) + 2

    def forward(self, rgb: Tensor) -> Tensor:
        """rgb (B, 3, H, W) in [0, 1] -> (B, 3, 4 H, 4 W), not clamped."""
        added = F.pixel_shuffle(self.body(rgb), SCALE)
        return added + F.interpolate(rgb, scale_factor=float(SCALE), mode="nearest")


class Fusing(Network):
    """Corrects a restored picture by the picture it was restored from at half the size."""

    ends = 2 * 3 * 4, 3 * 4

    @property
    def halo(self) -> int:
        """How many pixels to each side an output pixel depends on; even."""
        return 2 * (_layers(self.body) + 2)

    def forward(self, rgb: Tensor, restored: Tensor) -> Tensor:
        """Both (B, 3, H, W) in [0, 1], H and W even -> (B, 3, H, W), not clamped."""
        seen = F.pixel_unshuffle(torch.cat([rgb, restored], 1), 2)
        return restored + F.pixel_shuffle(self.body(seen), 2)


def chain(first: int, channels: int, layers: int, last: int) -> nn.Sequential:
    """Stack 3x3 convolutions, with a PReLU after each but the last.

    Args:
        first: Channels of the input.
        channels: Channels of all layers but the last.
        layers: How many convolutions there are between the first and the last.
        last: Channels of the output.
    """
    body: list[nn.Module] = [nn.Conv2d(first, channels, 3, padding=1), nn.PReLU(channels)]
    for _ in range(layers):
        body += [nn.Conv2d(channels, channels, 3, padding=1), nn.PReLU(channels)]
    body.append(nn.Conv2d(channels, last, 3, padding=1))
    return nn.Sequential(*body)


def _layers(body: nn.Sequential) -> int:
    return (len(body) - 3) // 2


class FirstStage(nn.Module):
    """A restorer in two trainings, with every mixture of them, and a fusion network.

    The weights are interpolated (Wang et al. 2018, ESRGAN). The faithful training started from the
    rich one, so the mixtures restore too.

    Args:
        rich: Sharp, with plausible texture.
        faithful: Close to the original on average. None: there is only the rich one.
        fusion: For results below twice the input's size. None: they are not fused.
    """

    def __init__(self, rich: Any, faithful: Any = None, fusion: Any = None):
        super().__init__()
        self.rich, self.faithful, self.fusion = rich, faithful, fusion
        self._mixed: tuple[float, torch.device, Any] | None = None

    def at(self, fidelity: float) -> Any:
        """Return the restorer for a fidelity from 0, the rich one, to 1, the faithful one."""
        if self.faithful is None or fidelity == 0:
            return self.rich
        if fidelity == 1:
            return self.faithful
        device = next(self.rich.parameters()).device
        if self._mixed is None or self._mixed[:2] != (fidelity, device):
            ends = self.rich.state_dict(), self.faithful.state_dict()
            weights = {name: torch.lerp(ends[0][name], ends[1][name], fidelity) for name in ends[0]}
            made = deepcopy(self.rich)
            made.load_state_dict(weights)
            object.__setattr__(self, "_mixed", (fidelity, device, made))  # not as a submodule
        assert self._mixed is not None
        return self._mixed[2]
