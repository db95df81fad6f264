"""Export a model as ONNX files, with everything that ONNX Runtime needs to run it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from restore.checkpoints import devices, manifest, save
from restore.diffusion.compact import FirstStage
from restore.diffusion.contexts.text import TextContext
from restore.diffusion.layouts import LDM_UPSCALE
from restore.diffusion.stack import Stack
from restore.diffusion.tiling import STEP
from restore.errors import ModelError
from restore.files import write_text
from restore.onnx import session, traced
from restore.onnx.stage import ENDS
from restore.pixel.model import PixelModel
from restore.pixel.tail import Tail
from restore.storage import sealed

LICENCES = "LICENSE*", "LICENCE*", "COPYING*", "NOTICE*"
SIDES = (24, 40), (58, 34)  # even sides of the trial inputs
# Of a pixel upscaler. The first is no multiple of an attention window, so padding is traced; the
# second is one of every usual window, and is not padded.
PIXELS = (25, 41), (64, 32), (57, 35)


def export(name: str, folder: Path, **more: Any) -> Path:
    """Write a model's networks as ONNX files to a folder for engine onnx.

    Args:
        name: As in load.load.
        folder: Where to write. A folder that we exported is replaced.
        more: Further arguments of load.load.

    Returns:
        The folder.

    Raises:
        ModelError: If there is no such model, or a network cannot be exported.
        OutputError: If the folder holds files that we did not export.
    """
    session.import_onnxruntime()
    how = {key: more.get(key, False) for key in ("offline", "allow_pickle")}
    with sealed.sealing():
        source, digest = manifest.find_model(name, **how)
        model = devices.load(name, "cpu", "fp32", **more)
    with manifest.replacing(folder) as target:
        target.mkdir(exist_ok=True)
        facts = (
            write_stack(model, target) if isinstance(model, Stack) else write_pixels(model, target)
        )
        facts |= {"engine": "onnx", "source": Path(name).name, "source_digest": digest}
        (target / "stack.json").write_text(json.dumps(facts, indent=1) + "\n")
        licences = carry(source, target)
        write_text(target / "README.md", card(Path(name).name, digest, licences, model))
        manifest.write(target)
    return folder


def write_stack(stack: Stack, folder: Path) -> dict[str, Any]:
    """Write the parts of a stack; returns the content of stack.json."""
    size, name = stack.windows.size, stack.name
    write_unet(stack, folder / "unet", size)
    part = "vqvae" if stack.layout == LDM_UPSCALE else "vae"
    config(stack.vae, folder / part)
    free = [{0: "batch", 2: "height", 3: "width"}]
    step = stack.factor

    def picture(nth: int) -> tuple[Tensor, ...]:
        return (torch.rand(1 + nth, 3, *(step * side for side in SIDES[nth])) * 2 - 1,)

    def latent(nth: int) -> tuple[Tensor, ...]:
        return (torch.randn(1 + nth, stack.channels, *SIDES[nth]),)

    coder = traced.Encoder(stack.vae), traced.Decoder(stack.vae)
    traced.write(coder[0], folder / part / "encoder.onnx", free, picture, f"{name}: its encoder")
    traced.write(coder[1], folder / part / "decoder.onnx", free, latent, f"{name}: its decoder")
    if stack.context:
        stack.context.save(folder)
    if isinstance(stack.context, TextContext):
        save.prefix_clip(folder / "text_encoder" / "model.safetensors")
    stack.schedule.save_pretrained(folder / "scheduler")
    if stack.low_schedule:
        stack.low_schedule.save_pretrained(folder / "low_res_scheduler")
    if isinstance(stack.restorer, FirstStage):
        write_first_stage(stack.restorer, folder, name)
    return save.describe(stack)


def write_unet(stack: Stack, folder: Path, size: int) -> None:
    """Write the UNet, with free batch size, sides up to `size` latents, and prompt length."""
    config(stack.unet, folder)
    tokens = stack.context.embed("") if stack.context else None
    has_labels = bool(stack.unet.config.get("num_class_embeds"))
    axes: list[traced.Axes] = [{0: "windows", 2: "height", 3: "width"}, {0: "windows"}]
    axes += [{0: "windows", 1: "tokens"}] if tokens is not None else []
    axes += [{0: "windows"}] if has_labels else []

    def example(nth: int) -> tuple[Tensor, ...]:
        count = 1 + nth
        sides = (size, size) if nth == 0 else (STEP, 2 * STEP)  # a small picture is one window
        given = [torch.randn(count, stack.unet.config["in_channels"], *sides)]
        given.append(torch.full((count,), 500.0))
        if tokens is not None:
            given.append(tokens.expand(count, -1, -1).repeat(1, count, 1))
        if has_labels:
            given.append(torch.full((count,), 1 + nth, dtype=torch.long))
        return tuple(given)

    network = traced.Unet(stack.unet)
    traced.write(network, folder / "model.onnx", axes, example, f"{stack.name}: its unet")


def write_first_stage(stage: FirstStage, folder: Path, name: str) -> None:
    """Write the rich restorer as a network, the weights of both trainings, and the fusion."""
    free = {2: "height", 3: "width"}

    def example(count: int) -> Callable[[int], tuple[Tensor, ...]]:
        return lambda nth: tuple(torch.rand(1, 3, *SIDES[nth]) for _ in range(count))

    config(stage.rich, folder / "restorer")
    path = folder / "restorer" / "model.onnx"
    traced.write(stage.rich, path, [free], example(1), f"{name}: its first stage")
    if stage.faithful is not None:
        both = {"rich": stage.rich, "faithful": stage.faithful}
        tensors = {
            f"{end}.{key}": small(tensor)
            for end, network in both.items()
            for key, tensor in network.state_dict().items()
        }
        save_file(tensors, folder / "restorer" / ENDS)
    if stage.fusion is not None:
        config(stage.fusion, folder / "fusion")
        path = folder / "fusion" / "model.onnx"
        traced.write(stage.fusion, path, [free, free], example(2), f"{name}: its fusion")


def small(tensor: Tensor) -> Tensor:
    """Convert to half precision if that loses nothing."""
    half = tensor.contiguous().half()
    return half if torch.equal(half.float(), tensor) else tensor.contiguous()


def write_pixels(model: PixelModel, folder: Path) -> dict[str, Any]:
    """Write a pixel upscaler; returns the content of stack.json."""

    multiple, least = sizes(model)

    def example(nth: int) -> tuple[Tensor, ...]:
        """Return an input of accepted size, because spandrel's padding cannot be traced."""
        sides = (-(-max(n, least) // multiple) * multiple for n in PIXELS[nth])
        return (torch.rand(1, 3, *sides),)

    place, free = folder / "network" / "model.onnx", [{2: "height", 3: "width"}]
    network = model.network.to(memory_format=torch.contiguous_format)
    for part in network.modules():
        if isinstance(part, Tail):
            part.is_whole = True  # a trace holds no loop over strips
    kind = model.about.get("architecture", "its network")
    traced.write(network, place, free, example, f"{model.name}: {kind}", trials=len(PIXELS))
    windows = model.windows
    return {
        "pixels": {
            "scale": model.scale,
            **vars(windows),
            **{"multiple": multiple, "least": least},
            "bytes_a_pixel": model.bytes_a_pixel,
            "wants_whole": model.wants_whole,
            "about": model.about,
        }
    }


def sizes(model: PixelModel) -> tuple[int, int]:
    """Return the number that a network's sides are multiples of, and their minimum.

    Raises:
        ModelError: If it accepts squares only.
    """
    requirements = getattr(getattr(model.network, "_call", None), "size_requirements", None)
    if requirements is None:
        return 1, 0
    if requirements.square:
        kind = model.about.get("architecture", "it")
        raise ModelError(f"{model.name}: cannot be exported: {kind} takes squares alone")
    return requirements.multiple_of, requirements.minimum


def config(module: nn.Module, folder: Path) -> None:
    """Write a module's config as diffusers does, without paths of this machine."""
    if not hasattr(module, "save_config"):
        raise ModelError(f"{folder.name}: {type(module).__name__} cannot be exported")
    module.save_config(folder)
    path = folder / "config.json"
    values = json.loads(path.read_text())
    values.pop("_name_or_path", None)
    path.write_text(json.dumps(values, indent=2) + "\n")


def carry(source: Path, folder: Path) -> list[str]:
    """Copy the licences and the card of a model; returns the names of the licences."""
    if not source.is_dir():
        return []
    found = sorted({path for pattern in LICENCES for path in source.glob(pattern)})
    found = [path for path in found if path.is_file()]
    for path in found:
        shutil.copyfile(path, folder / path.name)
    if (source / "README.md").is_file():
        shutil.copyfile(source / "README.md", folder / "SOURCE.md")
        text = (source / "README.md").read_text(encoding="utf-8", errors="replace")
        if text.startswith("---\n"):  # the hub reads the licence from this head
            return [path.name for path in found] or ["see SOURCE.md"]
    return [path.name for path in found]


def card(name: str, digest: str, licences: list[str], model: Stack | PixelModel) -> str:
    """Return the README of an export.

    Args:
        name: Name of the model that is exported.
        digest: Of its weights.
        licences: Names of the licence files that were copied.
        model: The model; a pixel upscaler may say its licence.
    """
    own = "" if isinstance(model, Stack) else model.about.get("licence", "")
    licence = ", ".join(licences) or own or "not said; ask who made the model"
    return (
        f"# {name}, for ONNX Runtime\n\n"
        f"Made by `restore export {name}` of weights {digest[:12]}. It is run by\n"
        "`restore upscale IN -o OUT --model FOLDER --engine onnx`, or `restore.load(FOLDER, "
        'engine="onnx")`.\n\n'
        f"Licence of the weights: {licence}.\n"
    )
