"""How unlike two pictures look to a network that learnt to name things: a loss for training."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from restore.config import Options
from restore.errors import ConfigError
from restore.parts import read_file

Distance = Callable[[Tensor, Tensor], Tensor]
"""(made, truth), each rgb (B, 3, H, W) -> a scalar"""

BACKBONES = {  # torchvision's names for what LPIPS is built on
    "vgg": "vgg16-397923af.pth",
    "alex": "alexnet-owt-7be5be79.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
}
IMAGENET = (
    (0.485, 0.456, 0.406),
    (0.229, 0.224, 0.225),
)  # mean and spread that torchvision takes off
CAFFE_MEAN = (123 / 255, 117 / 255, 104 / 255)  # of red, green and blue
PLACES = {0: 3, 1: 4, 2: 6, 3: 7, 4: 9, 5: 10, 6: 11, 7: 12}  # of the fires in torchvision's list
POOLED = (0, 2, 4)  # fires that read a picture of half the size


class LpipsOptions(Options):
    """LPIPS 0.1 (Zhang et al. 2018), of the package of that name."""

    kind: Literal["lpips"] = "lpips"
    net: Literal["vgg", "alex", "squeeze"] = "vgg"
    weight: float = Field(1.0, gt=0)


class SqueezeNetOptions(Options):
    """LPIPS's formula over SqueezeNet 1.1 with equal weights of the channels."""

    kind: Literal["squeezenet"] = "squeezenet"
    file: Path  # torchvision's or Caffe's weights, .safetensors or .pth
    weight: float = Field(0.25, gt=0)


PerceptualOptions = Annotated[LpipsOptions | SqueezeNetOptions, Field(discriminator="kind")]


def distance(options: LpipsOptions | SqueezeNetOptions, device: torch.device) -> Distance:
    """The distance that the options name, its network frozen on the device. Nothing is fetched.

    Raises ConfigError if a package or its weights are missing.
    """
    if isinstance(options, LpipsOptions):
        return lpips(options.net, device)
    net = squeezenet(options.file).to(device)

    def apart(made: Tensor, truth: Tensor) -> Tensor:
        layers = zip(net(made), net(truth), strict=True)
        return sum(
            ((unit(a) - unit(b)).square().sum(1).mean() for a, b in layers), made.new_zeros(())
        )

    return apart


def lpips(net: str, device: torch.device) -> Distance:
    try:
        import lpips as package
    except (ImportError, RuntimeError) as error:  # a torchvision of another build fails so
        mend = "pip install lpips torchvision, or take perceptual.kind: squeezenet"
        raise ConfigError(f"LPIPS cannot be imported ({error}): {mend}") from error
    path = Path(torch.hub.get_dir()) / "checkpoints" / BACKBONES[net]
    if not path.is_file():
        url = f"https://download.pytorch.org/models/{path.name}"
        raise ConfigError(f"LPIPS needs torchvision's weights and fetches nothing: {url} at {path}")
    judge = package.LPIPS(net=net, verbose=False).requires_grad_(False).eval().to(device)
    return lambda made, truth: judge(made * 2 - 1, truth * 2 - 1).mean()


def unit(x: Tensor) -> Tensor:
    """Feature vectors (B, C, h, w) of length one; smooth where they vanish."""
    return x * torch.rsqrt(x.square().sum(1, keepdim=True) + 1e-6)


class SqueezeNet(nn.Module):
    """SqueezeNet 1.1 (Iandola et al. 2016) up to its last fire module, over rgb."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 64, 3, 2)
        thin = (16, 16, 32, 32, 48, 48, 64, 64)
        wide = (64, 128, 128, 256, 256, 384, 384, 512, 512)
        self.fires = nn.ModuleList(
            Fire(before, squeezed, after)
            for before, squeezed, after in zip(wide, thin, wide[1:], strict=False)
        )

    def forward(self, rgb: Tensor) -> list[Tensor]:
        """The seven maps that LPIPS compares, fine to coarse."""
        x = F.relu(self.first(rgb))
        maps = [x]
        for number, fire in enumerate(self.fires):
            if number in POOLED:
                x = F.max_pool2d(x, 3, 2, ceil_mode=True)
            x = fire(x)
            if number not in (0, 2):  # of each of the first two pairs the second counts
                maps.append(x)
        return maps


class Fire(nn.Module):
    def __init__(self, before: int, squeezed: int, after: int):
        super().__init__()
        self.squeeze = nn.Conv2d(before, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, after // 2, 1)
        self.expand3x3 = nn.Conv2d(squeezed, after // 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return F.relu(torch.cat([self.expand1x1(x), self.expand3x3(x)], 1))


def squeezenet(file: Path) -> SqueezeNet:
    """The network with a file's weights, frozen; what they expect of colours goes into the first.

    Raises ConfigError unless they are torchvision's or Caffe's SqueezeNet 1.1.
    """
    if not file.is_file():
        raise ConfigError(f"{file}: is no file; perceptual.file wants SqueezeNet 1.1's weights")
    held = read_file(file)
    is_caffe = "conv1.weight" in held
    names = {"first": "conv1" if is_caffe else "features.0"}
    for number, place in PLACES.items():
        for part in ("squeeze", "expand1x1", "expand3x3"):
            theirs = f"fire{number + 2}/{part}" if is_caffe else f"features.{place}.{part}"
            is_thin = is_caffe and part == "squeeze"
            names[f"fires.{number}.{part}"] = theirs + ("1x1" if is_thin else "")
    net = SqueezeNet()
    try:
        weights = {
            f"{mine}.{kind}": held[f"{theirs}.{kind}"].float()
            for mine, theirs in names.items()
            for kind in ("weight", "bias")
        }
        net.load_state_dict(weights)
    except (KeyError, RuntimeError) as error:
        raise ConfigError(
            f"{file}: is no SqueezeNet 1.1, torchvision's or Caffe's: {error}"
        ) from error
    fold(net.first, is_caffe)
    return net.requires_grad_(False).eval()


@torch.no_grad()
def fold(first: nn.Conv2d, is_caffe: bool) -> None:
    """Let a convolution that expects other colours read rgb; it pads nothing, so that is exact.

    Caffe's reads blue, green, red in 0 to 255; torchvision's what is of mean 0 and spread 1.
    """
    if is_caffe:
        first.weight.copy_(first.weight.flip(1) * 255)
    mean, spread = (CAFFE_MEAN, (1.0, 1.0, 1.0)) if is_caffe else IMAGENET
    first.weight.div_(torch.tensor(spread).view(1, 3, 1, 1))
    first.bias.sub_((first.weight * torch.tensor(mean).view(1, 3, 1, 1)).sum((1, 2, 3)))
