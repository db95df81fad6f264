"""Models with random weights, of the shapes that people use, for the speed benchmark."""

from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from restore.training.stages.vocabulary import letters


def pixel_network(kind: str) -> nn.Module:
    """An untrained network of the published shape: x4plus, or x4v3."""
    from restore.checkpoints import pixel

    pixel.import_spandrel()
    from spandrel.architectures import ESRGAN, Compact

    torch.manual_seed(0)
    if kind == "x4plus":
        return ESRGAN.ESRGAN(num_filters=64, num_blocks=23, scale=4)
    return Compact.Compact(num_feat=64, num_conv=32, upscale=4)


def pixel_file(folder: Path, kind: str) -> Path:
    """Its weights in a file."""
    path = folder / f"{kind}.safetensors"
    if not path.exists():
        weights = pixel_network(kind).state_dict()
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path)
    return path


def ncnn_files(folder: Path) -> tuple[Path, Path]:
    """x4v3 as ncnn's text and weights, a layer a line: kind, name, inputs, outputs, settings."""
    network = pixel_network("x4v3")
    lines, data = ["Input rgb 0 1 rgb", "Split copies 1 2 rgb rgb_0 rgb_1"], []
    last = "rgb_0"
    for number, layer in enumerate(network.body):
        blob = f"b{number}"
        if isinstance(layer, nn.Conv2d):
            size = f"0={layer.out_channels} 1=3 4=1 5=1 6={layer.weight.numel()}"
            lines.append(f"Convolution {blob} 1 1 {last} {blob} {size}")
            data += [torch.zeros(1), layer.weight.flatten(), layer.bias]  # 0: in fp32
        else:
            lines.append(f"PReLU {blob} 1 1 {last} {blob} 0={layer.num_parameters}")
            data.append(layer.weight)
        last = blob
    lines += [f"PixelShuffle shuffled 1 1 {last} shuffled 0=4"]
    lines += ["Interp enlarged 1 1 rgb_1 enlarged 0=1 1=4.0 2=4.0"]
    lines += ["BinaryOp result 2 1 shuffled enlarged result 0=0"]
    param, weights = folder / "x4v3.param", folder / "x4v3.bin"
    param.write_text("\n".join(["7767517", f"{len(lines)} {len(lines) + 1}", *lines, ""]))
    weights.write_bytes(torch.cat(data).detach().numpy().tobytes())
    return param, weights


def diffusion_folder(folder: Path, task: str) -> Path:
    """A pipeline of diffusers with random weights: Stable Diffusion's shape, a quarter as wide.

    Args:
        folder: Where it is kept.
        task: inpaint or upscale.
    """
    path = folder / f"sd_{task}"
    if path.exists():
        return path
    torch.manual_seed(0)
    parts = {**networks(task), **text(), "scheduler": schedule(task)}
    if task == "inpaint":
        pipeline = diffusers.StableDiffusionInpaintPipeline(
            **parts,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    else:
        pipeline = diffusers.StableDiffusionUpscalePipeline(
            **parts,
            low_res_scheduler=diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        )
    pipeline.save_pretrained(path)
    return path


def networks(task: str) -> dict[str, Any]:
    """Autoencoder and UNet."""
    levels = 4 if task == "inpaint" else 3
    vae = diffusers.AutoencoderKL(
        block_out_channels=(32, 64, 128, 128)[:levels],
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=2,
        scaling_factor=0.18215 if task == "inpaint" else 0.08333,
    )
    shape = {
        "inpaint": {
            "sample_size": 64,
            "in_channels": 9,
            "block_out_channels": (80, 160, 320, 320),
        },
        "upscale": {  # no attention at the finest level
            "sample_size": 128,
            "in_channels": 7,
            "block_out_channels": (64, 128, 128, 256),
            "down_block_types": ("DownBlock2D", *("CrossAttnDownBlock2D",) * 3),
            "up_block_types": (*("CrossAttnUpBlock2D",) * 3, "UpBlock2D"),
            "num_class_embeds": 1000,
        },
    }
    unet = diffusers.UNet2DConditionModel(
        **shape[task],
        norm_num_groups=16,
        attention_head_dim=8,
        cross_attention_dim=128,
    )
    return {"vae": vae, "unet": unet}


def text() -> dict[str, Any]:
    """A small text encoder and its tokenizer."""
    words = letters()
    encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=4,
            num_attention_heads=4,
            bos_token_id=words.bos_token_id,
            eos_token_id=words.eos_token_id,
            pad_token_id=words.pad_token_id,
        )
    )
    return {"text_encoder": encoder, "tokenizer": words}


def schedule(task: str) -> Any:
    """Stable Diffusion's own."""
    return diffusers.DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        steps_offset=1,
        set_alpha_to_one=False,
        clip_sample=False,
        prediction_type="epsilon" if task == "inpaint" else "v_prediction",
    )
