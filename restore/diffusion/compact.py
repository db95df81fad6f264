"""The networks of a first stage in plain torch, and interpolation between two trainings.

restorer.py has the same networks with diffusers' base classes, which load and save them but take
seconds to import.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore.diffusion.lazy_stack import SCALE

ROWS = 8  # of a strip, at least
CACHED, VALUES = 2**20, 2**26  # of a layer's output for a strip, on a CPU and elsewhere


class Chain(nn.Sequential):
    """3x3 convolutions with zero padding, and an activation after each but the last."""

    @property
    def reach(self) -> int:
        """How many rows and columns to each side an output pixel depends on."""
        return (len(self) + 1) // 2

    def cut(self, height: int, width: int) -> list[int]:
        """Cut a picture into strips for `advance`; returns their heights."""
        widest = max(one.out_channels for one in self if isinstance(one, nn.Conv2d))
        values = CACHED if self[0].weight.device.type == "cpu" else VALUES
        rows = max(ROWS, values // (width * widest))
        left = height - rows - self.reach  # the first is taller: each layer is a row behind
        if left <= 0:
            return [height]
        return [height - left, *[rows] * (left // rows), *([left % rows] if left % rows else [])]

    def advance(self, strip: Tensor, kept: list[Tensor], is_top: bool, is_bottom: bool) -> Tensor:
        """Take the next strip of a picture through all layers (Alwani et al. 2016, fused layers).

        Each layer keeps the last rows of its input, so nothing is computed twice.

        Args:
            strip: Rows (B, C, h, W) of the input.
            kept: Rows that the layers keep; an empty list at the start.
            is_top: Whether the strip is the first.
            is_bottom: Whether it is the last.

        Returns:
            The rows of the output that can be computed now: `reach` fewer of the first strip, and
            as many more of the last.
        """
        convolutions = 0
        for layer in self:
            if not isinstance(layer, nn.Conv2d):
                strip = layer(strip)
                continue
            if is_top:
                strip = F.pad(strip, (0, 0, 1, 0))
                kept.append(strip[:, :, -2:].clone())
            else:
                strip = torch.cat([kept[convolutions], strip], 2)
                kept[convolutions].copy_(strip[:, :, -2:])
            if is_bottom:
                strip = F.pad(strip, (0, 0, 0, 1))
            strip = F.conv2d(strip, layer.weight, layer.bias, padding=(0, 1))
            convolutions += 1
        return strip


class Network(nn.Module):
    """A convolutional network: a body, and a `forward` that uses its output.

    Attributes:
        body: The convolutions.
        ends: Channels of the body's input and output.
        precision: What `answer` and `by_strips` compute in. The weights stay in fp32.
    """

    body: Chain
    ends: tuple[int, int]
    precision = torch.float32

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
        with self._inferring():
            return self(*(_given(one, weight) for one in rgb)).float().cpu().numpy()

    @contextmanager
    def _inferring(self) -> Iterator[None]:
        device, is_reduced = self.body[0].weight.device.type, self.precision != torch.float32
        precision = self.precision if is_reduced else None
        with torch.inference_mode(), torch.autocast(device, precision, enabled=is_reduced):
            yield


class Enlarging(Network):
    """SRVGGNetCompact for x4 (Wang et al. 2021, Real-ESRGAN)."""

    ends = 3, 3 * SCALE**2

    @property
    def halo(self) -> int:
        return self.body.reach

    def forward(self, rgb: Tensor) -> Tensor:
        """rgb (B, 3, H, W) in [0, 1] -> (B, 3, 4 H, 4 W), not clamped."""
        return self._added(rgb, self.body(rgb))

    def cut(self, height: int, width: int) -> list[int]:
        """Cut a picture into strips for `by_strips`; returns their heights."""
        return self.body.cut(height, width)

    def by_strips(self, strips: Iterable[np.ndarray], height: int) -> Iterator[np.ndarray]:
        """As `answer`, strip by strip, so that the whole picture need not be in memory.

        Args:
            strips: Its rows, float32 (1, 3, h, W), as high as `cut` says.
            height: Of the picture.

        Yields:
            The next rows of the result, for each strip.
        """
        state: list[Tensor] = []
        rows, waiting = 0, None  # how many were read, and those without a result yet
        for strip in strips:
            with self._inferring():
                rgb = _given(strip, self.body[0].weight)
                is_top, rows = waiting is None, rows + rgb.shape[2]
                waiting = rgb if waiting is None else torch.cat([waiting, rgb], 2)
                change = self.body.advance(rgb, state, is_top, is_bottom=rows == height)
                ready, waiting = waiting.tensor_split([change.shape[2]], 2)
                result = self._added(ready, change).float().cpu().numpy()
            yield result

    def _added(self, rgb: Tensor, made: Tensor) -> Tensor:
        enlarged = F.interpolate(rgb, scale_factor=float(SCALE), mode="nearest")
        return F.pixel_shuffle(made, SCALE) + enlarged


class Fusing(Network):
    """Corrects a restored picture by the picture it was restored from at half the size."""

    ends = 2 * 3 * 4, 3 * 4

    @property
    def halo(self) -> int:
        """How many pixels to each side an output pixel depends on; even."""
        return 2 * self.body.reach

    def forward(self, rgb: Tensor, restored: Tensor) -> Tensor:
        """Both (B, 3, H, W) in [0, 1], H and W even -> (B, 3, H, W), not clamped."""
        seen = F.pixel_unshuffle(torch.cat([rgb, restored], 1), 2)
        return restored + F.pixel_shuffle(self.body(seen), 2)


def chain(first: int, channels: int, layers: int, last: int) -> Chain:
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
    return Chain(*body)


def _given(rgb: np.ndarray, like: Tensor) -> Tensor:
    tensor = torch.from_numpy(rgb).to(like.device)
    return tensor.contiguous(memory_format=torch.channels_last)


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

    @property
    def precision(self) -> torch.dtype:
        """What the networks compute in."""
        return self.rich.precision

    @precision.setter
    def precision(self, dtype: torch.dtype) -> None:
        for network in (self.rich, self.faithful, self.fusion):
            if network is not None:
                network.precision = dtype
        self._mixed = None

    @contextmanager
    def in_fp32(self) -> Iterator[None]:
        """Compute in fp32 in the block."""
        before, self.precision = self.precision, torch.float32
        try:
            yield
        finally:
            self.precision = before

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
