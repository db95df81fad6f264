"""Tiny random checkpoints in diffusers' own format, saved by the stock pipelines."""

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    DDPMScheduler,
    LDMSuperResolutionPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionUpscalePipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UNet2DModel,
    VQModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from restore.training.stages.vocabulary import letters

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
    own = {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": 16,
    }
    return UNet2DConditionModel(
        sample_size=WINDOW,
        in_channels=channels,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=4,
        **own | more,
    )


def text_encoder(tokenizer, layers: int = 2, kind=CLIPTextModel) -> CLIPTextModel:
    return kind(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=layers,
            num_attention_heads=2,
            projection_dim=16,
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


def xl(channels: int = 4):
    """SDXL's base, or with 9 channels its inpainter."""
    one, two = letters(), letters()
    two.pad_token = "!"  # as OpenCLIP's has it
    kind = StableDiffusionXLPipeline if channels == 4 else StableDiffusionXLInpaintPipeline
    return kind(
        vae=autoencoder(scaling_factor=0.13025),
        unet=unet(
            channels,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=32,
            transformer_layers_per_block=(1, 2),
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=16 + 6 * 8,
        ),
        text_encoder=text_encoder(one, 3),
        text_encoder_2=text_encoder(two, 4, CLIPTextModelWithProjection),
        tokenizer=one,
        tokenizer_2=two,
        scheduler=schedule(),
        add_watermarker=False,
    )


def xl_inpainter():
    return xl(9)


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


def controlnet(folder: Path, unet: UNet2DConditionModel) -> Path:
    """The folder of a ControlNet for a UNet over a VAE of factor 2, whose answers are not zero."""
    torch.manual_seed(5)
    net = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 16))
    for name, weight in net.named_parameters():
        if name.startswith("controlnet_"):
            torch.nn.init.normal_(weight, std=0.3)
    net.save_pretrained(folder)
    return folder


KINDS = {
    **{"base": base, "inpainting": inpainter, "x4": x4, "ldm": ldm},
    **{"xl": xl, "xl inpainting": xl_inpainter},
}


def checkpoint(folder: Path, kind: str, **more) -> Path:
    """The folder of a pipeline of random weights, the same on every call."""
    torch.manual_seed(0)
    KINDS[kind](**more).save_pretrained(folder)
    return folder


RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
UNET = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "class_embedding": "label_emb",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
VAE = {
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
    "group_norm": "norm",
    "conv_shortcut": "nin_shortcut",
    "conv_norm_out": "norm_out",
    "mid_block.attentions.0": "mid.attn_1",
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.resnets.1": "mid.block_2",
    "downsamplers.0": "downsample",
    "upsamplers.0": "upsample",
}
OPEN_CLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn": "attn",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
OPEN_CLIP_TOP = {
    "encoder.layers": "transformer.resblocks",
    "embeddings.token_embedding": "token_embedding",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm": "ln_final",
}


def single_file(pipe, open_clip: bool = False) -> dict[str, torch.Tensor]:
    """A pipeline's tensors by the names that Stable Diffusion's authors gave them."""
    held = unet_tensors(pipe.unet) | vae_tensors(pipe.vae)
    if isinstance(pipe, StableDiffusionXLPipeline | StableDiffusionXLInpaintPipeline):
        held |= clip_tensors(pipe.text_encoder, "conditioner.embedders.0.transformer.")
        return held | open_clip_tensors(pipe.text_encoder_2, "conditioner.embedders.1.model.")
    text = open_clip_tensors if open_clip else clip_tensors
    return held | text(pipe.text_encoder)


def renamed(name: str, names: dict[str, str]) -> str:
    parts = f".{name}."
    for old, new in names.items():
        parts = parts.replace(f".{old}.", f".{new}.")
    return parts[1:-1]


def unet_tensors(unet: UNet2DConditionModel) -> dict[str, torch.Tensor]:
    layers, levels = unet.config.layers_per_block, len(unet.config.block_out_channels)
    names = dict(UNET)
    for i in range(levels):
        for j in range(layers):
            names[f"down_blocks.{i}.resnets.{j}"] = f"input_blocks.{i * (layers + 1) + j + 1}.0"
            names[f"down_blocks.{i}.attentions.{j}"] = f"input_blocks.{i * (layers + 1) + j + 1}.1"
        names[f"down_blocks.{i}.downsamplers.0.conv"] = (
            f"input_blocks.{(i + 1) * (layers + 1)}.0.op"
        )
        for j in range(layers + 1):
            names[f"up_blocks.{i}.resnets.{j}"] = f"output_blocks.{i * (layers + 1) + j}.0"
            names[f"up_blocks.{i}.attentions.{j}"] = f"output_blocks.{i * (layers + 1) + j}.1"
        after = 1 + hasattr(unet.up_blocks[i], "attentions")
        up = f"output_blocks.{i * (layers + 1) + layers}.{after}.conv"
        names[f"up_blocks.{i}.upsamplers.0.conv"] = up
    made = {}
    for name, tensor in unet.state_dict().items():
        other = renamed(name, names)
        if ".resnets." in name:
            other = renamed(other, RESNET)
        made[f"model.diffusion_model.{other}"] = tensor
    return made


def vae_tensors(vae: AutoencoderKL) -> dict[str, torch.Tensor]:
    levels = len(vae.config.block_out_channels)
    names = dict(VAE)
    for i in range(levels):
        for j in range(vae.config.layers_per_block + 1):
            names[f"down_blocks.{i}.resnets.{j}"] = f"down.{i}.block.{j}"
            names[f"up_blocks.{i}.resnets.{j}"] = f"up.{levels - 1 - i}.block.{j}"
        names[f"down_blocks.{i}"] = f"down.{i}"
        names[f"up_blocks.{i}"] = f"up.{levels - 1 - i}"
    made = {}
    for name, tensor in vae.state_dict().items():
        is_linear = "attentions" in name and tensor.ndim == 2
        made[f"first_stage_model.{renamed(name, names)}"] = (
            tensor[:, :, None, None] if is_linear else tensor
        )
    return made


def clip_tensors(
    text: CLIPTextModel, prefix: str = "cond_stage_model.transformer."
) -> dict[str, torch.Tensor]:
    prefix += "text_model."
    return {prefix + name.removeprefix("text_model."): t for name, t in text.state_dict().items()}


def open_clip_tensors(
    text: CLIPTextModel, prefix: str = "cond_stage_model.model."
) -> dict[str, torch.Tensor]:
    """As SD 2.x and SDXL hold it: query, key and value in one tensor, and a projection.

    SD 2.x does not read the projection.
    """
    made, width = {}, text.config.hidden_size
    state = {name.removeprefix("text_model."): t for name, t in text.state_dict().items()}
    for name, tensor in state.items():
        if ".k_proj." in name or ".v_proj." in name:
            continue
        whole = [state[name.replace("q_proj", f"{x}_proj")] for x in "qkv"]
        other = renamed(name, OPEN_CLIP).replace("q_proj.", "in_proj_")
        for old, new in OPEN_CLIP_TOP.items():
            other = other.replace(old, new)
        made[f"{prefix}{other}"] = torch.cat(whole) if ".q_proj." in name else tensor
    projection = made.pop(f"{prefix}text_projection.weight", torch.zeros(width, width))
    made[f"{prefix}text_projection"] = projection.T.contiguous()
    return made
