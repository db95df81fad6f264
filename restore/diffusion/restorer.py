"""The first stage: a compact convolutional restorer whose answer the walk starts from.

Its answer is a function of the picture alone, so it is sharp where a walk of one step averages;
what follows only mends it (Lin et al. 2023, DiffBIR, does the same with a larger network).
"""

from copy import deepcopy

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

SCALE = 4


class Restorer(ModelMixin, ConfigMixin):
    """Real-ESRGAN's SRVGGNetCompact of x4 (Wang et al. 2021), its weights by basicsr's names.

    channels  of every layer but the last.
    layers    convolutions between the first and the last.
    """

    @register_to_config
    def __init__(self, channels: int = 64, layers: int = 32) -> None:
        super().__init__()
        body: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1), nn.PReLU(channels)]
        for _ in range(layers):
            body += [nn.Conv2d(channels, channels, 3, padding=1), nn.PReLU(channels)]
        body.append(nn.Conv2d(channels, 3 * SCALE**2, 3, padding=1))
        self.body = nn.Sequential(*body)

    @property
    def halo(self) -> int:
        """How many pixels of the input a pixel sees to each side."""
        return self.config["layers"] + 2

    def forward(self, rgb: Tensor) -> Tensor:
        """rgb (B, 3, H, W) in [0, 1] -> (B, 3, 4 H, 4 W), not clamped."""
        added = F.pixel_shuffle(self.body(rgb), SCALE)
        return added + F.interpolate(rgb, scale_factor=float(SCALE), mode="nearest")


class Fusion(ModelMixin, ConfigMixin):
    """Gives a restored picture back what halving the input lost, where the input can be trusted.

    At its own size a picture is halved, restored by x4 and halved again: noise goes at a sixteenth
    of the price of x4 at full size, and with it detail that was clean. This sees both.

    channels  of its layers, which compute at half the size.
    layers    convolutions between the first and the last.
    """

    @register_to_config
    def __init__(self, channels: int = 48, layers: int = 4) -> None:
        super().__init__()
        body: list[nn.Module] = [nn.Conv2d(2 * 3 * 4, channels, 3, padding=1), nn.PReLU(channels)]
        for _ in range(layers):
            body += [nn.Conv2d(channels, channels, 3, padding=1), nn.PReLU(channels)]
        body.append(nn.Conv2d(channels, 3 * 4, 3, padding=1))
        nn.init.zeros_(body[-1].weight)  # it begins as the restored picture
        nn.init.zeros_(body[-1].bias)
        self.body = nn.Sequential(*body)

    @property
    def halo(self) -> int:
        """How many pixels a pixel sees to each side, even."""
        return 2 * (self.config["layers"] + 2)

    def forward(self, rgb: Tensor, restored: Tensor) -> Tensor:
        """Both (B, 3, H, W) in [0, 1], H and W even -> (B, 3, H, W), not clamped."""
        seen = F.pixel_unshuffle(torch.cat([rgb, restored], 1), 2)
        return restored + F.pixel_shuffle(self.body(seen), 2)


class FirstStage(nn.Module):
    """A restorer in two trainings, and every point between them at no cost; a fusion beside them.

    The weights are interpolated (Wang et al. 2018, ESRGAN): the faithful one was tuned from the
    rich one, so that what lies between them restores too.

    rich      sharp, with the texture that looks right.
    faithful  close to the truth on average; None: there is the rich one alone.
    fusion    for results below twice the input's size; None: they go without.
    """

    def __init__(
        self, rich: Restorer, faithful: Restorer | None = None, fusion: Fusion | None = None
    ):
        super().__init__()
        self.rich, self.faithful, self.fusion = rich, faithful, fusion
        self._made: tuple[float, torch.device, Restorer] | None = None

    def at(self, fidelity: float) -> Restorer:
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
