"""Where a stack computes: device, precision, compiled, or with its parts offloaded."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import restore.diffusion.torchvision
from restore.checkpoints import arguments, file_kinds, manifest, model_paths, pixel
from restore.checkpoints import load as loading
from restore.checkpoints.accelerators import find, named_dtype, precision
from restore.diffusion.conditioning import Condition
from restore.diffusion.lazy_stack import LazyStack
from restore.diffusion.stack import Stack
from restore.errors import ConfigError, ModelError
from restore.pixel.model import PixelModel
from restore.storage import sealed

restore.diffusion.torchvision.tried()  # cached: it ran before diffusers was imported


def load(
    name: str,
    device: str = "auto",
    dtype: str = "auto",
    *,
    compiled: bool = False,
    offload: bool = False,
    **more: Any,
) -> Stack | PixelModel:
    """Load a model onto a device, as load.load does, with options that save time or memory.

    A file of one network from rgb to rgb becomes a PixelModel, which takes no LoRA and no
    offloading.

    Args:
        name: As in restore.checkpoints.load.load.
        device: auto, cpu, cuda or mps.
        dtype: auto, fp32, bf16 or fp16.
        compiled: Compile the UNet now. Its results then differ in their last bits.
        offload: Keep the parts in main memory, and on the device only the one that is computing.
        more: Further arguments of load.load.

    Raises:
        ModelError: If the device is missing, or the model cannot be loaded or compiled.
        ConfigError: If the options exclude each other, or one is unknown.
    """
    arguments.refuse_unknown(more)
    if compiled and offload:
        raise ConfigError("a compiled UNet stays on its device: --compile or --offload, not both")
    target = find(device)
    file = model_paths.find_path(name)
    if more.get("config") is None and file.is_file() and file_kinds.is_pixel(file):
        given = more.get("loras"), more.get("controlnet")
        file_kinds.refuse_beside_pixel(name, compiled, offload, *given)
        with sealed.sealing():
            path, digest = manifest.find_model(name)
            return pixel.load(path, name, digest, target, dtype)
    dtype = named_dtype(precision(dtype, target))
    stack = loading.load(name, "cpu" if offload else str(target), dtype, **more)
    if offload:
        Turns(stack, target)
    if compiled:
        compile_unet(stack)
    return stack


def move(
    model: Stack | PixelModel | LazyStack,
    device: str | torch.device | None,
    dtype: torch.dtype | None,
) -> None:
    """Move a model in place.

    Args:
        model: The model.
        device: None keeps it.
        dtype: None keeps it.

    Raises:
        ModelError: If the device is missing.
        ConfigError: If the model cannot be moved.
    """
    name = None if dtype is None else named_dtype(dtype)
    where = model.device if device is None else find(str(device))
    if isinstance(model, LazyStack) or model.engine == "onnx":
        if torch.device(where).type != "cpu" or dtype not in (None, torch.float32):
            raise ConfigError(f"{model.name}: it computes on the CPU in fp32")
        return
    if isinstance(model, PixelModel):
        if dtype is not None and dtype not in model.supports:
            raise ConfigError(f"{model.name} does not compute well in {name}")
        model.network.to(where, dtype)
        return
    if model.offload_device is not None:
        problem = f"{model.name}: its parts take turns on {model.offload_device} (offload)"
        raise ConfigError(f"{problem}; load it without that to move it")
    loading.move(model, str(where), name or named_dtype(model.unet.dtype))


def take_turns(stack: Stack, device: str = "auto") -> None:
    """Offload a loaded stack. Raises ModelError if the device is missing."""
    if stack.offload_device is None:
        place = find(device)
        loading.move(stack, "cpu", named_dtype(stack.unet.dtype))
        Turns(stack, place)


def compile_unet(stack: Stack) -> None:
    """Compile the UNet in place and run it once, so that an error is raised here.

    Raises:
        ModelError: With the compiler's message.
    """
    size, layout = stack.windows.size, stack.layout
    maps = {"trust", "mask", "signed_mask"} & set(layout.parts)
    where = {"device": stack.device}
    shape = (1, stack.unet.config.in_channels - stack.channels - len(maps), size, size)
    level = torch.zeros(1, dtype=torch.long, **where) if stack.low_schedule else None
    hint = torch.zeros(1, 3, *[size * stack.factor] * 2) if stack.control else None
    condition = Condition(
        torch.zeros(shape, **where),
        torch.ones(1, 1, size, size, **where),
        level,
        None if hint is None else lambda rows, columns: hint,
    )
    x = torch.zeros(1, stack.channels, size, size, **where)
    stack.unet.compile()
    try:
        with torch.inference_mode():
            stack.predict(condition, "")(x, torch.tensor(0), [(0, 0)])
    except RuntimeError as error:  # dynamo and inductor raise subclasses of it
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"the UNet cannot be compiled here: {reason}; leave --compile out"
        ) from error


class Turns:
    """Offloading: each part is moved to the device when it is called, and the one before back.

    A UNet and its ControlNet move together, because both are called for every window.

    accelerate's cpu_offload_with_hook is not used: it needs whole models in one fixed order. Here
    the task decides the order, and of a VAE only the children are called.

    Args:
        stack: Its parts are on the CPU.
        device: The device that they are moved to.
    """

    def __init__(self, stack: Stack, device: torch.device):
        stack.offload_device = device
        self.stack = stack
        self.here: list[nn.Module] = []
        self.there = device  # the device that they are on
        control = stack.control
        walking = [stack.unet, control.net] if control else []
        for part in stack.parts:
            group = walking if any(part is one for one in walking) else [part]
            called = (part, *part.children()) if part is stack.vae else (part,)
            for module in called:
                module.register_forward_pre_hook(partial(self.bring, group), with_kwargs=True)

    def bring(
        self, group: list[nn.Module], module: nn.Module, args: Any, kwargs: Any
    ) -> tuple[Any, Any]:
        """Before a call, move the parts and the arguments of the call to the device."""
        device = self.stack.offload_device
        assert device is not None
        if self.here != group or self.there != device:
            for part in self.here:
                part.to("cpu")
            for part in group:
                part.to(device)
            self.here, self.there = group, device
        moved = {name: self.moved(value) for name, value in kwargs.items()}
        return tuple(map(self.moved, args)), moved

    def moved(self, value: Any) -> Any:
        return value.to(self.stack.offload_device) if isinstance(value, Tensor) else value
