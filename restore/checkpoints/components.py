"""A part of a checkpoint: its class from an allow-list, its weights checked key by key."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import diffusers
import torch
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
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from restore.checkpoints import configs, families, hub
from restore.diffusion.restorer import FirstStage, Fusion, Restorer
from restore.diffusion.vae import Vae
from restore.errors import ModelError
from restore.files import read_plain

Weights = dict[str, Tensor]
Convert = Callable[[str, dict[str, Any]], Weights]
"""(name of a part, its config) -> its weights, by diffusers' names"""

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
# What a class may raise that is given a config which makes no sense.
BUILDING = (TypeError, ValueError, KeyError, RuntimeError, NotImplementedError)
BUILDING += (AttributeError, IndexError, ArithmeticError, AssertionError)
CLIP_PREFIX = "text_model."  # of CLIPTextModel's keys, until transformers 5.6 and in most files
FAITHFUL = "diffusion_pytorch_model.faithful.safetensors"  # a variant, as diffusers names them
UNUSED = ("position_ids", "text_projection", "text_projection.weight", "logit_scale")
OLD_NAMES = {  # of attention in diffusers below 0.12
    "query": "to_q",
    "key": "to_k",
    "value": "to_v",
    "proj_attn": "to_out.0",
}


def config_of(folder: Path, part: str, file: str = "config.json") -> dict[str, Any]:
    """The config of a part of the folder. Raises ModelError if it cannot be read."""
    path = folder / part / file
    try:
        config = json.loads(read_plain(path, configs.MOST))
        if not isinstance(config, dict):
            raise ValueError("it holds no object")
        return config
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: the {part} has no readable config: {error}") from error


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


def read_weights(folder: Path, part: str, allow_pickle: bool = False) -> Weights:
    """All tensors of a part. Raises ModelError if they are missing, damaged or pickled."""
    files = hub.weight_files(folder / part)
    if not files:
        raise ModelError(
            f"{folder / part}: has no weights (diffusion_pytorch_model or model, .safetensors); "
            "copy or download the part again"
        )
    hub.refuse_pickles(files, allow_pickle)
    return {name: tensor for path in files for name, tensor in read_file(path).items()}


def read_file(path: Path) -> Weights:
    """The tensors of one file. Raises ModelError if it is damaged."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        held = torch.load(path, map_location="cpu", weights_only=True)
        held = held.get("state_dict", held)
        return {name: value for name, value in held.items() if isinstance(value, Tensor)}
    except (SafetensorError, RuntimeError, OSError, ValueError, EOFError) as error:
        raise ModelError(f"{path}: cannot be read, copy it again: {error}") from error
    except Exception as error:
        if type(error).__name__ != "UnpicklingError":
            raise
        raise ModelError(f"{path}: holds more than tensors, which is never loaded") from error


def build(folder: Path, part: str, convert: Convert, kind: str = "") -> nn.Module:
    """A part by its config, filled with what `convert` gives, in fp32 on the CPU.

    kind  which part it is, where its folder is called otherwise.
    Raises ModelError that names the part if its class is unknown, if it asks for what no layout
    gives, or if the weights are not exactly those that it needs.
    """
    config = config_of(folder, part)
    built = kind_of(folder, kind or part, config)
    if part == "unet":
        second = families.read(folder / "text_encoder_2" / "config.json")
        families.refuse_unet(config, second, str(folder))
    if part == "vae" and (config.get("latents_mean") or config.get("latents_std")):
        raise ModelError(
            f"{folder}: its vae has a scale for each channel (latents_mean), as Playground v2.5; "
            "what can be read has one for all"
        )
    module, config = empty(built, config, folder / part)
    fill(module, convert(part, config), f"{folder}: its {part}")
    return module


def empty(
    kind: type[nn.Module], config: dict[str, Any], where: Path
) -> tuple[nn.Module, dict[str, Any]]:
    """A module without weights, and what was taken of its config. Raises ModelError."""
    try:
        is_clip = issubclass(kind, CLIPTextModel | CLIPTextModelWithProjection)
        config = configs.clip(config) if is_clip else configs.fields_of(kind, config)
        with init_empty_weights(include_buffers=False):
            return kind(CLIPTextConfig(**config)) if is_clip else kind.from_config(config), config
    except BUILDING as error:
        message = f"{where}: no {kind.__name__} can be built of its config: {error}"
        raise ModelError(message) from error


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


def fill(module: nn.Module, weights: Weights, what: str) -> None:
    """Put copies of the weights into a module, all of them or ModelError, `what` being its name."""
    wanted = module.state_dict()
    weights = {renamed(name, wanted): tensor for name, tensor in weights.items()}
    unused = {name for name in weights.keys() - wanted.keys() if name.endswith(UNUSED)}
    for said, names in (
        ("lacks", wanted.keys() - weights.keys()),
        ("has unknown", weights.keys() - wanted.keys() - unused),
    ):
        if names:
            raise ModelError(f"{what} {said} {len(names)} tensors: {first(names)}; {MEND}")
    wrong = [name for name in wanted if wanted[name].shape != weights[name].shape]
    if wrong:
        shown = [f"{n} {tuple(weights[n].shape)}, not {tuple(wanted[n].shape)}" for n in wrong]
        raise ModelError(f"{what} has {len(wrong)} tensors of other shapes: {first(shown)}; {MEND}")
    # Copies: what is mapped from a file changes with it, and starts at addresses of any alignment.
    copies = {
        name: weights[name].to(
            torch.float32 if tensor.is_floating_point() else tensor.dtype, copy=True
        )
        for name, tensor in wanted.items()
    }
    module.load_state_dict(copies, assign=True)


MEND = "config and weights are not of the same model, or the file is cut; copy it again"


def first(names: Iterable[str], count: int = 3) -> str:
    """The first of the names, in their order, and how many are left out."""
    names = sorted(names)
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more


def renamed(name: str, wanted: Weights) -> str:
    """A key as today's class has it: CLIP's prefix came and went, attention was named otherwise."""
    if name in wanted:
        return name
    for other in (name.removeprefix(CLIP_PREFIX), CLIP_PREFIX + name):
        if other in wanted:
            return other
    for old, new in OLD_NAMES.items():
        other = name.replace(f".{old}.", f".{new}.")
        if other in wanted:
            return other
    return name


def build_scheduler(folder: Path, part: str = "scheduler") -> SchedulerMixin:
    """One of diffusers' own schedulers. Raises ModelError for any other class."""
    config = config_of(folder, part, "scheduler_config.json")
    name = str(config.get("_class_name"))
    kind = getattr(diffusers, name, None) if name in families.SCHEDULERS else None
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


def build_tokenizer(folder: Path, words: int, name: str = "tokenizer") -> CLIPTokenizer:
    """CLIP's tokenizer, over at most as many words as the text encoder has embeddings."""
    part = folder / name
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
