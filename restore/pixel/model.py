"""A pixel upscaler or restorer: a network from rgb to rgb, of any architecture."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from restore.errors import NonFiniteError
from restore.pixel.tail import Tail
from restore.pixel.windows import PixelWindows

LARGEST, WIDE = 640, 512  # strides of a convolutional network's windows, and of others'
SMALLEST = 64
ALIGNED = 32  # windows begin at multiples, which suits strides and most attention windows
FAR = 64  # context with which a deep convolutional network is within 1/255 of the exact result
NEAR = 16  # context for attention and the like, which no context makes exact
BLEND = 8  # px blended on each side of a border, if windows are not exact
BUDGET = 2e9  # bytes that a layer's input and output may take together
LAYERS = 1.3  # times the largest layer, measured: other tensors live beside it
DENSE = 3  # the same for an ESRGAN's trunk, whose blocks hold all their layers
BLOCK, BAND = 16, 64  # pixels: length of a probe's NaN block, and width of its band
CONVOLUTIONAL = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.PReLU)


@dataclass
class PixelModel:
    """A network, and how pictures are cut into windows for it.

    Attributes:
        network: rgb (1, 3, h, w) in [0, 1] -> rgb (1, 3, scale h, scale w), any h and w.
        scale: How much it enlarges; 1 for a restorer.
        supports: The precisions in which it computes well.
        name: Its name in messages.
        digest: Tells weights apart in reports.
        about: For `restore models info`: architecture, licence and so on.
        wants_whole: Whether its authors advise against windows.
        engine: What computes the network: torch or onnx.
    """

    network: nn.Module
    scale: int
    supports: tuple[torch.dtype, ...] = (torch.float32,)
    name: str = "this model"
    digest: str = ""
    about: dict[str, str] = field(default_factory=dict)
    wants_whole: bool = False
    engine: str = "torch"

    def __call__(self, rgb: Tensor) -> Tensor:
        """Run the network, rgb (1, 3, h, w) -> rgb (1, 3, scale h, scale w), float32 in [0, 1].

        Raises:
            NonFiniteError: If it produces NaN or infinity.
        """
        made = self.network(rgb.to(self.device, self.dtype)).float()
        if not torch.isfinite(made).all():
            raise NonFiniteError(f"{self.name} left the finite numbers")
        return made.clamp(0, 1)

    @property
    def parts(self) -> list[nn.Module]:
        """All modules that hold weights."""
        return [self.network]

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.network.parameters()).dtype

    @property
    def is_half(self) -> bool:
        return self.dtype != torch.float32

    @contextmanager
    def in_fp32(self) -> Iterator[None]:
        """Convert the weights to fp32 for the block; converting them back loses nothing."""
        half = self.dtype
        self.network.float()
        try:
            yield
        finally:
            self.network.to(half)

    @contextmanager
    def on_cpu(self) -> Iterator[None]:
        """Move the network to the CPU for the block."""
        home = self.device
        self.network.cpu()
        try:
            yield
        finally:
            self.network.to(home)

    @property
    def is_convolutional(self) -> bool:
        """Whether all weights are convolutions, so that far pixels have little influence."""
        holders = (part for part in self.network.modules() if part._parameters)
        return all(isinstance(part, CONVOLUTIONAL) for part in holders)

    @cached_property
    def reach(self) -> int:
        """How many pixels to each side an output pixel depends on; FAR + 1 if more than FAR.

        It is measured: NaN in the input spreads to exactly the output pixels that depend on it.
        """
        with self._probed() as device:
            return max(self._spread(device, across) for across in (True, False))

    @cached_property
    def bytes_a_pixel(self) -> int:
        """Bytes of the largest layer's input and output per input pixel, in fp32.

        Layers that run strip by strip do not count.
        """
        largest = 0

        def seen(layer: nn.Module, given: object, made: object) -> None:
            nonlocal largest
            held = [one for one in (*_tensors(given), *_tensors(made))]
            largest = max(largest, sum(one.numel() for one in held))

        parts = set(self.network.modules()) - self._by_strips()
        leaves = [part for part in parts if not list(part.children())]
        hooks = [part.register_forward_hook(seen) for part in leaves]
        try:
            with self._probed() as device:
                self.network(torch.zeros(1, 3, BAND, BAND, device=device))
        finally:
            for hook in hooks:
                hook.remove()
        return math.ceil(4 * largest / BAND**2)

    @cached_property
    def windows(self) -> PixelWindows:
        """The grid of its windows. It depends on the network, never on the machine.

        If the reach is at most FAR, the windows overlap by it and are exact. Deeper convolutional
        networks overlap by FAR and blend. Others overlap less, because no overlap makes them exact.
        """
        if self.reach <= FAR:
            margin, ramp = -(-self.reach // BLOCK) * BLOCK, 0
        elif self.is_convolutional:
            margin, ramp = FAR, BLEND
        else:
            margin, ramp = NEAR, 2 * BLEND
        return PixelWindows(self._inner(margin + ramp), margin, ramp)

    def windows_for(self, size: tuple[int, int]) -> PixelWindows:
        """Return the grid for a picture of (height, width).

        A picture no larger than a window is one, and the reach is then not measured.
        """
        halo = FAR + BLEND
        is_small = math.prod(size) <= (self._inner(halo) + 2 * halo) ** 2
        return PixelWindows(max(size), 0) if is_small else self.windows

    def _inner(self, halo: int) -> int:
        side = math.isqrt(int(BUDGET / max(1, self.bytes_a_pixel))) - 2 * halo
        largest = LARGEST if self.is_convolutional else WIDE
        return min(largest, max(SMALLEST, side // ALIGNED * ALIGNED))

    def window_bytes(self, size: tuple[int, int]) -> float:
        """Return about what the network holds for one window of a picture of (height, width)."""
        windows = self.windows_for(size)
        sides = (min(length, windows.inner + 2 * windows.halo) for length in size)
        layers = DENSE if self._by_strips() else LAYERS
        return layers * self.bytes_a_pixel * math.prod(sides)

    def _by_strips(self) -> set[nn.Module]:
        """The layers that do not hold a whole window."""
        tails = (part for part in self.network.modules() if isinstance(part, Tail))
        return {layer for tail in tails if not tail.is_whole for layer in tail}

    @contextmanager
    def _probed(self) -> Iterator[torch.device]:
        """Prepare measurements for the block: fp32, no gradients."""
        with torch.inference_mode():
            if not self.is_half:
                yield self.device
                return
            with self.in_fp32():
                yield self.device

    def _spread(self, device: torch.device, across: bool) -> int:
        """Measure how far a block of NaN spreads along one side."""
        length = BLOCK + 2 * (FAR + BLOCK)
        first = FAR + BLOCK
        rgb = torch.full((1, 3, BAND, length), 0.5, device=device)
        rgb[..., first : first + BLOCK] = math.nan
        made = self.network(rgb if across else rgb.mT)
        made = made if across else made.mT
        touched = made.isnan().any(1).any(1)[0].nonzero().flatten()
        if not len(touched):  # a comparison may drop NaN: the reach is unknown
            return FAR + 1
        before = first - int(touched[0]) / self.scale
        after = (int(touched[-1]) + 1) / self.scale - (first + BLOCK)
        return min(FAR + 1, max(0, math.ceil(max(before, after))))


def _tensors(given: object) -> Iterator[Tensor]:
    if isinstance(given, Tensor):
        yield given
    elif isinstance(given, tuple | list):
        for one in given:
            yield from _tensors(one)
