"""What an export adds to a trained restorer: the rest of its model, and weights to average with."""

from copy import deepcopy
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field

from restore.checkpoints.load import load
from restore.config import Options
from restore.diffusion.compact import FirstStage
from restore.diffusion.restorer import Restorer
from restore.diffusion.stack import Stack
from restore.errors import ConfigError, ModelError
from restore.training.losses import teachers

End = Literal["rich", "faithful"]


class BlendOptions(Options):
    """Published weights of x4 that an export is averaged with (Wortsman et al. 2022, WiSE-FT)."""

    path: Path
    """A .safetensors or .pth file with basicsr's names."""
    share: float = Field(0.5, ge=0, le=1)
    """Share of the published weights in the average."""


def join(network: Restorer, name: str, end: End) -> Stack:
    """A model with the restorer as one end of its first stage.

    Args:
        network: The restorer.
        name: The model.
        end: Which end the restorer becomes.

    Raises:
        ConfigError: If there is no such model, or if its other end is missing or of another shape:
            both ends are mixed, and one config describes them.
    """
    try:
        stack = load(name, "cpu")
    except ModelError as error:
        raise ConfigError(f"stage.stack: {error}") from error
    stage = stack.restorer
    if stage is None and end == "faithful":
        raise ConfigError(f"stage.end: {name} has no rich end yet; train that first, or set it")
    if stage is None:
        stack.restorer = FirstStage(network)
        return stack
    other, other_end = (stage.faithful, "faithful") if end == "rich" else (stage.rich, "rich")
    if other is not None and _shape(other) != _shape(network):
        channels, layers = _shape(other)
        raise ConfigError(
            f"stage.stack: the {other_end} end of {name} has {_said(other)}, this restorer has "
            f"{_said(network)}; both ends of a model have one shape: set stage.channels={channels} "
            f"and stage.layers={layers}, or leave out stage.stack to export the restorer alone"
        )
    setattr(stage, end, network)
    return stack


def _shape(network: Restorer) -> tuple[int, int]:
    return network.config["channels"], network.config["layers"]


def _said(network: Restorer) -> str:
    channels, layers = _shape(network)
    return f"{channels} channels and {layers} layers"


def blend(network: Restorer, options: BlendOptions) -> Restorer:
    """A copy on the CPU whose weights are averaged with published ones.

    Raises:
        ConfigError: If these cannot be read, or are of another shape.
    """
    blended, theirs = deepcopy(network).to("cpu"), teachers.read(options.path)
    ours = blended.state_dict()
    for name in sorted(ours.keys() | theirs.keys()):
        if name not in ours or name not in theirs or ours[name].shape != theirs[name].shape:
            raise ConfigError(
                f"stage.blend.path: {options.path} is of another shape than this restorer of "
                f"{_said(network)}, in {name} at least; name weights of its shape"
            )
    mixed = {name: torch.lerp(weight, theirs[name], options.share) for name, weight in ours.items()}
    blended.load_state_dict(mixed)
    return blended.to(memory_format=torch.contiguous_format)
