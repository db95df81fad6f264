"""Read a LoRA's file: tensors by peft's names, and only allowed and typed metadata."""

import json
from pathlib import Path
from typing import Annotated, Any

from diffusers.loaders import StableDiffusionLoraLoaderMixin, StableDiffusionXLLoraLoaderMixin
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from diffusers.utils import convert_state_dict_to_peft, convert_unet_state_dict_to_peft
from diffusers.utils.state_dict_utils import StateDictType
from pydantic import Field, ValidationError
from torch import nn

from restore.checkpoints import configs, hub
from restore.checkpoints.weights import CLIP_PREFIX, Weights, first
from restore.errors import ModelError
from restore.storage import sealed, tensor_files

PREFIXES = "unet", "text_encoder", "text_encoder_2"
DORA = (
    "is a DoRA, which would be applied as the plain LoRA that it is not; merge it where it was made"
)
Name = Annotated[str, Field(pattern=r"^\^?[\w.]+$", max_length=256)]  # a layer, no pattern
Targets = dict[str, nn.Module]  # the modules that LoRAs are for, by the prefix of their keys


def read(path: Path, targets: Targets, model: str) -> tuple[Weights, dict[str, Any]]:
    """Read a LoRA.

    Args:
        path: The file.
        targets: The modules that it may change, by the prefix of their keys.
        model: The checkpoint's name in messages.

    Returns:
        The tensors, named `unet.X.lora_A.weight` or `text_encoder...`, and peft's configs for them.

    Raises:
        ModelError: If a tensor of the file does not fit a module of the targets.
    """
    state, about = named(path, targets, model)
    for prefix, module in targets.items():
        check(part(state, prefix), prefix, module, path)
    return state, config_of(state, about, path)


def part(tensors: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Return the items of one target, without its prefix."""
    start = f"{prefix}."
    return {key.removeprefix(start): tensors[key] for key in tensors if key.startswith(start)}


def named(path: Path, targets: Targets, model: str) -> tuple[Weights, dict[str, "About"]]:
    """Return the tensors by our names, and their metadata by part."""
    tensors, metadata = tensors_of(path)
    count = sum(not name.endswith(".alpha") for name in tensors)
    is_xl = "text_encoder_2" in targets
    mixin = StableDiffusionXLLoraLoaderMixin if is_xl else StableDiffusionLoraLoaderMixin
    # needed to renumber SDXL's blocks: kohya's files use the names of SDXL's authors
    how = {"unet_config": targets["unet"].config} if is_xl else {}
    try:
        state, alphas, *_ = mixin.lora_state_dict(tensors, local_files_only=True, **how)
        # beside names other than kohya's, diffusers leaves alphas among the tensors
        beside = {key: float(state.pop(key)) for key in list(state) if key.endswith(".alpha")}
    except (OSError, ValueError, KeyError, IndexError, RuntimeError) as error:
        raise ModelError(f"{path}: is no LoRA that diffusers can read: {error}") from error
    if len(state) != count:  # it reads one naming of blocks, and drops others without a message
        raise ModelError(
            f"{path}: names its layers in two ways, of which diffusers reads {len(state)} of "
            f"{count} tensors; save it again"
        )
    about = {prefix: read_about(metadata, prefix, path) for prefix in PREFIXES} if metadata else {}
    if state and all(key.startswith(hub.OF_PEFT) for key in state):
        prefix = part_of(state, targets)
        state = {f"{prefix}.{key.removeprefix(hub.OF_PEFT)}": t for key, t in state.items()}
        about = {prefix: read_peft_about(path)}
    foreign = [key for key in state if not key.startswith(tuple(f"{p}." for p in targets))]
    if foreign or not state:
        able = " and ".join(targets) or "nothing"
        raise ModelError(
            f"{path}: holds {first(foreign) or 'nothing'}, which {model} has not; a LoRA here "
            f"is for {able} of the same family as the checkpoint"
        )
    ours = by_peft(state, targets)
    # Kohya's alphas are named after their tensor or its layer.
    by_weight = {
        name if name.endswith(".weight") else f"{name}.lora.down.weight": alpha
        for name, alpha in ((key.removesuffix(".alpha"), a) for key, a in (alphas or {}).items())
    }
    by_weight |= {f"{key.removesuffix('.alpha')}.lora_A.weight": a for key, a in beside.items()}
    alphas = by_peft(by_weight, targets)
    return ours, about or {"": About(alphas=alphas)}


def by_peft(state: dict[str, Any], targets: Targets) -> dict[str, Any]:
    """Rename keys to peft's names, `X.lora_A.weight`, for our modules."""
    renamed = {}
    for prefix, module in targets.items():
        bare = part(state, prefix)
        if prefix == "unet":
            # A UNet that pools its text has projections named as in a text encoder.
            bare = convert_state_dict_to_peft(bare, StateDictType.DIFFUSERS)
            bare = convert_unet_state_dict_to_peft(bare)
        else:
            # This mapping also covers the newer names.
            bare = convert_state_dict_to_peft(bare, StateDictType.DIFFUSERS_OLD)
            if not hasattr(module, "text_model"):
                bare = {key.removeprefix(CLIP_PREFIX): value for key, value in bare.items()}
        renamed |= {f"{prefix}.{key}": value for key, value in bare.items()}
    return renamed


class About(configs.Told):
    """Metadata of a LoRA that are read; all other fields are ignored."""

    r: int | None = Field(None, ge=1, le=65536)
    lora_alpha: float = Field(8, ge=-(10**6), le=10**6)  # peft's default
    rank_pattern: dict[Name, int] = {}
    alpha_pattern: dict[Name, float] = {}
    use_rslora: bool = False
    use_dora: bool = False
    alphas: dict[str, float] | None = None  # by tensor, if the file has only alphas


def read_about(metadata: Any, prefix: str, path: Path) -> About:
    """Read the metadata of a part from diffusers' metadata. Raises ModelError."""
    if not isinstance(metadata, dict):
        raise ModelError(f"{path}: its metadata are no table; save the LoRA again")
    own = part({str(key): value for key, value in metadata.items()}, prefix)
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


def tensors_of(path: Path) -> tuple[Weights, Any]:
    """Return the tensors of a file, and diffusers' metadata of a LoRA, if it has them.

    Raises:
        ModelError: If the file is a DoRA, which would be applied as a plain LoRA.
    """
    try:
        tensors, metadata = tensor_files.load(path)
        values = json.loads(metadata.get(LORA_ADAPTER_METADATA_KEY) or "null")
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: is no LoRA that can be read: {error}") from error
    if words := [name for name in tensors if name.startswith("bundle_emb.")]:
        raise ModelError(
            f"{path}: holds embeddings of new words ({first(words)}), which are not read here, and "
            "layers that rely on them; take a LoRA without them"
        )
    if any("dora_scale" in name or "magnitude_vector" in name for name in tensors):
        raise ModelError(f"{path}: {DORA}")
    return tensors, values


def config_of(state: Weights, about: dict[str, About], path: Path) -> dict[str, Any]:
    """Make peft's config: ranks and layers from the tensors, alphas from metadata, else the rank.

    Raises:
        ModelError: If metadata and tensors contradict each other.
    """
    config: dict[str, Any] = {}
    for prefix in PREFIXES:
        settings = about.get(prefix) or about.get("")
        ranks, scales = {}, {}
        for key, tensor in state.items():
            if not (key.startswith(f"{prefix}.") and key.endswith(".lora_A.weight")):
                continue
            name = key.removeprefix(f"{prefix}.").removesuffix(".lora_A.weight")
            ranks[f"^{name}"] = rank = len(tensor)
            scales[f"^{name}"] = rank
            if settings and settings.alphas is not None:
                scales[f"^{name}"] = settings.alphas.get(key, rank)
            elif settings:
                wanted = of_layer(settings.rank_pattern, name, settings.r or rank)
                if wanted != rank:
                    raise ModelError(
                        f"{path}: peft refuses it: {name} has rank {rank}, not {wanted}"
                    )
                scales[f"^{name}"] = of_layer(settings.alpha_pattern, name, settings.lora_alpha)
        if ranks:
            config[f"{prefix}.target_modules"] = [name.removeprefix("^") for name in ranks]
            config[f"{prefix}.rank_pattern"] = ranks
            config[f"{prefix}.alpha_pattern"] = scales
            config[f"{prefix}.use_rslora"] = bool(settings and settings.use_rslora)
    return config


def of_layer(patterns: dict[str, Any], name: str, default: Any) -> Any:
    """Return the value for a layer; keys are its whole name, the end of it, or ^ and the whole."""
    for key, value in patterns.items():
        bare = key.removeprefix("^").removeprefix(CLIP_PREFIX)
        is_end = not key.startswith("^") and f".{name}".endswith(f".{bare}")
        if is_end or name.removeprefix(CLIP_PREFIX) == bare:
            return value
    return default


def part_of(state: Weights, targets: Targets) -> str:
    """Return the target whose modules PEFT's keys name; they have no prefix."""
    name = next(iter(state)).removeprefix(hub.OF_PEFT).split(".lora_")[0]
    for prefix, module in targets.items():
        if name in dict(module.named_modules()) or name.startswith(CLIP_PREFIX):
            return "text_encoder" if name.startswith(CLIP_PREFIX) else prefix
    return "unet"


def read_peft_about(path: Path) -> About:
    """Read PEFT's adapter_config.json; without it alpha would be taken for the rank."""
    beside = path.with_name(hub.PEFT_CONFIG)
    try:
        held = json.loads(sealed.read(beside, configs.MOST))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{beside}: PEFT's weights need their config: {error}") from error
    held = {f"unet.{key}": value for key, value in held.items()} if isinstance(held, dict) else None
    return read_about(held, "unet", beside)


def check(state: Weights, prefix: str, module: nn.Module, path: Path) -> None:
    """Raise ModelError if a tensor does not fit a module."""
    modules = dict(module.named_modules())
    wrong, foreign = [], []
    for key, tensor in state.items():
        name, _, suffix = key.rpartition(".lora_")
        layer = modules.get(name)
        base = getattr(layer, "base_layer", layer)
        if (
            base is None
            or not isinstance(base, nn.Linear | nn.Conv2d)
            or suffix not in ("A.weight", "B.weight")
        ):
            foreign.append(f"{prefix}.{key}")
            continue
        is_a = suffix == "A.weight"
        partner = state.get(f"{name}.lora_{'B' if is_a else 'A'}.weight", tensor[:0])
        # A has the layer's inputs, B its outputs, and both have the rank.
        fits = tensor.ndim == partner.ndim == base.weight.ndim and (
            tensor.shape[is_a] == base.weight.shape[is_a]
            and tensor.shape[not is_a] == partner.shape[is_a]
        )
        if not fits:
            wrong.append(f"{prefix}.{key} {tuple(tensor.shape)} on {tuple(base.weight.shape)}")
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
