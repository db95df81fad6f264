"""The first stage of holes: a convolutional filler whose answer stands in them before any walk."""

import itertools

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn


class Block(nn.Module):
    """Two convolutions beside what they are added to (He et al. 2016), no normalisation."""

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation)
        self.last = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.last.weight)  # a deep network begins as a shallow one
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.last(F.silu(self.first(F.silu(x))))


class Filler(ModelMixin, ConfigMixin):
    """A U-Net over pixels that continues a picture into its holes.

    A hole of a few pixels has one likely content, which a regression finds better than a walk from
    noise; a large one gets a plausible start. Dilated layers at the coarsest level look past a
    hole's rim (as Iizuka et al. 2017 do).

    channels  of each level, the finest first; each level is half as large as the one before it,
              and the first is half as large as the picture.
    blocks    residual blocks of the coarsest level; the others have one on each way.
    """

    @register_to_config
    def __init__(self, channels: tuple[int, ...] = (48, 80, 112, 144), blocks: int = 6) -> None:
        super().__init__()
        self.enter = nn.Conv2d(4 * 4, channels[0], 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.seen, self.made = nn.ModuleList(), nn.ModuleList()
        for fine, coarse in itertools.pairwise(channels):
            self.seen.append(Block(fine))
            self.down.append(nn.Conv2d(fine, coarse, 4, 2, 1))
            self.up.append(nn.Conv2d(coarse, fine, 3, padding=1))
            self.made.append(Block(fine))
        self.middle = nn.Sequential(*(Block(channels[-1], 2 ** (n % 4)) for n in range(blocks)))
        self.leave = nn.Conv2d(channels[0], 3 * 4, 3, padding=1)

    @property
    def step(self) -> int:
        """What both sides of a picture must be multiples of."""
        return 2 ** len(self.config["channels"])

    def forward(self, rgb: Tensor, hole: Tensor) -> Tensor:
        """rgb (B, 3, H, W) in [0, 1], hole (B, 1, H, W) 1 in it -> rgb, outside the hole as it was.

        H and W are multiples of `step`. Not clamped.
        """
        known = torch.where(hole > 0, 0.5, rgb)
        x = self.enter(F.pixel_unshuffle(torch.cat([known - 0.5, hole], 1), 2))
        kept = []
        for see, shrink in zip(self.seen, self.down, strict=True):
            x = see(x)
            kept.append(x)
            x = shrink(F.silu(x))
        x = self.middle(x)
        for grow, make, beside in zip(*map(reversed, (self.up, self.made, kept)), strict=True):
            x = make(beside + F.interpolate(grow(F.silu(x)), scale_factor=2.0))
        made = 0.5 + F.pixel_shuffle(self.leave(F.silu(x)), 2)
        return torch.where(hole > 0, made.to(rgb.dtype), rgb)
