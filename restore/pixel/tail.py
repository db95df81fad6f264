"""The last layers of an ESRGAN, strip by strip."""

import torch
from torch import Tensor, nn

from restore.diffusion.compact import Chain

CACHED, VALUES = 2**22, 2**28  # of the result's layers for a strip, on a CPU and elsewhere
ROWS = 4  # of a strip, at least: in the first, each layer is a row behind
POINTWISE = nn.LeakyReLU, nn.PReLU, nn.ReLU, nn.PixelShuffle, nn.Upsample


class Tail(Chain):
    """The layers that enlarge: at the result's size, they would hold most of a network's memory.

    Strip by strip they hold little, so windows can be larger, overlap less and cost less.

    Attributes:
        scale: How much the layers enlarge.
        is_whole: Whether they take a window at once, as an exported network does.
    """

    scale = 1
    is_whole = False

    def forward(self, input: Tensor) -> Tensor:
        """Features (B, C, h, w) -> (B, 3, scale h, scale w)."""
        height, width = input.shape[-2:]
        widest = max(one.out_channels for one in self if isinstance(one, nn.Conv2d))
        values = CACHED if input.device.type == "cpu" else VALUES
        rows = max(ROWS, values // (width * widest * self.scale**2))
        if self.is_whole or rows >= height or torch.is_grad_enabled():
            return super().forward(input)
        made, kept = [], []
        for top in range(0, height, rows):
            strip = input[..., top : top + rows, :]
            made.append(self.advance(strip, kept, not top, top + rows >= height))
        return torch.cat(made, 2)


def split(network: nn.Sequential, scale: int) -> nn.Sequential:
    """Split an ESRGAN into its trunk and its tail; as it is if its tail has other layers.

    Args:
        network: The first convolution, the trunk, and the layers that enlarge.
        scale: How much these enlarge.
    """
    first, trunk, *last = network
    if not all(_is_plain(layer) for layer in last):
        return network
    tail = Tail(*last)
    tail.scale = scale
    return nn.Sequential(first, trunk, tail)


def _is_plain(layer: nn.Module) -> bool:
    if not isinstance(layer, nn.Conv2d):
        return isinstance(layer, POINTWISE) and getattr(layer, "mode", "nearest") == "nearest"
    return (
        layer.kernel_size == (3, 3)
        and layer.padding == (1, 1)
        and layer.stride == layer.dilation == (1, 1)
        and layer.padding_mode == "zeros"
        and layer.groups == 1
    )
