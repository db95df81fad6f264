"""Choose the engine of a model, and how much of the model is loaded; without torch."""

import hashlib
import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from restore.checkpoints import arguments, configs, manifest, model_paths
from restore.checkpoints.arguments import Engine
from restore.errors import ConfigError, ModelError, RestoreError
from restore.storage import sealed

if TYPE_CHECKING:
    from restore.checkpoints.arguments import Model

# What a driver of NVIDIA, also of its small boards and in WSL and Windows, or of AMD shows.
ACCELERATORS = (
    "/dev/nvidiactl",
    "/dev/nvmap",
    "/dev/dxg",
    r"C:\Windows\System32\nvcuda.dll",
    "/dev/kfd",
)


@cache
def kind_of_auto() -> str:
    """The kind of device that `auto` takes: cuda, mps or cpu.

    torch is asked, and so loaded, which takes seconds, only where the system has an accelerator.
    """
    is_apple = sys.platform == "darwin" and platform.machine() == "arm64"
    if not is_apple and not any(map(os.path.exists, ACCELERATORS)):
        return "cpu"
    from restore.checkpoints import accelerators

    return accelerators.pick()


def load(
    name: str,
    device: str = "auto",
    dtype: str = "auto",
    *,
    engine: Engine = "torch",
    lazily: bool = False,
    first_stage: str = "",
    note: Callable[[str], None] = lambda text: None,
    **more: Any,
) -> "Model":
    """Load a model for an engine, as devices.load.

    Args:
        name: As in load.load.
        device: auto, cpu, cuda or mps.
        dtype: auto, fp32, bf16 or fp16.
        engine: torch; or onnx: ONNX Runtime on the CPU, for a folder that `restore export` wrote.
        lazily: If the model can work without sampling, load only its first stage; the rest is
            loaded when a task needs it.
        first_stage: A pixel upscaler. `upscale` starts from its result.
        note: Called with a warning if torchvision is broken.
        more: Further arguments of devices.load.

    Raises:
        ModelError: If there is no such model, or it cannot be loaded.
        ConfigError: If an argument is unknown or wrong, or the engine does not support it.
        UsageError: If a ControlNet's picture or scale is given without one.
    """
    more = arguments.check(name, engine, more)
    if engine == "onnx":
        from restore.checkpoints import onnx_folder

        refuse(name, device, dtype, **more, first_stage=first_stage)
        with _as_model_errors(name):
            return onnx_folder.load(name)
    whole = partial(_torch, name, device, dtype, more, note)
    if first_stage:
        return with_first_stage(whole(), first_stage, device)
    beside = ("compiled", "offload", "loras", "config", "controlnet")
    if lazily and not any(map(more.get, beside)) and model_paths.find_path(name).is_dir():
        from restore.checkpoints import lazy_stack

        with _as_model_errors(name), sealed.sealing():
            path, digest = manifest.find_model(name, allow_pickle=more.get("allow_pickle", False))
            if lazy_stack.has_first_stage(path) and not configs.about(path).engine:
                return lazy_stack.load(path, name, digest, device, dtype, whole)
    return whole()


def with_first_stage(stack: Any, file: str, device: str) -> Any:
    """Give a stack a pixel upscaler as its first stage. Raises ConfigError if it is none."""
    from restore.checkpoints import devices
    from restore.diffusion.stack import Stack
    from restore.pixel.model import PixelModel

    if not isinstance(stack, Stack):
        raise ConfigError(f"{stack.name}: is a pixel upscaler, and takes no first stage")
    with _as_model_errors(file):
        enlarger = devices.load(file, device)
    if not isinstance(enlarger, PixelModel):
        raise ConfigError(f"--first-stage {file}: is no pixel upscaler")
    stack.enlarger = enlarger
    stack.digest = combine_digests(stack.digest, enlarger.digest)
    return stack


def combine_digests(digest: str, first_stage: str) -> str:
    """Combine the digests of a model and its first stage."""
    return hashlib.sha256(f"{digest} first stage {first_stage}".encode()).hexdigest()


def _torch(
    name: str, device: str, dtype: str, more: dict[str, Any], note: Callable[[str], None]
) -> Any:
    from restore.checkpoints import devices
    from restore.diffusion import torchvision

    if problem := torchvision.complaint():
        note(problem)
    with _as_model_errors(name):
        return devices.load(name, device, dtype, **more)


@contextmanager
def _as_model_errors(name: str) -> Iterator[None]:
    """Raise ModelError for whatever a library raises: any other would be one for every file."""
    try:
        yield
    except (RestoreError, MemoryError):
        raise
    except Exception as error:
        problem = f"{name}: cannot be loaded: {type(error).__name__}: {error}"
        raise ModelError(problem) from error


def refuse(name: str, device: str, dtype: str, **more: Any) -> None:
    """Raise ConfigError or ModelError if ONNX Runtime does not support the options or model."""
    refuse_options(device, dtype, **more)
    place = model_paths.find_path(name)
    if not place.is_dir() or configs.about(place).engine != "onnx":
        raise ModelError(
            f"{name}: is no ONNX export; `restore export {name} -o FOLDER` makes one, for --model "
            "FOLDER --engine onnx"
        )


def refuse_options(device: str, dtype: str, **more: Any) -> None:
    """Raise ConfigError if ONNX Runtime does not support the options of `load`."""
    asked = {"--device": device not in ("auto", "cpu"), "--dtype": dtype not in ("auto", "fp32")}
    asked |= {"--compile": more.get("compiled"), "--offload": more.get("offload")}
    asked |= {"--first-stage": more.get("first_stage"), "--controlnet": more.get("controlnet")}
    asked |= {"--lora": more.get("loras"), "--config-from": more.get("config")}
    if refused := ", ".join(option for option, is_asked in asked.items() if is_asked):
        raise ConfigError(f"{refused}: engine onnx computes on the CPU in fp32; leave it out")
