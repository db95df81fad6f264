"""The first stage: a compact convolutional restorer whose answer the walk starts from.

Its answer is a function of the picture alone, so it is sharp where a walk of one step averages;
what follows only mends it (Lin et al. 2023, DiffBIR, does the same with a larger network).
"""

from collections.abc import Mapping
from copy import deepcopy

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

STEP = 4  # pixels of the result to one of the network's own, on a side


class Restorer(ModelMixin, ConfigMixin):
    """Real-ESRGAN's SRVGGNetCompact (Wang et al. 2021) for several scales, with one body.

    Every scale computes at a quarter of the result's size: what is to keep its size, or double
    it, is unshuffled first, so that x1 costs what x4 does for the same result. A scale has a first
    and a last layer of its own.

    channels  of the body.
    layers    convolutions in the body.
    scales    what it can enlarge by: 4, 2 and 1.
    """

    @register_to_config
    def __init__(
        self, channels: int = 64, layers: int = 32, scales: tuple[int, ...] = (4, 2, 1)
    ) -> None:
        super().__init__()
        inputs = {scale: 3 * (STEP // scale) ** 2 for scale in scales}
        self.heads = nn.ModuleDict(
            {f"x{scale}": nn.Conv2d(inputs[scale], channels, 3, padding=1) for scale in scales}
        )
        body: list[nn.Module] = [nn.PReLU(channels)]
        for _ in range(layers):
            body += [nn.Conv2d(channels, channels, 3, padding=1), nn.PReLU(channels)]
        self.body = nn.Sequential(*body)
        last = 3 * STEP**2
        self.tails = nn.ModuleDict(
            {f"x{scale}": nn.Conv2d(channels, last, 3, padding=1) for scale in scales}
        )

    @property
    def scales(self) -> tuple[int, ...]:
        """From the largest down."""
        return tuple(sorted(self.config["scales"], reverse=True))

    @property
    def halo(self) -> int:
        """How far a pixel of the network's own sees to each side."""
        return self.config["layers"] + 2

    def forward(self, rgb: Tensor, scale: int) -> Tensor:
        """rgb (B, 3, H, W) in [0, 1] -> (B, 3, scale * H, scale * W), not clamped.

        H and W must be multiples of 4 / scale.
        """
        return self.answer(self.body(self.features(rgb, scale)), rgb, scale)

    def features(self, rgb: Tensor, scale: int) -> Tensor:
        """What the body reads, (B, channels, scale * H / 4, scale * W / 4)."""
        return self.heads[f"x{scale}"](F.pixel_unshuffle(rgb, STEP // scale))

    def answer(self, features: Tensor, rgb: Tensor, scale: int) -> Tensor:
        """The picture that the body's answer adds its detail to."""
        added = F.pixel_shuffle(self.tails[f"x{scale}"](features), STEP)
        return added + F.interpolate(rgb, scale_factor=float(scale), mode="nearest")

    @torch.no_grad()
    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Take over a published SRVGGNetCompact of x4, by basicsr's names, for every scale.

        The other scales' first layers see the picture made smaller by a box, as if it were x4;
        their last layers begin at zero, so that they give the picture back.
        Raises ValueError if its shape is another.
        """
        count = len(self.body)
        names = {f"body.{n}": f"body.{n + 1}" for n in range(count)}
        names |= {"heads.x4": "body.0", "tails.x4": f"body.{count + 1}"}
        state = self.state_dict()
        for name in state:
            part, _, kind = name.rpartition(".")
            if part not in names:
                continue
            given = weights.get(f"{names[part]}.{kind}")
            if given is None or given.shape != state[name].shape:
                raise ValueError(f"{names[part]}.{kind} is missing or of another shape")
            state[name].copy_(given)
        for scale in set(self.scales) - {STEP}:
            shares = (STEP // scale) ** 2
            head, tail = self.heads[f"x{scale}"], self.tails[f"x{scale}"]
            head.weight.copy_(state["heads.x4.weight"].repeat_interleave(shares, 1) / shares)
            head.bias.copy_(state["heads.x4.bias"])
            nn.init.zeros_(tail.weight)
            nn.init.zeros_(tail.bias)


class FirstStage(nn.Module):
    """A restorer in two trainings, and every point between them, at no cost.

    The weights are interpolated (Wang et al. 2018, ESRGAN): the faithful one was tuned from the
    rich one, so that what lies between them restores too.

    rich      sharp, with the texture that looks right.
    faithful  close to the truth on average; None: there is the rich one alone.
    """

    def __init__(self, rich: Restorer, faithful: Restorer | None = None):
        super().__init__()
        self.rich, self.faithful = rich, faithful
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
        return self._made[2]
