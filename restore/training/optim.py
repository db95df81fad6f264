"""Learning rate, EMA and parameter groups; memory format, checkpointing and compilation."""

import math
from contextlib import contextmanager
from typing import Any, Literal

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from restore.errors import ConfigError
from restore.training.stage import AdversarialStage, Stage

CHECKPOINTING = (  # as diffusers calls it; transformers, newer and older
    "enable_gradient_checkpointing",
    "activation_checkpointing_enable",
    "gradient_checkpointing_enable",
)
Schedule = Literal["cosine", "constant"]


def rate_at(step: int, steps: int, warmup: int, schedule: Schedule, passed: float = 0.0) -> float:
    """The factor of the learning rate at a step: linear warm-up, then a cosine to zero, or
    constant.

    Args:
        step: Number of the update, from 0.
        steps: Number of all updates.
        warmup: Steps of warm-up.
        schedule: What follows the warm-up.
        passed: Share of the run's time that has passed, if the time may end it before the last
            step.
    """
    warm = min(1.0, (step + 1) / max(1, warmup))
    if schedule == "constant":
        return warm
    return warm * (1 + math.cos(math.pi * min(1.0, max(step / steps, passed)))) / 2


@contextmanager
def average_weights(ema: EMAModel, parameters: list[Tensor]):
    """The EMA weights in the model's place, within the block."""
    ema.store(parameters)
    ema.copy_to(parameters)
    try:
        yield
    finally:
        ema.restore(parameters)


def parameter_groups(stage: Stage, learning_rate: float) -> list[dict[str, Any]]:
    """The optimiser's groups: the trained weights, then those of a discriminator.

    Gradients are clipped by group; else large gradients of the discriminator would scale down
    those of what it is trained against.

    Args:
        stage: Its model, and its discriminator if it has one.
        learning_rate: Peak learning rate, also of a discriminator whose options name none.

    Returns:
        Groups with `params` and the peak learning rate as `peak`.
    """
    discriminator = stage.discriminator if isinstance(stage, AdversarialStage) else None
    apart = set(discriminator.parameters()) if discriminator else set()
    trained = [p for p in stage.model.parameters() if p.requires_grad and p not in apart]
    found = [{"params": trained, "peak": learning_rate}]
    if isinstance(stage, AdversarialStage) and discriminator and stage.adversary:
        peak = stage.adversary.learning_rate or learning_rate
        found.append({"params": list(discriminator.parameters()), "peak": peak})
    return found


def networks(model: nn.Module) -> list[nn.Module]:
    """The networks that a stage's model is made of."""
    return list(model.values()) if isinstance(model, nn.ModuleDict) else [model]


def set_memory_format(
    model: nn.Module, channels_last: bool | Literal["auto"], device: torch.device
) -> None:
    """Set the memory format of the weights, which activations follow.

    Args:
        model: The stage's model.
        channels_last: auto means channels last, except on a CPU for networks with group
            normalisation, whose gradient is slow there.
        device: Where it trains.
    """
    for network in networks(model):
        is_slow = any(isinstance(part, nn.GroupNorm) for part in network.modules())
        last = device.type != "cpu" or not is_slow if channels_last == "auto" else channels_last
        network.to(memory_format=torch.channels_last if last else torch.contiguous_format)


def enable_checkpointing(model: nn.Module) -> None:
    """Enable gradient checkpointing (Chen et al. 2016) in each network that has it.

    Raises:
        ConfigError: If none has.
    """
    found = 0
    for network in networks(model):
        able = ("_supports_gradient_checkpointing", "supports_gradient_checkpointing")
        if not any(getattr(network, name, False) for name in able):
            continue
        next(how for name in CHECKPOINTING if (how := getattr(network, name, None)))()
        found += 1
    if not found:
        raise ConfigError("checkpointing: no network of this stage can do it; leave it out")


def compile_networks(model: nn.Module, backend: str = "inductor") -> None:
    """Compile the networks in place, so that the names of the weights stay the same."""
    from torch._functorch import config  # there is no public name for it

    config.donated_buffer = False  # an adaptive adversary goes back through a network twice
    for network in networks(model):
        # an autoencoder's halves are called by themselves
        halves = [getattr(network, name, None) for name in ("encoder", "decoder")]
        for part in [half for half in halves if half is not None] or [network]:
            part.compile(backend=backend)
