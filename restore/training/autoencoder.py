"""Stage one: an autoencoder without normalisation or attention, so that blocks decode exactly."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from diffusers import AutoencoderTiny
from pydantic import Field
from torch import Tensor, nn

from restore.config import Options
from restore.noise import generator
from restore.training.chance import WHOLE, Part
from restore.training.data import PhotoOptions, Samples, to_rgb
from restore.training.losses import reconstruction


class AutoencoderOptions(Options):
    """The shape of the autoencoder and what it is trained on."""

    kind: Literal["autoencoder"] = "autoencoder"
    data: PhotoOptions
    channels: int = Field(32, ge=8)
    encoder_blocks: tuple[int, ...] = (0, 2, 3)  # from full resolution down
    decoder_blocks: tuple[int, ...] = (4, 2, 1)  # from the latent up
    latent_channels: int = Field(8, ge=1)
    latent_noise: float = Field(0.06, ge=0)  # largest sigma put on a latent: smooths what is learnt


def build(options: AutoencoderOptions) -> AutoencoderTiny:
    width = (options.channels,) * len(options.encoder_blocks)
    return AutoencoderTiny(
        latent_channels=options.latent_channels,
        encoder_block_out_channels=width,
        decoder_block_out_channels=width,
        num_encoder_blocks=options.encoder_blocks,
        num_decoder_blocks=options.decoder_blocks,
    )


def train_step(
    vae: nn.Module, rgb: Tensor, latent_noise: float, rng: torch.Generator, part: Part = WHOLE
) -> Tensor:
    """The reconstruction loss of one batch.

    rgb  (B, 3, H, W), [0, 1].
    """
    latent = vae.encoder(rgb * 2 - 1)
    sigma = torch.rand(part.of * len(rgb), 1, 1, 1, generator=rng, device=rgb.device)
    sigma, noise = latent_noise * part.cut(sigma), part.normal(latent, rng)
    return reconstruction((vae.decoder(latent + sigma * noise) + 1) / 2, rgb)


class AutoencoderStage:
    """What the loop needs to know of stage one."""

    def __init__(self, options: AutoencoderOptions, seed: int, device: torch.device):
        self.options, self.seed, self.device = options, seed, device
        self.model = build(options).to(device, memory_format=torch.channels_last)
        crop = options.data.crop
        photos = options.data.open()
        self.samples = Samples(
            lambda rng, _: photos.crop(crop, options.data.detail, rng), seed, photos
        )
        place = options.data.held_out
        shown = options.data.open(place) if place else photos
        side = min(128, *map(min, shown.sizes)) // 4 * 4
        still = np.random.default_rng(seed)
        self.shown = torch.from_numpy(np.stack([shown.crop(side, 4, still) for _ in range(8)]))

    def loss(self, pixels: Tensor, step: int, part: Part = WHOLE) -> dict[str, Tensor]:
        rgb = to_rgb(pixels.to(self.device))
        rng = generator(self.device, self.seed, step)
        found = train_step(self.model, rgb, self.options.latent_noise, rng, part)
        return {"reconstruction": found}

    @torch.inference_mode()
    def preview(self) -> tuple[list[Tensor], dict[str, float]]:
        """Rows of pictures (each rgb) for the sample grid, and their score."""
        rgb = to_rgb(self.shown.to(self.device))
        made = ((self.model.decoder(self.model.encoder(rgb * 2 - 1)) + 1) / 2).clamp(0, 1)
        return [rgb, made], {"psnr": -10 * (made - rgb).square().mean().log10().item()}

    @torch.inference_mode()
    def export(self, folder: Path) -> None:
        """Save the autoencoder as diffusers does, its scaling factor measured on crops."""
        rgb = to_rgb(torch.from_numpy(np.stack([self.samples[i] for i in range(256)])))
        latent = self.model.encoder(rgb.to(self.device) * 2 - 1)
        self.model.register_to_config(scaling_factor=1 / latent.std().item())
        self.model.to(memory_format=torch.contiguous_format).save_pretrained(folder / "vae")
