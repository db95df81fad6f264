"""Load one .safetensors file of the Stable Diffusion family, in the original layout."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from diffusers.loaders import single_file_utils as theirs
from transformers import CLIPTextConfig

from restore.checkpoints import families, hub
from restore.checkpoints.components import Convert
from restore.checkpoints.file_kinds import (
    CLIP,
    OTHERS,
    REFINER,
    UNET,
    VAE,
    XL_CLIP,
    XL_OPEN_CLIP,
)
from restore.checkpoints.weights import Weights, read_file
from restore.errors import ModelError

CONFIGS = [f"{part}/*.{kind}" for part in families.PARTS for kind in ("json", "txt")]


def read(path: Path) -> Weights:
    """Read the tensors of a file of SD 1.x, 2.x or SDXL, their inpainters or the x4 upscaler.

    Raises:
        ModelError: If it is of another family, or holds one part only.
    """
    weights = read_file(path)
    refuse_others(path, weights)
    is_xl = any(name.startswith(XL_CLIP) for name in weights)
    texts = [("text encoder", XL_CLIP), ("second text encoder", XL_OPEN_CLIP)]
    texts = texts if is_xl else [("text encoder", CLIP)]
    for part, prefix in (("unet", UNET), ("vae", VAE), *texts):
        if not any(name.startswith(prefix) for name in weights):
            raise ModelError(
                f"{path}: holds no {part} ({prefix}...): it is no whole checkpoint of the Stable "
                "Diffusion family; give a whole one, or a diffusers folder"
            )
    return weights


def refuse_others(path: Path, weights: Weights) -> None:
    """Raise ModelError if the tensors are of an unsupported family."""
    if any(name.startswith(REFINER) for name in weights):
        raise ModelError(
            f"{path}: is SDXL's refiner, which goes on with the sampling of SDXL's base; what "
            "works alone is the base: take that one"
        )
    others = (*OTHERS, *(UNET + name for name in OTHERS))
    other = next(
        (
            name
            for name in weights
            if name.startswith(others)
            or (name.startswith("conditioner.") and not name.startswith((XL_CLIP, XL_OPEN_CLIP)))
        ),
        None,
    )
    if other:
        raise ModelError(f"{path}: is of another family ({other}); {families.ABLE}")


def configs_for(path: Path, weights: Weights, config: str | None, offline: bool) -> Path:
    """Find the folder of configs, tokenizer and schedulers, which a single file does not hold.

    Args:
        path: The file, for messages.
        weights: Its tensors.
        config: A diffusers folder of the same family, or a hub id. None: the one that diffusers
            names for it. A file of SD 2.x does not say whether it predicts noise or v; the folder
            does.
        offline: Do not use the network.

    Raises:
        ModelError: If there is none; it says what is needed.
    """
    name = config or theirs.fetch_diffusers_config(weights)["pretrained_model_name_or_path"]
    folder = Path(name)
    if not folder.is_dir():
        if not hub.HUB_ID.fullmatch(name):
            raise ModelError(f"config: {name} is neither a folder nor a hub id")
        try:
            folder = hub.fetch(name, None, offline, [*CONFIGS, "model_index.json"])
        except ModelError as error:
            raise ModelError(
                f"{path}: holds weights only; its configs and CLIP's vocabulary come from a "
                "diffusers folder of the same family: give one (config=FOLDER, "
                f"--config-from FOLDER; its own weights are not needed)\n{error}"
            ) from error
    if not (folder / "unet" / "config.json").is_file():
        raise ModelError(f"{folder}: is no diffusers folder: it has no unet/config.json")
    return folder


def refuse_other_prediction(path: Path, weights: Weights, prediction: str) -> None:
    """Raise ModelError if the file says that it predicts v, but the configs do not."""
    if "v_pred" in weights and prediction != "v_prediction":
        raise ModelError(
            f"{path}: predicts v, as its tensor v_pred says, and the configs say {prediction}; "
            "give --config-from FOLDER whose scheduler config says prediction_type v_prediction"
        )


def converter(weights: Weights) -> Convert:
    """Return a function that converts the weights of one part to diffusers' names."""

    def convert(part: str, config: dict[str, Any]) -> Weights:
        remaining = dict(weights)  # diffusers' functions remove the tensors they use
        try:
            if part == "unet":
                return theirs.convert_ldm_unet_checkpoint(remaining, config)
            if part == "vae":
                return theirs.convert_ldm_vae_checkpoint(remaining, config)
            like = SimpleNamespace(config=CLIPTextConfig(**config))
            if part == "text_encoder_2":
                return theirs.convert_open_clip_checkpoint(like, remaining, prefix=XL_OPEN_CLIP)
            if theirs.is_open_clip_model(remaining):
                return theirs.convert_open_clip_checkpoint(like, remaining)
            return theirs.convert_ldm_clip_checkpoint(remaining)
        except (KeyError, IndexError, AttributeError) as error:
            raise ModelError(
                f"its {part} lacks {error} and does not fit the configs it was given; take "
                "those of the same family"
            ) from error

    return convert
