"""What a UNet's input channels mean, told from its config alone."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from restore.errors import ModelError

KEEP, RESTORE, REPAINT = 0.0, 0.5, 1.0
"""Values of the trust map: what the picture shows is kept, restored, or made anew."""


@dataclass(frozen=True)
class TrustLayout:
    """cat([x_t, trust, known]): C + 1 + C channels, the order of SD's inpainting UNet."""

    channels: int  # C, of the latent

    def unet_input(self, x: Tensor, known: Tensor, trust: Tensor) -> Tensor:
        """x, known (B, C, h, w) and trust (B, 1, h, w) -> (B, 2C + 1, h, w)"""
        return torch.cat([x, trust, known], 1)


def layout_of(unet_config: dict[str, Any], latent_channels: int, trust: bool) -> TrustLayout:
    """The layout of a UNet.

    trust  whether the model folder's stack.json claims the trust layout; the same channel count
           without the claim is Stable Diffusion's inpainting UNet, whose mask is 0 or 1 only.
    Raises ModelError if it is none that this version reads.
    """
    channels = unet_config["in_channels"]
    if trust and channels == 2 * latent_channels + 1:
        return TrustLayout(latent_channels)
    raise ModelError(
        f"a UNet of {channels} input channels over {latent_channels} latent channels is not the "
        f'trust layout, which has {2 * latent_channels + 1} and says "trust": true in stack.json; '
        "choose a model that `restore train` exported"
    )
