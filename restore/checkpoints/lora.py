"""LoRA (Hu et al. 2021) on UNet and text encoders: put on, scaled, fused, taken off, by peft."""

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
    """Attach a LoRA; it changes the answers at once, by `scale`, beside those attached before.

    file  .safetensors, or a folder that holds one under diffusers' or PEFT's own name.
    Raises ModelError if peft is missing, or if the file is damaged, of another model, or of
    another shape; the stack is then as it was.
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

    As diffusers' UNet does it; for text encoders it asks transformers, which refuses a peft that is
    a release older than it would like.
    """
    from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several are meant
        inject_adapter_in_model(LoraConfig(**config), module, name, state_dict=state)
        set_peft_model_state_dict(module, state, name)


def detach(stack: Stack, name: str) -> None:
    """Take off one LoRA that is not fused."""
    for module in targets(stack).values():
        delete_adapter_layers(module, name)
        configs = getattr(module, "peft_config", {})
        configs.pop(name, None)
        if not configs:
            unwrap(module)


def rescale(stack: Stack, name: str, scale: float) -> None:
    """Give an attached LoRA another scale, fused or not."""
    for layer in layers(stack):
        if name not in layer.scaling:
            continue
        is_fused = layer.merged
        if is_fused:
            layer.unmerge()  # at the scale that it was fused with
        layer.set_scale(name, scale)
        if is_fused:
            layer.merge()


def fuse(stack: Stack) -> None:
    """Add all attached LoRAs to the weights, so that they cost nothing more."""
    for layer in layers(stack):
        if not layer.merged:
            layer.merge()


def unfuse(stack: Stack) -> None:
    """Take what was fused out of the weights again, up to rounding; it stays attached."""
    for layer in layers(stack):
        if layer.merged:
            layer.unmerge()


def remove(stack: Stack) -> None:
    """Take all LoRAs off, so that the modules and the names of their tensors are as before."""
    unfuse(stack)
    for module in targets(stack).values():
        unwrap(module)


def require_fused(stack: Stack) -> None:
    """Raises ModelError if a LoRA is attached without being fused: saving would lose it."""
    if any(not layer.merged for layer in layers(stack)):
        raise ModelError("a LoRA is attached but not fused: fuse or remove it before saving")


def unwrap(module: nn.Module) -> nn.Module:
    """Put the plain layers back, in place; what was fused into them stays."""
    for part in (module, *module.children()):  # two text encoders are one module
        if hasattr(part, "peft_config"):
            recurse_remove_peft_layers(part)
            del part.peft_config
    return module


def targets(stack: Stack) -> dict[str, nn.Module]:
    """The modules that LoRAs are for, by the prefix of their keys."""
    found: dict[str, nn.Module] = {}
    if isinstance(stack.unet, UNet2DConditionModel):
        found["unet"] = stack.unet
    if isinstance(stack.context, TextContext):
        found["text_encoder"] = stack.context.module
    if isinstance(stack.context, TwoTextContext):
        found |= dict(stack.context.module.named_children())
    return found


def layers(stack: Stack) -> Iterator[Any]:
    """The peft layers of all targets."""
    for module in targets(stack).values():
        yield from layers_of(module)


def layers_of(module: nn.Module) -> Iterator[Any]:
    if not hasattr(module, "peft_config"):
        return
    from peft.tuners.tuners_utils import BaseTunerLayer

    yield from (layer for layer in module.modules() if isinstance(layer, BaseTunerLayer))
