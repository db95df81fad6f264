"""Find the family of a pipeline from its configs, before weights are downloaded or read.

This module does not import torch or diffusers.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from restore.checkpoints import configs
from restore.errors import ModelError
from restore.storage import sealed

ABLE = (
    "what can be read is SD 1.x, 2.x and SDXL, their inpainters, the x4 upscaler and latent "
    "diffusion's VQ models"
)
PARTS = (
    *("vae", "vqvae", "unet", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"),
    *("scheduler", "low_res_scheduler", "restorer", "fusion"),
)
IGNORED = {"safety_checker", "feature_extractor", "image_encoder"}  # components without use
CLASSES = {  # the classes of diffusers and transformers that a component may have
    "vae": ("AutoencoderKL", "AutoencoderTiny", "VQModel"),
    "vqvae": ("VQModel",),
    "unet": ("UNet2DConditionModel", "UNet2DModel"),
    "text_encoder": ("CLIPTextModel",),
    "text_encoder_2": ("CLIPTextModelWithProjection",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
    "tokenizer_2": ("CLIPTokenizer", "CLIPTokenizerFast"),
}
SCHEDULERS = {  # those of published checkpoints, and ours
    *("DDIMScheduler", "DDPMScheduler", "PNDMScheduler", "LMSDiscreteScheduler", "LCMScheduler"),
    *("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler"),
    *("KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "DEISMultistepScheduler"),
    *("DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler"),
    *("TCDScheduler",),
}
CONTROLNET = "ControlNetModel"
NAMES = {  # common names of families, by the beginning of their pipelines' class names
    "Flux": "Flux",
    "StableDiffusion3": "Stable Diffusion 3",
    "StableCascade": "Stable Cascade",
    "StableVideo": "Stable Video Diffusion",
    "PixArt": "PixArt",
    "Sana": "Sana",
    "Kandinsky": "Kandinsky",
    "QwenImage": "Qwen-Image",
    "IF": "DeepFloyd IF",
}
ASKS = {  # further inputs that a UNet's config may name, and the values that are supported
    "addition_embed_type": ("text", "text_time"),
    "encoder_hid_dim_type": (),
    "time_cond_proj_dim": (),
    "dual_cross_attention": (),
}
XL = "text_time"  # SDXL's UNet reads a pooled prompt and sizes
SIZES = 6  # numbers that SDXL's base reads: three sizes of two; its refiner reads five


def refuse(folder: Path, name: str = "") -> None:
    """Raise ModelError if the configs in a folder show that the model cannot be read.

    Missing files are ignored; they may not be downloaded yet.

    Args:
        folder: The model folder.
        name: The model's name in the message, if it is not the folder.
    """
    index = read(folder / "model_index.json")
    if index is not None:
        refuse_index(index, name or str(folder))
    scheduler = read(folder / "scheduler" / "scheduler_config.json")
    if scheduler is not None and str(scheduler.get("_class_name")) not in SCHEDULERS:
        kind = str(scheduler.get("_class_name"))[:64]
        raise ModelError(
            f"{name or folder}: its scheduler is a {kind}, which is not among those that can be "
            "read; set _class_name in scheduler_config.json to one that is, such as DDIMScheduler"
        )
    unet, vae = (read(folder / part / "config.json") for part in ("unet", "vae"))
    if unet is None:
        return
    refuse_unet(unet, read(folder / "text_encoder_2" / "config.json"), name or str(folder))
    if index is None or sealed.is_file(folder / "stack.json"):  # our stack.json names the layout
        return
    if index.get("text_encoder_2") and unet.get("addition_embed_type") != XL:
        raise ModelError(
            f"{name or folder}: has a text_encoder_2, which its unet does not read: it is of "
            f"another family; {ABLE}"
        )
    channels = unet.get("in_channels"), (vae or {}).get("latent_channels")
    if all(isinstance(count, int) for count in channels):
        from restore.diffusion.layouts import layout_of  # imports torch, needed from here on

        layout_of(unet, channels[1])


def refuse_index(index: Mapping[str, Any], name: str) -> None:
    """Raise ModelError if the components in a model_index.json are of an unsupported family."""
    kind = str(index.get("_class_name"))[:64]
    parts = {key: value for key, value in index.items() if isinstance(value, list) and any(value)}
    known = {*PARTS, *IGNORED}
    extra = [key for key in parts if key not in known]
    extra += [
        f"{key} {parts[key][-1]}"
        for key, classes in CLASSES.items()
        if key in parts and parts[key][-1] not in classes
    ]
    is_xl = "text_encoder_2" in parts
    if index.get("requires_aesthetics_score") is True or (is_xl and "text_encoder" not in parts):
        raise ModelError(
            f"{name}: is SDXL's refiner, which goes on with the sampling of SDXL's base; what "
            "works alone is the base: take that one"
        )
    if extra:
        family = next((said for head, said in NAMES.items() if kind.startswith(head)), "")
        family = f" ({family})" if family else ""
        shown = ", ".join(str(part)[:64] for part in extra[:4])
        raise ModelError(f"{name}: a {kind}{family} with {shown} is of another family; {ABLE}")


def refuse_unet(unet: Mapping[str, Any], second: Mapping[str, Any] | None, name: str) -> None:
    """Raise ModelError if a UNet needs inputs that are not supported.

    Args:
        unet: Its config.
        second: The config of the second text encoder, if there is one.
        name: The model's name in the message.
    """
    foreign = [key for key, able in ASKS.items() if unet.get(key) and str(unet[key]) not in able]
    if unet.get("addition_embed_type") == XL and second is None:
        foreign.append("addition_embed_type text_time, but there is no text_encoder_2 as of SDXL")
    if foreign:
        raise ModelError(
            f"{name}: its unet asks for {', '.join(foreign)} (adapters, distilled guidance), "
            f"which no layout here gives; {ABLE}"
        )
    if unet.get("addition_embed_type") != XL or second is None:
        return
    try:
        wanted = second.get("projection_dim", 512) + SIZES * unet["addition_time_embed_dim"]
    except (KeyError, TypeError) as error:
        raise ModelError(f"{name}: its unet is no SDXL's: it lacks {error}") from error
    if unet.get("projection_class_embeddings_input_dim") != wanted:
        raise ModelError(
            f"{name}: its unet reads {unet.get('projection_class_embeddings_input_dim')} numbers "
            f"beside tokens, SDXL's base {wanted}: perhaps a refiner; take the base"
        )


def refuse_controlnet(folder: Path, name: str) -> None:
    """Raise ModelError if a folder's config is not of a supported ControlNet."""
    config = read(folder / "config.json")
    if config is None:
        raise ModelError(f"{name}: is no ControlNet: it has no config.json")
    kind = config.get("_class_name")
    if kind != CONTROLNET:
        raise ModelError(f"{name}: is a {kind}; what can be read here is a {CONTROLNET}")
    if config.get("global_pool_conditions"):
        raise ModelError(
            f"{name}: pools its picture (global_pool_conditions), as the shuffle ControlNet; what "
            "can be read follows its picture place by place"
        )


def read(path: Path) -> dict[str, Any] | None:
    """Read a config; None if there is none. Raises ModelError."""
    try:
        config = json.loads(sealed.read(path, configs.MOST))
        if not isinstance(config, dict):
            raise ValueError("it holds no object")
        return config
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: no readable config: {error}") from error
