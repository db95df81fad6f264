"""LoRA (Hu et al. 2021) on UNet and text encoder: diffusers', PEFT's and kohya's files, by peft."""

import json
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

from diffusers import UNet2DConditionModel
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.utils import (
    convert_state_dict_to_peft,
    convert_unet_state_dict_to_peft,
    recurse_remove_peft_layers,
)
from diffusers.utils.state_dict_utils import StateDictType
from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open
from torch import nn

from restore.checkpoints import configs, hub
from restore.checkpoints.weights import CLIP_PREFIX, Weights, first
from restore.diffusion.contexts.text import TextContext
from restore.diffusion.stack import Stack
from restore.errors import ModelError
from restore.files import read_plain

OF_PEFT = "base_model.model."  # how the keys of PeftModel.save_pretrained begin
PREFIXES = "unet", "text_encoder"
DORA = (
    "is a DoRA, which would be applied as the plain LoRA that it is not; merge it where it was made"
)
Name = Annotated[str, Field(pattern=r"^\^?[\w.]+$", max_length=256)]  # of a layer, not a pattern


def add(stack: Stack, file: str | Path, scale: float = 1, name: str = "default") -> None:
    """Attach a LoRA; it changes the answers at once, by `scale`, beside those attached before.

    file  .safetensors, or a folder that holds one under diffusers' or PEFT's own name.
    Raises ModelError if peft is missing, or if the file is damaged, of another model, or of
    another shape; the stack is then as it was.
    """
    if not find_spec("peft"):
        raise ModelError("LoRA needs peft: pip install 'restore-toolkit[train]'")
    path = hub.lora_file(file)
    state, about = read(path, stack)
    if any(layer.merged for layer in layers(stack)):
        raise ModelError(f"{path}: unfuse what is fused before another LoRA is added")
    if any(name in layer.scaling for layer in layers(stack)):
        raise ModelError(f"{path}: a LoRA named {name} is there already; give this another name")
    own = {
        prefix: {key: tensor for key, tensor in state.items() if key.startswith(f"{prefix}.")}
        for prefix in targets(stack)
    }
    for prefix, module in targets(stack).items():
        check(own[prefix], prefix, module, path)
    config = config_of(state, about, path)
    try:
        for prefix, module in targets(stack).items():
            if own[prefix]:
                attach(own[prefix], prefix, module, name, config)
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        detach(stack, name)
        raise ModelError(f"{path}: peft refuses it: {error}") from error
    rescale(stack, name, scale)
    for layer in layers(stack):
        layer.set_adapter(list(layer.scaling), inference_mode=True)


def attach(
    state: Weights, prefix: str, module: nn.Module, name: str, about: dict[str, Any]
) -> None:
    """Wrap the layers that the tensors name."""
    from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict

    bare, own = (
        {
            key.removeprefix(f"{prefix}."): v
            for key, v in held.items()
            if key.startswith(prefix + ".")
        }
        for held in (state, about)
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several are meant
        inject_adapter_in_model(LoraConfig(**own), module, name, state_dict=bare)
        set_peft_model_state_dict(module, bare, name)


def detach(stack: Stack, name: str) -> None:
    """Take off one LoRA that is not fused."""
    for module in targets(stack).values():
        for layer in layers_of(module):
            if name in layer.scaling:
                layer.delete_adapter(name)
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
    if hasattr(module, "peft_config"):
        recurse_remove_peft_layers(module)
        del module.peft_config
    return module


def targets(stack: Stack) -> dict[str, nn.Module]:
    """The modules that LoRAs are for, by the prefix of their keys."""
    found: dict[str, nn.Module] = {}
    if isinstance(stack.unet, UNet2DConditionModel):
        found["unet"] = stack.unet
    if isinstance(stack.context, TextContext):
        found["text_encoder"] = stack.context.module
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


def read(path: Path, stack: Stack) -> tuple[Weights, dict[str, "About"]]:
    """(tensors named `unet.X.lora_A.weight` or `text_encoder...`, what is told of them by part)."""
    refuse_dora(path)
    try:
        state, alphas, *more = StableDiffusionLoraLoaderMixin.lora_state_dict(
            str(path.parent),
            weight_name=path.name,  # offline, diffusers 0.38 wants it even for a file
            use_safetensors=True,
            local_files_only=True,
            return_lora_metadata=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{path}: is no LoRA that diffusers can read: {error}") from error
    about = {prefix: told_of(more[0], prefix, path) for prefix in PREFIXES} if more[0] else {}
    if state and all(key.startswith(OF_PEFT) for key in state):
        prefix = part_of(state, stack)
        state = {f"{prefix}.{key.removeprefix(OF_PEFT)}": t for key, t in state.items()}
        about = {prefix: told_by_peft(path)}
    foreign = [key for key in state if not key.startswith(tuple(f"{p}." for p in targets(stack)))]
    if foreign or not state:
        able = " and ".join(targets(stack)) or "nothing"
        raise ModelError(
            f"{path}: holds {first(foreign) or 'nothing'}, which {stack.name} has not; a LoRA here "
            f"is for {able} of the same family as the checkpoint"
        )
    named = by_peft(state, stack)
    # Kohya's alphas are named by the tensor that they go with, or by its layer.
    told = {
        name if name.endswith(".weight") else f"{name}.lora.down.weight": alpha
        for name, alpha in ((key.removesuffix(".alpha"), a) for key, a in (alphas or {}).items())
    }
    alphas = by_peft(told, stack)
    return named, about or {"": About(alphas=alphas)}


def by_peft(state: dict[str, Any], stack: Stack) -> dict[str, Any]:
    """The same values by peft's names, `X.lora_A.weight`, as the stack's own modules are called."""
    named = {}
    for prefix, module in targets(stack).items():
        bare = {
            key.removeprefix(f"{prefix}."): value
            for key, value in state.items()
            if key.startswith(f"{prefix}.")
        }
        if prefix == "unet":
            # A UNet that pools its text has projections named as in a text encoder.
            bare = convert_state_dict_to_peft(bare, StateDictType.DIFFUSERS)
            bare = convert_unet_state_dict_to_peft(bare)
        else:
            # This mapping holds for the newer names as well.
            bare = convert_state_dict_to_peft(bare, StateDictType.DIFFUSERS_OLD)
            if not hasattr(module, "text_model"):
                bare = {key.removeprefix(CLIP_PREFIX): value for key, value in bare.items()}
        named |= {f"{prefix}.{key}": value for key, value in bare.items()}
    return named


class About(configs.Told):
    """What may be told of a LoRA beside its tensors; all else in its metadata is left out."""

    r: int | None = Field(None, ge=1, le=65536)
    lora_alpha: float = Field(8, ge=-(10**6), le=10**6)  # peft's default
    rank_pattern: dict[Name, int] = {}
    alpha_pattern: dict[Name, float] = {}
    use_rslora: bool = False
    use_dora: bool = False
    alphas: dict[str, float] | None = None  # by tensor, where that is all that is told


def told_of(metadata: Any, prefix: str, path: Path) -> About:
    """What diffusers' metadata tell of a part. Raises ModelError."""
    if not isinstance(metadata, dict):
        raise ModelError(f"{path}: its metadata are no table; save the LoRA again")
    own = {
        key.removeprefix(f"{prefix}."): value
        for key, value in metadata.items()
        if str(key).startswith(f"{prefix}.")
    }
    try:
        about = About.model_validate({k: v for k, v in own.items() if k != "alphas"})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ModelError(
            f"{path}: its metadata say of {prefix} {place}: {first['msg']}; names are whole ones "
            "of layers, not patterns"
        ) from error
    if about.use_dora:
        raise ModelError(f"{path}: {DORA}")
    return about


def refuse_dora(path: Path) -> None:
    """Raises ModelError if the tensors are more than a LoRA, which would be applied as one."""
    try:
        with safe_open(path, "pt") as tensors:
            names = list(tensors.keys())
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: is no LoRA that can be read: {error}") from error
    if any("dora_scale" in name or "magnitude_vector" in name for name in names):
        raise ModelError(f"{path}: {DORA}")


def config_of(state: Weights, about: dict[str, About], path: Path) -> dict[str, Any]:
    """peft's config: ranks and layers as the tensors are, alphas as they are told, else the rank.

    Raises ModelError where what is told contradicts the tensors.
    """
    config: dict[str, Any] = {}
    for prefix in PREFIXES:
        said = about.get(prefix) or about.get("")
        ranks, scales = {}, {}
        for key, tensor in state.items():
            if not (key.startswith(f"{prefix}.") and key.endswith(".lora_A.weight")):
                continue
            name = key.removeprefix(f"{prefix}.").removesuffix(".lora_A.weight")
            ranks[f"^{name}"] = rank = len(tensor)
            scales[f"^{name}"] = rank
            if said and said.alphas is not None:
                scales[f"^{name}"] = said.alphas.get(key, rank)
            elif said:
                wanted = of_layer(said.rank_pattern, name, said.r or rank)
                if wanted != rank:
                    raise ModelError(
                        f"{path}: peft refuses it: {name} has rank {rank}, not {wanted}"
                    )
                scales[f"^{name}"] = of_layer(said.alpha_pattern, name, said.lora_alpha)
        if ranks:
            config[f"{prefix}.target_modules"] = [name.removeprefix("^") for name in ranks]
            config[f"{prefix}.rank_pattern"] = ranks
            config[f"{prefix}.alpha_pattern"] = scales
            config[f"{prefix}.use_rslora"] = bool(said and said.use_rslora)
    return config


def of_layer(told: dict[str, Any], name: str, default: Any) -> Any:
    """What is told of a layer, by its whole name or the end of it; ^ marks a whole one."""
    for key, value in told.items():
        bare = key.removeprefix("^").removeprefix(CLIP_PREFIX)
        is_end = not key.startswith("^") and f".{name}".endswith(f".{bare}")
        if is_end or name.removeprefix(CLIP_PREFIX) == bare:
            return value
    return default


def part_of(state: Weights, stack: Stack) -> str:
    """The target whose modules PEFT's keys name; they carry no prefix of their own."""
    name = next(iter(state)).removeprefix(OF_PEFT).split(".lora_")[0]
    for prefix, module in targets(stack).items():
        if name in dict(module.named_modules()) or name.startswith(CLIP_PREFIX):
            return "text_encoder" if name.startswith(CLIP_PREFIX) else prefix
    return "unet"


def told_by_peft(path: Path) -> About:
    """What PEFT's adapter_config.json says; without it alpha would be taken for the rank."""
    beside = path.parent / "adapter_config.json"
    try:
        held = json.loads(read_plain(beside, configs.MOST))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{beside}: PEFT's weights need their config: {error}") from error
    held = {f"unet.{key}": value for key, value in held.items()} if isinstance(held, dict) else None
    return told_of(held, "unet", beside)


def check(state: Weights, prefix: str, module: nn.Module, path: Path) -> None:
    """Raises ModelError unless every tensor has a module that it fits."""
    modules = dict(module.named_modules())
    wrong, foreign = [], []
    for key, tensor in state.items():
        name, _, rest = key.removeprefix(f"{prefix}.").rpartition(".lora_")
        held = modules.get(name)
        base = getattr(held, "base_layer", held)
        if (
            base is None
            or not isinstance(base, nn.Linear | nn.Conv2d)
            or rest not in ("A.weight", "B.weight")
        ):
            foreign.append(key)
            continue
        is_a = rest == "A.weight"
        other = state.get(f"{prefix}.{name}.lora_{'B' if is_a else 'A'}.weight", tensor[:0])
        # A reads what the layer reads, B writes what it writes, and between them is the rank.
        fits = tensor.ndim == other.ndim == base.weight.ndim and (
            tensor.shape[is_a] == base.weight.shape[is_a]
            and tensor.shape[not is_a] == other.shape[is_a]
        )
        if not fits:
            wrong.append(f"{key} {tuple(tensor.shape)} on {tuple(base.weight.shape)}")
    if foreign:
        raise ModelError(
            f"{path}: {len(foreign)} of its tensors name no layer of the {prefix}: "
            f"{first(foreign)}; it is for another model"
        )
    if wrong:
        raise ModelError(
            f"{path}: {len(wrong)} of its tensors do not fit the {prefix}: {first(wrong)}; it is "
            "for another model, such as SD 2.x instead of 1.x"
        )
