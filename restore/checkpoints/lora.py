"""LoRA (Hu et al. 2021) on UNet and text encoders, by peft: add, scale, fuse, remove."""

import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from diffusers import UNet2DConditionModel
from diffusers.utils import delete_adapter_layers, recurse_remove_peft_layers
from torch import nn

from restore.checkpoints import hub, lora_file
from restore.checkpoints.weights import Weights
from restore.diffusion.contexts.text import TextContext
from restore.diffusion.contexts.two_texts import TwoTextContext
from restore.diffusion.stack import Stack
from restore.errors import ModelError


def add(stack: Stack, file: str | Path, scale: float = 1, name: str = "default") -> None:
    """Attach a LoRA beside those attached before. It is active at once.

    Args:
        stack: The model.
        file: A .safetensors file, or a folder with one named as diffusers or PEFT does.
        scale: Of its effect.
        name: A name for `rescale` and `detach`, not yet used.

    Raises:
        ModelError: If peft is missing, or if the file is damaged or for another model. The stack is
            then unchanged.
    """
    if not find_spec("peft"):
        raise ModelError("LoRA needs peft: pip install 'restore-toolkit[train]'")
    path = hub.lora_file(file)
    state, config = lora_file.read(path, targets(stack), stack.name)
    if any(layer.merged for layer in layers(stack)):
        raise ModelError(f"{path}: unfuse what is fused before another LoRA is added")
    if any(name in layer.scaling for layer in layers(stack)):
        raise ModelError(f"{path}: a LoRA named {name} is there already; give this another name")
    try:
        for prefix, module in targets(stack).items():
            if own := lora_file.part(state, prefix):
                attach(own, module, name, lora_file.part(config, prefix))
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        detach(stack, name)
        raise ModelError(f"{path}: peft refuses it: {error}") from error
    rescale(stack, name, scale)
    for layer in layers(stack):
        layer.set_adapter(list(layer.scaling), inference_mode=True)


def attach(state: Weights, module: nn.Module, name: str, config: dict[str, Any]) -> None:
    """Wrap the layers that the tensors name.

    It works as diffusers does for UNets. For text encoders diffusers calls transformers, which
    refuses an older release of peft.

    Args:
        state: The LoRA's tensors, by peft's names.
        module: The network whose layers are wrapped.
        name: Name of the adapter.
        config: Arguments of peft's LoraConfig.
    """
    from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")  # intended
        inject_adapter_in_model(LoraConfig(**config), module, name, state_dict=state)
        set_peft_model_state_dict(module, state, name)


def detach(stack: Stack, name: str) -> None:
    """Remove one LoRA that is not fused."""
    for module in targets(stack).values():
        delete_adapter_layers(module, name)
        configs = getattr(module, "peft_config", {})
        configs.pop(name, None)
        if not configs:
            unwrap(module)


def rescale(stack: Stack, name: str, scale: float) -> None:
    """Change the scale of an attached LoRA, fused or not."""
    for layer in layers(stack):
        if name not in layer.scaling:
            continue
        is_fused = layer.merged
        if is_fused:
            layer.unmerge()  # with the scale it was fused at
        layer.set_scale(name, scale)
        if is_fused:
            layer.merge()


def fuse(stack: Stack) -> None:
    """Add all attached LoRAs to the weights, so that they cost no time."""
    for layer in layers(stack):
        if not layer.merged:
            layer.merge()


def unfuse(stack: Stack) -> None:
    """Subtract fused LoRAs from the weights, exact up to rounding. They stay attached."""
    for layer in layers(stack):
        if layer.merged:
            layer.unmerge()


def remove(stack: Stack) -> None:
    """Remove all LoRAs, so that modules and tensor names are as before."""
    unfuse(stack)
    for module in targets(stack).values():
        unwrap(module)


def require_fused(stack: Stack) -> None:
    """Raise ModelError if a LoRA is attached but not fused, because saving would lose it."""
    if any(not layer.merged for layer in layers(stack)):
        raise ModelError("a LoRA is attached but not fused: fuse or remove it before saving")


def unwrap(module: nn.Module) -> nn.Module:
    """Restore the plain layers in place. Fused LoRAs stay in their weights."""
    for part in (module, *module.children()):  # SDXL's two text encoders share one module
        if hasattr(part, "peft_config"):
            recurse_remove_peft_layers(part)
            del part.peft_config
    return module


def targets(stack: Stack) -> dict[str, nn.Module]:
    """Return the modules that LoRAs may change, by the prefix of their keys."""
    found: dict[str, nn.Module] = {}
    if isinstance(stack.unet, UNet2DConditionModel):
        found["unet"] = stack.unet
    if isinstance(stack.context, TextContext):
        found["text_encoder"] = stack.context.module
    if isinstance(stack.context, TwoTextContext):
        found |= dict(stack.context.module.named_children())
    return found


def layers(stack: Stack) -> Iterator[Any]:
    """Yield the peft layers of all targets."""
    for module in targets(stack).values():
        yield from layers_of(module)


def layers_of(module: nn.Module) -> Iterator[Any]:
    if not hasattr(module, "peft_config"):
        return
    from peft.tuners.tuners_utils import BaseTunerLayer

    yield from (layer for layer in module.modules() if isinstance(layer, BaseTunerLayer))
