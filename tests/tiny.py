"""Tiny random checkpoints in diffusers' own format, saved by the stock pipelines."""

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    LDMSuperResolutionPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionUpscalePipeline,
    UNet2DConditionModel,
    UNet2DModel,
    VQModel,
)
from transformers import CLIPTextConfig, CLIPTextModel

from restore.training.diffusion import letters

WINDOW = 16  # latents a UNet is made for, on a side
BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def autoencoder(levels: int = 2, **more) -> AutoencoderKL:
    """Of factor 2 ** (levels - 1), with next to no spread, so that a sample is the mode."""
    made = AutoencoderKL(
        block_out_channels=(16,) * levels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        norm_num_groups=4,
        **more,
    )
    with torch.no_grad():
        made.quant_conv.weight[made.config.latent_channels :] = 0
        made.quant_conv.bias[made.config.latent_channels :] = -30
    return made


def unet(channels: int, **more) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=WINDOW,
        in_channels=channels,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=4,
        **more,
    )


def text_encoder(tokenizer, layers: int = 2) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=layers,
            num_attention_heads=2,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def schedule(prediction: str = "epsilon") -> DDIMScheduler:
    """Numbered as Stable Diffusion's own."""
    return DDIMScheduler(
        **BETAS,
        prediction_type=prediction,
        steps_offset=1,
        set_alpha_to_one=False,
        clip_sample=False,
    )


def base(channels: int = 4, prediction: str = "epsilon"):
    """Stable Diffusion's text to image, or with 9 channels its inpainter."""
    tokenizer = letters()
    kind = StableDiffusionPipeline if channels == 4 else StableDiffusionInpaintPipeline
    return kind(
        vae=autoencoder(),
        unet=unet(channels),
        text_encoder=text_encoder(tokenizer),
        tokenizer=tokenizer,
        scheduler=schedule(prediction),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def inpainter():
    return base(9)


def x4():
    """Stable Diffusion's x4 upscaler: noise level as class, v prediction."""
    tokenizer = letters()
    return StableDiffusionUpscalePipeline(
        vae=autoencoder(levels=3, scaling_factor=0.08333),
        unet=unet(7, num_class_embeds=1000),
        text_encoder=text_encoder(tokenizer),
        tokenizer=tokenizer,
        scheduler=schedule("v_prediction"),
        low_res_scheduler=DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        max_noise_level=350,
    )


def ldm():
    """Latent diffusion's x4 upscaler: VQ, no text."""
    vqvae = VQModel(
        block_out_channels=(16,) * 3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=3,
        num_vq_embeddings=64,
        norm_num_groups=4,
    )
    return LDMSuperResolutionPipeline(
        vqvae=vqvae,
        unet=UNet2DModel(
            sample_size=WINDOW,
            in_channels=6,
            out_channels=3,
            block_out_channels=(16, 32),
            layers_per_block=1,
            norm_num_groups=4,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=4,
        ),
        scheduler=schedule(),
    )


KINDS = {"base": base, "inpainting": inpainter, "x4": x4, "ldm": ldm}


def checkpoint(folder: Path, kind: str, **more) -> Path:
    """The folder of a pipeline of random weights, the same on every call."""
    torch.manual_seed(0)
    KINDS[kind](**more).save_pretrained(folder)
    return folder
