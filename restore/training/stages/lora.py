"""LoRA (Hu et al. 2021) for training: small matrices beside frozen weights, by peft."""

from copy import deepcopy
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from diffusers.loaders import StableDiffusionLoraLoaderMixin
from pydantic import Field
from torch import nn

from restore.checkpoints import lora
from restore.config import Options
from restore.diffusion.stack import Stack
from restore.errors import ConfigError

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "q_proj", "k_proj", "v_proj", "out_proj")
FIRST = "conv_in"  # reads what is new to a widened UNet: trained whole, or not at all
NAME = "default"


class LoraOptions(Options):
    """Size and place of the LoRAs."""

    rank: int = Field(16, ge=1)
    """Rank of the added matrices."""
    alpha: float = Field(16, gt=0)
    """The product of the matrices is scaled by alpha / rank."""
    layers: Literal["attention", "all"] = "attention"
    """attention: the projections of attention; all: every linear layer and convolution."""


def attach(stack: Stack, options: LoraOptions, prefixes: tuple[str, ...]) -> None:
    """Freeze the modules and add LoRAs to their layers; at first these change nothing.

    Args:
        stack: The networks.
        options: Size and place of the LoRAs.
        prefixes: Of `unet` and `text_encoder`.

    Raises:
        ConfigError: If peft is missing, or a module has no such layer.
    """
    if not find_spec("peft"):
        raise ConfigError("stage.lora needs peft: pip install 'restore-toolkit[train]'")
    from peft import LoraConfig, inject_adapter_in_model

    for prefix in prefixes:
        module = lora.targets(stack)[prefix]
        names = layers_of(module, options)
        if not names:
            raise ConfigError(
                f"stage.lora.layers {options.layers}: the {prefix} has none such; take all"
            )
        config = LoraConfig(r=options.rank, lora_alpha=options.alpha, target_modules=names)
        inject_adapter_in_model(config, module.requires_grad_(False), NAME)


def layers_of(module: nn.Module, options: LoraOptions) -> list[str]:
    """The names of the layers that get LoRAs."""
    return [
        name
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
        and name != FIRST
        and (options.layers == "all" or name.endswith(ATTENTION))
    ]


def fuse(stack: Stack) -> Stack:
    """A copy of the stack with its LoRAs merged; training can continue with the original."""
    context = replace(stack.reader, module=deepcopy(stack.reader.module))
    copied = replace(stack, unet=deepcopy(stack.unet), context=context)
    lora.fuse(copied)
    return copied


def save(stack: Stack, folder: Path) -> None:
    """Write the LoRAs alone, as diffusers does; restore's --lora and diffusers both read the
    folder.
    """
    from peft import get_peft_model_state_dict

    layers, metadata = {}, {}
    for prefix, module in lora.targets(stack).items():
        configs = getattr(module, "peft_config", None)
        if not configs:
            continue
        # By peft's own names: diffusers' older ones are ambiguous in a UNet that pools its text.
        learnt = get_peft_model_state_dict(module)
        layers[prefix] = {name: tensor.contiguous() for name, tensor in learnt.items()}
        metadata[f"{prefix}_lora_adapter_metadata"] = configs[NAME].to_dict()
    StableDiffusionLoraLoaderMixin.save_lora_weights(
        folder, layers.get("unet"), layers.get("text_encoder"), **metadata
    )
