"""Pixel upscalers that training learns from, by the names that basicsr gives their weights."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from restore.checkpoints import pixel
from restore.errors import ConfigError
from restore.storage import tensor_files

PICKLED = (".pth", ".pt")
Teacher = Callable[[Tensor], Tensor]
"""rgb (B, 3, h, w) in [0, 1] -> its answer (B, 3, 4 h, 4 w), without a gradient"""


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors or .pth file, in fp32.

    Raises:
        ConfigError: If it cannot be read.
        ModelError: If a .pth holds more than tensors, or is damaged.
    """
    if path.suffix.casefold() in PICKLED:  # basicsr's own; only tensors are read
        state, _ = pixel.read_state(path)
        return {name: tensor.float() for name, tensor in state.items()}
    try:
        return {name: tensor.float() for name, tensor in tensor_files.load(path)[0].items()}
    except (OSError, ValueError) as error:
        why = f"is no readable .safetensors or .pth file: {error}"
        raise ConfigError(f"{path}: {why}") from error


def load(path: Path, device: torch.device) -> Teacher:
    """An x4 SRVGGNetCompact or RRDBNet (Wang et al. 2021).

    Args:
        path: A .safetensors or .pth file with basicsr's names.
        device: Where it runs.

    Raises:
        ConfigError: If it is neither.
    """
    weights = {name: tensor.to(device) for name, tensor in read(path).items()}
    how = rrdb if "conv_first.weight" in weights else compact
    if how is compact and "body.0.weight" not in weights:
        raise ConfigError(f"{path}: is neither an SRVGGNetCompact nor an RRDBNet by its keys")

    @torch.no_grad()
    def teach(rgb: Tensor) -> Tensor:
        return how(weights, rgb).clamp(0, 1)

    return teach


def compact(weights: Mapping[str, Tensor], rgb: Tensor) -> Tensor:
    """SRVGGNetCompact of x4: convolutions and PReLUs in turn."""
    x = rgb
    for number in sorted({int(name.split(".")[1]) for name in weights}):
        weight = weights[f"body.{number}.weight"]
        if weight.ndim == 1:
            x = F.prelu(x, weight)
        else:
            x = F.conv2d(x, weight, weights[f"body.{number}.bias"], padding=1)
    return F.pixel_shuffle(x, 4) + F.interpolate(rgb, scale_factor=4.0, mode="nearest")


def rrdb(weights: Mapping[str, Tensor], rgb: Tensor) -> Tensor:
    """RRDBNet of x4: residual blocks of three dense blocks of five convolutions."""

    def conv(name: str, x: Tensor) -> Tensor:
        return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1)

    def dense(name: str, x: Tensor) -> Tensor:
        seen = [x]
        for number in range(1, 5):
            seen.append(F.leaky_relu(conv(f"{name}.conv{number}", torch.cat(seen, 1)), 0.2))
        return x + 0.2 * conv(f"{name}.conv5", torch.cat(seen, 1))

    first = x = conv("conv_first", rgb)
    for block in sorted({int(n.split(".")[1]) for n in weights if n.startswith("body.")}):
        inner = x
        for number in (1, 2, 3):
            inner = dense(f"body.{block}.rdb{number}", inner)
        x = x + 0.2 * inner
    x = first + conv("conv_body", x)
    for name in ("conv_up1", "conv_up2"):
        x = F.leaky_relu(conv(name, F.interpolate(x, scale_factor=2.0)), 0.2)
    return conv("conv_last", F.leaky_relu(conv("conv_hr", x), 0.2))
