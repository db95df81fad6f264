"""Build a component of a checkpoint: class from an allow-list, weights checked key by key."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
from accelerate import init_empty_weights
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    ControlNetModel,
    SchedulerMixin,
    UNet2DConditionModel,
    UNet2DModel,
    VQModel,
)
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from restore.checkpoints import configs, families
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
from restore.storage import sealed

Convert = Callable[[str, dict[str, Any]], Weights]
"""(name of a part, its config) -> its weights, with diffusers' tensor names"""

KINDS: dict[str, tuple[type[nn.Module], ...]] = {
    "vae": (AutoencoderKL, AutoencoderTiny, VQModel),
    "vqvae": (VQModel,),
    "unet": (UNet2DConditionModel, UNet2DModel),
    "text_encoder": (CLIPTextModel,),
    "text_encoder_2": (CLIPTextModelWithProjection,),
    "restorer": (Restorer,),
    "fusion": (Fusion,),
    "controlnet": (ControlNetModel,),
}
# What a class may raise for a config that makes no sense.
BUILDING = (TypeError, ValueError, KeyError, RuntimeError, NotImplementedError)
BUILDING += (AttributeError, IndexError, ArithmeticError, AssertionError)
# Pipelines of diffusers that correct old folders, whose schedulers lack steps_offset or have 0.
OFFSET_BY_ONE = {
    *("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline"),
    "StableDiffusionInpaintPipeline",
}


def kind_of(folder: Path, part: str, config: dict[str, Any]) -> type[nn.Module]:
    """Return the class that a component's config names.

    Raises:
        ModelError: If it is not on the allow-list.
    """
    listed = config.get("architectures")
    named = config.get("_class_name") or (
        listed[0] if isinstance(listed, list) and listed else None
    )
    for kind in KINDS[part]:
        if kind.__name__ == named:
            return kind
    able = ", ".join(kind.__name__ for kind in KINDS[part])
    raise ModelError(f"{folder}: its {part} is a {named}; what can be read here is {able}")


def build(folder: Path, part: str, convert: Convert, kind: str = "") -> nn.Module:
    """Build a component from its config and weights, in fp32 on the CPU.

    Args:
        folder: The model folder.
        part: The component's folder in it.
        convert: Gives the weights.
        kind: Which component it is, if its folder has another name.

    Raises:
        ModelError: As `empty`, and if the weights are not exactly those that it needs.
    """
    module, config = empty(folder, part, kind)
    fill(module, convert(part, config), f"{folder}: its {part}")
    return module


def empty(folder: Path, part: str, kind: str = "") -> tuple[nn.Module, dict[str, Any]]:
    """Build a component from its config, without weights.

    Args:
        folder: The model folder.
        part: The component's folder in it.
        kind: Which component it is, if its folder has another name.

    Returns:
        The component and the fields of its config that were used.

    Raises:
        ModelError: If its class is unknown, or it needs inputs that no layout has.
    """
    config = configs.of(folder, part)
    built = kind_of(folder, kind or part, config)
    if part == "unet":
        second = families.read(folder / "text_encoder_2" / "config.json")
        families.refuse_unet(config, second, str(folder))
    if part == "vae" and (config.get("latents_mean") or config.get("latents_std")):
        raise ModelError(
            f"{folder}: its vae has a scale for each channel (latents_mean), as Playground v2.5; "
            "what can be read has one for all"
        )
    return bare(built, config, folder / part)


def bare(
    kind: type[nn.Module], config: dict[str, Any], where: Path
) -> tuple[nn.Module, dict[str, Any]]:
    """Build a module without weights.

    Args:
        kind: Its class.
        config: Its config.
        where: Its folder, for messages.

    Returns:
        The module and the fields of its config that were used.

    Raises:
        ModelError: If the class refuses the config.
    """
    try:
        is_clip = issubclass(kind, CLIPTextModel | CLIPTextModelWithProjection)
        config = configs.clip(config) if is_clip else configs.fields_of(config, kind)
        with init_empty_weights(include_buffers=False):
            return kind(CLIPTextConfig(**config)) if is_clip else kind.from_config(config), config
    except BUILDING as error:
        message = f"{where}: no {kind.__name__} can be built of its config: {error}"
        raise ModelError(message) from error


def build_restorer(folder: Path) -> FirstStage | None:
    """Build the first stage of a model folder, in fp32 on the CPU; None if it has none.

    Raises:
        ModelError: As `build`.
    """
    if not sealed.is_dir(folder / "restorer"):
        return None
    rich = build(folder, "restorer", lambda part, _: read_weights(folder, part))
    path = folder / "restorer" / FAITHFUL
    faithful = fusion = None
    if sealed.is_file(path):
        faithful = build(folder, "restorer", lambda *_: read_file(path))
    if sealed.is_dir(folder / "fusion"):
        fusion = build(folder, "fusion", lambda part, _: read_weights(folder, part))
    return FirstStage(rich, faithful, fusion)


def trained_vae(folder: Path) -> Vae:
    """Build the autoencoder of a model folder, in fp32 on the CPU. Raises ModelError."""
    if not folder.exists():
        mend = "train its autoencoder first, whose run ends with that folder, or name another"
        raise ModelError(f"{folder}: there is no such model; {mend}")
    made = build(folder, "vae", lambda part, _: read_weights(folder, part))
    assert isinstance(made, Vae)
    return made


def build_scheduler(folder: Path, part: str = "scheduler") -> SchedulerMixin:
    """Build a diffusers scheduler.

    Its config keeps the fields of other schedulers, as diffusers does, for when one of them is
    chosen: Stable Diffusion's own file is PNDM's, but also says how DDIM takes its last step.

    Raises:
        ModelError: If its class is not on the allow-list, or refuses its config.
    """
    config = configs.of(folder, part, "scheduler_config.json")
    name = str(config.get("_class_name"))
    kind = getattr(diffusers, name, None) if name in families.SCHEDULERS else None
    if not (isinstance(kind, type) and issubclass(kind, SchedulerMixin)):
        raise ModelError(
            f"{folder}: its {part} is a {name}, which is not among those that can be read with "
            f"diffusers {diffusers.__version__}; set _class_name in scheduler_config.json to one "
            "that is, such as DDIMScheduler"
        )
    if (families.read(folder / "model_index.json") or {}).get("_class_name") in OFFSET_BY_ONE:
        config["steps_offset"] = 1
    kinds = [getattr(diffusers, known, kind) for known in families.SCHEDULERS]
    try:
        return kind.from_config(configs.fields_of(config, *kinds))
    except BUILDING as error:
        raise ModelError(f"{folder / part}: {name} refuses its config: {error}") from error


def build_tokenizer(folder: Path, words: int, name: str = "tokenizer") -> CLIPTokenizer:
    """Build CLIP's tokenizer.

    Args:
        folder: The model folder.
        words: The number of the text encoder's embeddings, the most tokens it may have.
        name: The tokenizer's folder in it.

    Raises:
        ModelError: If files are missing or damaged, or it has more tokens.
    """
    part = folder / name
    # Without these files the class would make an empty vocabulary, and every word would be unknown.
    if not any(sealed.is_file(part / name) for name in ("tokenizer.json", "vocab.json")):
        raise ModelError(
            f"{part}: has neither tokenizer.json nor vocab.json and merges.txt, CLIP's vocabulary; "
            "copy them from any checkpoint of the same family"
        )
    try:
        with configs.tokenizer(part) as lent:
            tokenizer = CLIPTokenizer.from_pretrained(lent, local_files_only=True)
            tokenizer.name_or_path = str(part)
    except (ModelError, MemoryError):
        raise
    except Exception as error:  # the Rust library raises plain Exception
        raise ModelError(f"{part}: the tokenizer cannot be read: {error}") from error
    if len(tokenizer) > words:
        raise ModelError(
            f"{part}: has {len(tokenizer)} tokens, the text encoder embeds {words}: they are of "
            "different models; copy the tokenizer of the same one"
        )
    return tokenizer
