"""model_index.json, by which diffusers' pipelines load a folder that we save."""

from typing import Any

import diffusers
from torch import nn

from restore.diffusion.contexts.text import TextContext
from restore.diffusion.contexts.two_texts import TwoTextContext
from restore.diffusion.layouts import BASE, INPAINTING, LDM_UPSCALE, TRUST, X4
from restore.diffusion.stack import Stack

PIPELINES = {  # the pipeline class for each layout; the first three need text encoders
    BASE: "StableDiffusionPipeline",
    INPAINTING: "StableDiffusionInpaintPipeline",
    X4: "StableDiffusionUpscalePipeline",
    LDM_UPSCALE: "LDMSuperResolutionPipeline",
    TRUST: "RestorationPipeline",  # ours, in restore.pipelines.restoration
}
XL_PIPELINES = {BASE: "StableDiffusionXLPipeline", INPAINTING: "StableDiffusionXLInpaintPipeline"}
MAX_NOISE_LEVEL = 350  # of SD's x4 upscaler, as published


def of(stack: Stack, names: dict[str, nn.Module]) -> dict[str, Any]:
    """Return the content of model_index.json for a stack.

    Args:
        stack: The model.
        names: Its UNet and VAE by the names of their folders.
    """
    parts: dict[str, Any] = {**names, "scheduler": stack.schedule}
    if isinstance(stack.context, TextContext):
        parts |= {"text_encoder": stack.context.module, "tokenizer": stack.context.tokenizer}
    pipelines = PIPELINES
    if isinstance(stack.context, TwoTextContext):
        pipelines = XL_PIPELINES
        parts |= dict(stack.context.module.named_children())
        parts |= dict(zip(("tokenizer", "tokenizer_2"), stack.context.tokenizers, strict=True))
    if stack.low_schedule:
        parts["low_res_scheduler"] = stack.low_schedule
    if stack.restorer:
        parts["restorer"] = stack.restorer.rich
        parts |= {"fusion": stack.restorer.fusion} if stack.restorer.fusion else {}
    index: dict[str, Any] = {
        name: [module_of(type(part)), type(part).__name__] for name, part in parts.items()
    }
    if isinstance(stack.context, TwoTextContext):
        index["force_zeros_for_empty_prompt"] = stack.context.zeroes
    elif stack.layout in (BASE, INPAINTING):
        index |= {"safety_checker": [None, None], "feature_extractor": [None, None]}
        index["requires_safety_checker"] = False
    if stack.layout == X4:
        index["max_noise_level"] = MAX_NOISE_LEVEL
    about = {
        "_class_name": pipelines[stack.layout],
        "_diffusers_version": diffusers.__version__,
    }
    return about | index


def module_of(kind: type) -> str:
    """Return the library where the name of a class is found."""
    library = kind.__module__.partition(".")[0]
    return kind.__module__ if library == "restore" else library
