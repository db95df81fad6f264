"""Model folders <-> stacks: ours, and those of diffusers."""

import json
import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from torch import nn

from restore import contexts, manifest, vae
from restore.layouts import TRUST, layout_of
from restore.stack import Stack
from restore.windows import Windows

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def save(stack: Stack, folder: Path, card: str, dtype: torch.dtype = torch.float16) -> None:
    """Write every part as diffusers and transformers do, stack.json, a card and a manifest."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, part in (("vae", stack.vae), ("unet", stack.unet)):
        stored(part, dtype).save_pretrained(folder / name)
    if stack.context:
        part = deepcopy(stack.context)
        part.module = stored(part.module, dtype)
        part.save(folder)
    for path in folder.glob("*/config.json"):
        config = json.loads(path.read_text())
        config.pop("_name_or_path", None)  # a path of the machine it was trained on
        path.write_text(json.dumps(config, indent=2) + "\n")
    stack.schedule.save_pretrained(folder / "scheduler")
    about: dict[str, Any] = {"trust": stack.layout == TRUST, "residual_scale": stack.residual_scale}
    about["context"] = stack.context.kind if stack.context else None
    about["windows"] = {"size": stack.windows.size, "stride": stack.windows.stride}
    (folder / "stack.json").write_text(json.dumps(about, indent=1) + "\n")
    (folder / "README.md").write_text(card)
    manifest.write(folder)


def stored(part: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy of the part as it is written to disk."""
    # nn.Module's own `to`: diffusers' warns of a list of fp32 layers that is empty here
    part = nn.Module.to(deepcopy(part), dtype=dtype)
    return part.to(memory_format=torch.contiguous_format)


def load(name: str, device: str = "auto", dtype: str = "auto") -> Stack:
    """A stack that ships with the package, by its name, or one in a folder, by its path.

    device  auto, cpu, cuda, mps: auto takes the accelerator if there is one.
    dtype   fp32, bf16 or fp16: what the UNet computes in; the VAE stays in fp32. auto is fp32 on
            the CPU, where it is exact whatever the batch, and bf16 elsewhere.
    Raises ModelError if the folder is missing, damaged or of another layout. No network is used.
    """
    folder, digest = manifest.find_model(name)
    quiet()
    about = json.loads((folder / "stack.json").read_text())
    given = {"local_files_only": True, "torch_dtype": torch.float32}
    autoencoder = AutoencoderTiny.from_pretrained(folder / "vae", **given)
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", **given)
    context = contexts.load(folder, about.get("context", "text"))
    stack = Stack(
        vae=autoencoder,
        unet=unet,
        context=context,
        schedule=DDIMScheduler.from_pretrained(folder / "scheduler", local_files_only=True),
        layout=layout_of(unet.config, vae.channels(autoencoder), about.get("trust", False)),
        windows=Windows(**about["windows"]),
        residual_scale=about["residual_scale"],
        name=name,
        digest=digest,
    )
    where = torch.device(pick_device() if device == "auto" else device)
    for part in (autoencoder, unet, context.module):
        part.requires_grad_(False).eval().to(where)
    for part in (autoencoder, unet):
        part.to(memory_format=torch.channels_last)
    if dtype == "auto":
        dtype = "fp32" if where.type == "cpu" else "bf16"
    unet.to(dtype=DTYPES[dtype])
    return stack


def quiet() -> None:
    """Keep the libraries' notes on configs and their loading bars out of a user's terminal."""
    diffusers.utils.logging.set_verbosity_error()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def pick_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
