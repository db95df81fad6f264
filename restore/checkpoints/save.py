"""Save stacks as folders that diffusers, transformers and we read."""

import json
import shutil
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from restore.checkpoints import lora, manifest, model_index
from restore.checkpoints.weights import CLIP_PREFIX
from restore.diffusion.compact import FirstStage
from restore.diffusion.contexts.text import TextContext
from restore.diffusion.contexts.two_texts import TwoTextContext
from restore.diffusion.layouts import LDM_UPSCALE, TRUST
from restore.diffusion.stack import Stack
from restore.errors import ModelError

SHARD = "14MB"  # largest file of weights, so that repositories and e-mail accept them


def save(
    stack: Stack,
    folder: Path,
    card: str,
    dtype: torch.dtype | None = torch.float16,
    more: Sequence[Path] = (),
) -> None:
    """Write every part as diffusers and transformers do, stack.json, a card and a manifest.

    With a layout of Stable Diffusion's or of latent diffusion's upscaler, model_index.json names
    diffusers' pipeline; with ours, our own.

    Args:
        stack: The model.
        folder: Where to write. A folder that we exported is replaced in one step.
        card: The text of README.md.
        dtype: Of the files. None: fp16 for a part that loses nothing by it, fp32 for others.
        more: Files to copy too, such as licences.

    Raises:
        ModelError: If both ends of its first stage are not of one shape.
        OutputError: If the folder holds files that we did not export.
    """
    lora.require_fused(stack)
    with manifest.replacing(folder) as place:
        place.mkdir(parents=True)
        for path in more:
            shutil.copyfile(path, place / path.name)
        _write_parts(stack, place, card, dtype)


def _write_parts(stack: Stack, folder: Path, card: str, dtype: torch.dtype | None) -> None:
    names = {"unet": stack.unet}
    names["vqvae" if stack.layout == LDM_UPSCALE else "vae"] = stack.vae
    for name, part in names.items():
        cast(part, dtype).save_pretrained(folder / name, max_shard_size=SHARD)
    if stack.restorer:
        save_first_stage(stack.restorer, folder, dtype)
    if stack.context:
        part = deepcopy(stack.context)
        part.module = cast(part.module, dtype)
        part.save(folder)
    for path in folder.glob("*/config.json"):
        config = json.loads(path.read_text())
        config.pop("_name_or_path", None)  # a path of the machine it was trained on
        path.write_text(json.dumps(config, indent=2) + "\n")
    if isinstance(stack.context, TextContext | TwoTextContext):
        prefix_clip(folder / "text_encoder" / "model.safetensors")
    stack.schedule.save_pretrained(folder / "scheduler")
    if stack.low_schedule:
        stack.low_schedule.save_pretrained(folder / "low_res_scheduler")
    has_text = isinstance(stack.context, TextContext | TwoTextContext)
    is_stock = stack.layout in (LDM_UPSCALE, TRUST) or has_text
    if stack.layout in model_index.PIPELINES and is_stock:
        text = json.dumps(model_index.of(stack, names), indent=2)
        (folder / "model_index.json").write_text(text + "\n")
    (folder / "stack.json").write_text(json.dumps(describe(stack), indent=1) + "\n")
    (folder / "README.md").write_text(card, encoding="utf-8")
    manifest.write(folder)


def describe(stack: Stack) -> dict[str, Any]:
    """Return the content of stack.json."""
    facts: dict[str, Any] = {"trust": stack.layout == TRUST, "residual_scale": stack.residual_scale}
    facts |= {"fills": stack.fills, "steps": stack.steps, "hears": stack.prompts_describe}
    if stack.restorer:
        facts |= {"fidelity": stack.fidelity, "restore_steps": stack.restore_steps}
    facts["context"] = stack.context.kind if stack.context else None
    facts["windows"] = {"size": stack.windows.size, "stride": stack.windows.stride}
    return facts


def save_first_stage(stage: FirstStage, folder: Path, dtype: torch.dtype | None) -> None:
    """Write the rich weights, the faithful ones as their variant, and the fusion.

    Raises:
        ModelError: If both ends are not of one shape, since one config describes them.
    """
    if stage.faithful is not None and _shapes(stage.rich) != _shapes(stage.faithful):
        raise ModelError("the rich and the faithful end of a first stage must be of one shape")
    cast(stage.rich, dtype).save_pretrained(folder / "restorer", max_shard_size=SHARD)
    if stage.faithful is not None:
        cast(stage.faithful, dtype).save_pretrained(folder / "restorer", variant="faithful")
    if stage.fusion is not None:
        cast(stage.fusion, dtype).save_pretrained(folder / "fusion")


def _shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


def prefix_clip(path: Path) -> None:
    """Name a text encoder's tensors as published files do.

    transformers 5.0 to 5.5 silently ignore tensors without the prefix; newer ones accept it.
    """
    tensors = {
        CLIP_PREFIX + name.removeprefix(CLIP_PREFIX): tensor
        for name, tensor in load_file(path).items()
    }
    save_file(tensors, path, metadata={"format": "pt"})


def cast(part: nn.Module, dtype: torch.dtype | None) -> nn.Module:
    """Return a copy of the part as it is written to disk; fused LoRAs stay fused."""
    if dtype is None:
        held = (tensor for tensor in part.state_dict().values() if tensor.is_floating_point())
        is_short = all(torch.equal(tensor.half().float(), tensor.float()) for tensor in held)
        dtype = torch.float16 if is_short else torch.float32
    # nn.Module.to, because diffusers' own warns about fp32 layers, and there are none here
    part = nn.Module.to(lora.unwrap(deepcopy(part)), dtype=dtype)
    return part.to(memory_format=torch.contiguous_format)
