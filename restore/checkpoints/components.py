"""A part of a checkpoint: its class from an allow-list, its weights checked key by key."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
from accelerate import init_empty_weights
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    SchedulerMixin,
    UNet2DConditionModel,
    UNet2DModel,
    VQModel,
)
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from restore.checkpoints import configs
from restore.checkpoints.weights import (
    FAITHFUL,
    Weights,
    fill,
    read_file,
    read_weights,
)
from restore.diffusion.compact import FirstStage
from restore.diffusion.restorer import Fusion, Restorer
from restore.diffusion.vae import Vae
from restore.errors import ModelError

Convert = Callable[[str, dict[str, Any]], Weights]
"""(name of a part, its config) -> its weights, by diffusers' names"""

KINDS: dict[str, tuple[type[nn.Module], ...]] = {
    "vae": (AutoencoderKL, AutoencoderTiny, VQModel),
    "vqvae": (VQModel,),
    "unet": (UNet2DConditionModel, UNet2DModel),
    "text_encoder": (CLIPTextModel,),
    "restorer": (Restorer,),
    "fusion": (Fusion,),
}
SCHEDULERS = {  # those that published checkpoints name, and ours
    *("DDIMScheduler", "DDPMScheduler", "PNDMScheduler", "LMSDiscreteScheduler", "LCMScheduler"),
    *("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler"),
    *("KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "DEISMultistepScheduler"),
    *("DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler"),
    *("TCDScheduler",),
}
# What a class may raise that is given a config which makes no sense.
BUILDING = (TypeError, ValueError, KeyError, RuntimeError, NotImplementedError)
BUILDING += (AttributeError, IndexError, ArithmeticError, AssertionError)
FOREIGN = {  # what makes a UNet ask for more than time, text and one class
    *("addition_embed_type", "encoder_hid_dim_type", "time_cond_proj_dim", "dual_cross_attention"),
}


def kind_of(folder: Path, part: str, config: dict[str, Any]) -> type[nn.Module]:
    """The class that the part's config names. Raises ModelError if it is not on the allow-list."""
    listed = config.get("architectures")
    named = config.get("_class_name") or (
        listed[0] if isinstance(listed, list) and listed else None
    )
    for kind in KINDS[part]:
        if kind.__name__ == named:
            return kind
    able = ", ".join(kind.__name__ for kind in KINDS[part])
    raise ModelError(f"{folder}: its {part} is a {named}; what can be read here is {able}")


def build(folder: Path, part: str, convert: Convert) -> nn.Module:
    """A part by its config, filled with what `convert` gives, in fp32 on the CPU.

    Raises ModelError as `empty`, and if the weights are not exactly those that it needs.
    """
    module, config = empty(folder, part)
    fill(module, convert(part, config), f"{folder}: its {part}")
    return module


def empty(folder: Path, part: str) -> tuple[nn.Module, dict[str, Any]]:
    """A part by its config, without weights; and what of the config counts.

    Raises ModelError that names the part if its class is unknown, or if it asks for what no layout
    gives.
    """
    config = configs.of(folder, part)
    kind = kind_of(folder, part, config)
    # "text" reads the tokens that every UNet is given
    given = {"addition_embed_type": ("text",)}
    foreign = [
        key
        for key in sorted(FOREIGN)
        if part == "unet" and config.get(key) and str(config[key]) not in given.get(key, ())
    ]
    if foreign:
        raise ModelError(
            f"{folder}: its unet asks for {', '.join(foreign)} (SDXL, adapters, distilled "
            "guidance), which no layout here gives; take one of the SD 1.x or 2.x family"
        )
    try:
        is_clip = kind is CLIPTextModel
        config = configs.clip(config) if is_clip else configs.fields_of(kind, config)
        with init_empty_weights(include_buffers=False):
            if is_clip:
                module = CLIPTextModel(CLIPTextConfig(**config))
            else:
                module = kind.from_config(config)
    except BUILDING as error:
        message = f"{folder / part}: no {kind.__name__} can be built of its config: {error}"
        raise ModelError(message) from error
    return module, config


def build_restorer(folder: Path) -> FirstStage | None:
    """The first stage of a model folder, if it has one, in fp32 on the CPU.

    Raises ModelError as `build` does.
    """
    if not (folder / "restorer").is_dir():
        return None
    rich = build(folder, "restorer", lambda part, _: read_weights(folder, part))
    path = folder / "restorer" / FAITHFUL
    faithful = build(folder, "restorer", lambda *_: read_file(path)) if path.is_file() else None
    fusion = None
    if (folder / "fusion").is_dir():
        fusion = build(folder, "fusion", lambda part, _: read_weights(folder, part))
    return FirstStage(rich, faithful, fusion)


def trained_vae(folder: Path) -> Vae:
    """The autoencoder of a model folder, in fp32 on the CPU. Raises ModelError as `build` does."""
    if not folder.exists():
        mend = "train its autoencoder first, whose run ends with that folder, or name another"
        raise ModelError(f"{folder}: there is no such model; {mend}")
    made = build(folder, "vae", lambda part, _: read_weights(folder, part))
    assert isinstance(made, Vae)
    return made


def build_scheduler(folder: Path, part: str = "scheduler") -> SchedulerMixin:
    """One of diffusers' own schedulers. Raises ModelError for any other class."""
    config = configs.of(folder, part, "scheduler_config.json")
    name = str(config.get("_class_name"))
    kind = getattr(diffusers, name, None) if name in SCHEDULERS else None
    if not (isinstance(kind, type) and issubclass(kind, SchedulerMixin)):
        raise ModelError(
            f"{folder}: its {part} is a {name}, which is not among those that can be read with "
            f"diffusers {diffusers.__version__}; set _class_name in scheduler_config.json to one "
            "that is, such as DDIMScheduler"
        )
    try:
        return kind.from_config(configs.fields_of(kind, config))
    except BUILDING as error:
        raise ModelError(f"{folder / part}: {name} refuses its config: {error}") from error


def build_tokenizer(folder: Path, words: int) -> CLIPTokenizer:
    """CLIP's tokenizer, over at most as many words as the text encoder has embeddings."""
    part = folder / "tokenizer"
    # Without its vocabulary the class would build an empty one, and every word would be unknown.
    if not ((part / "tokenizer.json").is_file() or (part / "vocab.json").is_file()):
        raise ModelError(
            f"{part}: has neither tokenizer.json nor vocab.json and merges.txt, CLIP's vocabulary; "
            "copy them from any checkpoint of the same family"
        )
    try:
        with configs.tokenizer(part) as lent:
            tokenizer = CLIPTokenizer.from_pretrained(lent, local_files_only=True)
            tokenizer.name_or_path = str(part)
    except ModelError:
        raise
    except Exception as error:  # the library in Rust raises this very class
        raise ModelError(f"{part}: the tokenizer cannot be read: {error}") from error
    if len(tokenizer) > words:
        raise ModelError(
            f"{part}: has {len(tokenizer)} tokens, the text encoder embeds {words}: they are of "
            "different models; copy the tokenizer of the same one"
        )
    return tokenizer
