"""Perceptual losses: the distance of two pictures in the features of a classifier."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from restore.config import Options
from restore.diffusion import torchvision
from restore.errors import ConfigError
from restore.metrics.perceptual import extract_features

Distance = Callable[[Tensor, Tensor], Tensor]
"""(made, truth), each rgb (B, 3, H, W) -> a scalar"""

BACKBONES = {  # torchvision's names for what LPIPS is built on
    "vgg": "vgg16-397923af.pth",
    "alex": "alexnet-owt-7be5be79.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
}


class LpipsOptions(Options):
    """LPIPS 0.1 (Zhang et al. 2018), of the package of that name."""

    kind: Literal["lpips"] = "lpips"
    net: Literal["vgg", "alex", "squeeze"] = "vgg"
    """Backbone of LPIPS."""
    weight: float = Field(1.0, gt=0)
    """Weight of the loss."""


class SqueezeNetOptions(Options):
    """LPIPS's formula over SqueezeNet 1.1 with equal weights of the channels, as the metric `pd`
    has it.

    The metric flatters a model that was trained by this loss.
    """

    kind: Literal["squeezenet"] = "squeezenet"
    weight: float = Field(0.02, gt=0)
    """Weight of the loss."""


PerceptualOptions = Annotated[LpipsOptions | SqueezeNetOptions, Field(discriminator="kind")]


@cache
def distance(options: LpipsOptions | SqueezeNetOptions, device: torch.device) -> Distance:
    """The distance that the options name, with a frozen network on the device; nothing is
    downloaded.

    Args:
        options: Which distance.
        device: Where its network is.

    Raises:
        ConfigError: If a package or its weights are missing.
    """
    return lpips(options.net, device) if isinstance(options, LpipsOptions) else squeezenet


def squeezenet(result: Tensor, truth: Tensor) -> Tensor:
    with torch.autocast(result.device.type, enabled=False):  # bf16 has no room for 255 levels
        layers = zip(
            extract_features(result.float() * 255),
            extract_features(truth.float() * 255),
            strict=True,
        )
        return torch.stack([(unit(a) - unit(b)).square().sum(1).mean() for a, b in layers]).sum()


def unit(x: Tensor) -> Tensor:
    """Feature vectors (B, C, h, w) of length one; smooth where they vanish."""
    return x * torch.rsqrt(x.square().sum(1, keepdim=True) + 1e-6)


def lpips(net: str, device: torch.device) -> Distance:
    try:
        import lpips as package
    except (ImportError, RuntimeError) as error:  # a torchvision of another build fails so
        own = f"pip install lpips torchvision, {torchvision.FITTING}"
        mend = f"{torchvision.complaint() or own}; or take perceptual.kind: squeezenet"
        raise ConfigError(f"LPIPS cannot be imported ({error}): {mend}") from error
    path = Path(torch.hub.get_dir()) / "checkpoints" / BACKBONES[net]
    if not path.is_file():
        url = f"https://download.pytorch.org/models/{path.name}"
        raise ConfigError(f"LPIPS needs torchvision's weights and fetches nothing: {url} at {path}")
    network = package.LPIPS(net=net, verbose=False).requires_grad_(False).eval().to(device)
    return lambda made, truth: network(made * 2 - 1, truth * 2 - 1).mean()
