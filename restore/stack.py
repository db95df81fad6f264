"""One VAE, one UNet and one text encoder for every task: load, save, encode, decode, embed."""

import json
import shutil
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import AutoencoderTiny, DDIMScheduler, SchedulerMixin, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from restore import manifest
from restore.layouts import TrustLayout, layout_of
from restore.options import Sampler
from restore.predict import Condition, conditioned
from restore.windows import WindowPredict, Windows, blocks

SCHEDULERS: dict[Sampler, str] = {
    "ddim": "DDIMScheduler",
    "ddpm": "DDPMScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler_a": "EulerAncestralDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "dpm++_2m": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
    "lcm": "LCMScheduler",
}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
BLOCK = 256  # latents decoded or encoded at a time, on a side


@dataclass
class Stack:
    """The parts, where they run, and what they were trained for.

    residual_scale  our walk goes over (z - known) / residual_scale, so that a trusted picture is
                    where it starts instead of something to be learnt.
    digest          sha256 of the folder's manifest: tells weights apart in reports.
    """

    vae: AutoencoderTiny
    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    schedule: DDIMScheduler
    windows: Windows
    residual_scale: float
    digest: str = ""

    @property
    def device(self) -> torch.device:
        return self.unet.device

    @property
    def factor(self) -> int:
        """Pixels a latent, on a side."""
        return 2 ** (len(self.vae.config.encoder_block_out_channels) - 1)

    @property
    def layout(self) -> TrustLayout:
        return layout_of(self.unet.config, self.vae.config.latent_channels, trust=True)

    def canvas(self, size: tuple[int, int]) -> tuple[int, int]:
        """(H, W) in pixels of the smallest canvas of whole windows that holds a picture."""
        height, width = (self.windows.canvas(-(-n // self.factor)) * self.factor for n in size)
        return height, width

    def encode(self, rgb: Tensor) -> Tensor:
        """rgb (B, 3, H, W) -> scaled latent (B, C, H / factor, W / factor)"""
        return self.vae.encoder(rgb * 2 - 1) * self.vae.config.scaling_factor

    def decode(self, latent: Tensor) -> Tensor:
        """Scaled latent -> rgb, clamped to [0, 1]"""
        made = self.vae.decoder(latent / self.vae.config.scaling_factor)
        return ((made + 1) / 2).clamp(0, 1)

    def encode_canvas(self, rows: Callable[[int, int], Tensor], size: tuple[int, int]) -> Tensor:
        """Encode a canvas by blocks; exact, since the VAE sees no further than its halo.

        rows  (first, last) -> rgb (1, 3, last - first, W) of the canvas.
        size  (H, W) of the canvas, multiples of the factor.
        """
        factor, (height, width) = self.factor, size
        channels = self.vae.config.latent_channels
        latent = torch.empty(1, channels, height // factor, width // factor, device=self.device)
        halo = receptive_field(self.vae.encoder)
        band: tuple[slice, Tensor] | None = None
        for block in blocks(size, size, BLOCK * factor, -(-halo // factor) * factor):
            if band is None or band[0] != block.outer[0]:
                band = block.outer[0], rows(block.outer[0].start, block.outer[0].stop)
            made = self.encode(band[1][..., block.outer[1]].to(self.device))
            rows_, columns = (slice(s.start // factor, s.stop // factor) for s in block.inner)
            latent[..., rows_, columns] = block.trim(made, 1 / factor)
        return latent

    def decode_canvas(self, latent: Tensor, write: Callable[[slice, slice, Tensor], None], size):
        """Decode the first `size` (H, W) pixels of a canvas by blocks; exact, as encode_canvas.

        write  (rows, columns, rgb) takes each block's pixels.
        """
        factor, (height, width) = self.factor, size
        needed = -(-height // factor), -(-width // factor)
        halo = -(-receptive_field(self.vae.decoder) // factor)
        for block in blocks(needed, tuple(latent.shape[-2:]), BLOCK, halo):
            made = block.trim(self.decode(latent[..., block.outer[0], block.outer[1]]), factor)
            rows, columns = (slice(s.start * factor, s.stop * factor) for s in block.inner)
            rows = slice(rows.start, min(rows.stop, height))
            columns = slice(columns.start, min(columns.stop, width))
            made = made[..., : rows.stop - rows.start, : columns.stop - columns.start]
            write(rows, columns, made)

    def embed(self, prompt: str) -> Tensor:
        """Prompt -> (1, tokens, width), what the UNet's cross-attention reads."""
        tokens = tokenize(self.tokenizer, prompt)
        return self.text_encoder(tokens[None].to(self.device)).last_hidden_state

    def predict(self, condition: Condition, prompt: str) -> WindowPredict:
        return conditioned(self.unet, self.layout, condition, self.embed(prompt))

    def scheduler(self, sampler: Sampler, steps: int) -> SchedulerMixin:
        """A diffusers scheduler with its timesteps set, as our schedule has them."""
        scheduler = getattr(diffusers, SCHEDULERS[sampler]).from_config(self.schedule.config)
        scheduler.set_timesteps(steps, device=self.device)
        return scheduler

    def save(self, folder: Path, card: str, dtype: torch.dtype = torch.float16) -> None:
        """Write every part as diffusers and transformers do, stack.json, a card and a manifest."""
        shutil.rmtree(folder, ignore_errors=True)
        for name in ("vae", "unet", "text_encoder"):
            part = deepcopy(getattr(self, name))
            # nn.Module's own `to`: diffusers' warns of a list of fp32 layers that is empty here
            nn.Module.to(part, dtype=dtype).to(memory_format=torch.contiguous_format)
            part.save_pretrained(folder / name)
            config = json.loads((folder / name / "config.json").read_text())
            config.pop("_name_or_path", None)  # a path of the machine it was trained on
            (folder / name / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        self.tokenizer.save_pretrained(folder / "tokenizer")
        self.schedule.save_pretrained(folder / "scheduler")
        about: dict[str, Any] = {"trust": True, "residual_scale": self.residual_scale}
        about["windows"] = {"size": self.windows.size, "stride": self.windows.stride}
        (folder / "stack.json").write_text(json.dumps(about, indent=1) + "\n")
        (folder / "README.md").write_text(card)
        manifest.write(folder)


def load(name: str, device: str = "auto", dtype: str = "auto") -> Stack:
    """A stack that ships with the package, by its name, or one in a folder, by its path.

    device  auto, cpu, cuda, mps: auto takes the accelerator if there is one.
    dtype   fp32, bf16 or fp16: what the UNet computes in; the VAE stays in fp32. auto is fp32 on
            the CPU, where it is exact whatever the batch, and bf16 elsewhere.
    Raises ModelError if the folder is missing, damaged or of another layout. No network is used.
    """
    folder, digest = manifest.find_model(name)
    quiet()
    about = json.loads((folder / "stack.json").read_text())
    given = {"local_files_only": True, "torch_dtype": torch.float32}
    vae = AutoencoderTiny.from_pretrained(folder / "vae", **given)
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", **given)
    text = CLIPTextModel.from_pretrained(
        folder / "text_encoder", local_files_only=True, dtype=torch.float32
    )
    stack = Stack(
        vae=vae,
        unet=unet,
        text_encoder=text,
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True),
        schedule=DDIMScheduler.from_pretrained(folder / "scheduler", local_files_only=True),
        windows=Windows(**about["windows"]),
        residual_scale=about["residual_scale"],
        digest=digest,
    )
    layout_of(unet.config, vae.config.latent_channels, about.get("trust", False))
    where = torch.device(pick_device() if device == "auto" else device)
    for part in (vae, unet, text):
        part.requires_grad_(False).eval().to(where)
    for part in (vae, unet):
        part.to(memory_format=torch.channels_last)
    if dtype == "auto":
        dtype = "fp32" if where.type == "cpu" else "bf16"
    unet.to(dtype=DTYPES[dtype])
    return stack


def quiet() -> None:
    """Keep the libraries' notes on configs and their loading bars out of a user's terminal."""
    diffusers.utils.logging.set_verbosity_error()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def pick_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def tokenize(tokenizer: CLIPTokenizer, prompt: str) -> Tensor:
    """Prompt -> token ids, as many as the text encoder has places; what is longer is cut."""
    length = tokenizer.model_max_length
    return tokenizer(
        prompt, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
    ).input_ids[0]


def receptive_field(coder: nn.Module) -> int:
    """How many pixels a norm-free convolutional coder sees to each side of a pixel, at the most."""
    reach, step = 0.0, 1.0
    finest = 1.0
    for module in coder.modules():
        if isinstance(module, nn.Conv2d):
            reach += module.kernel_size[0] // 2 * step
            step *= module.stride[0]
        elif isinstance(module, nn.Upsample):
            step /= float(module.scale_factor)
            finest = min(finest, step)
    return round(reach / finest) + 1
