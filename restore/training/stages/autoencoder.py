"""Stage one: an autoencoder, tiny and without normalisation, or as in latent diffusion: KL, VQ."""

from copy import deepcopy
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, VQModel
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from pydantic import Field, model_validator
from torch import Tensor, nn

from restore.checkpoints import components, model_paths
from restore.config import Options
from restore.diffusion import vae
from restore.diffusion.noise import generator, seed_of
from restore.diffusion.vae import Vae
from restore.errors import ConfigError
from restore.training.data.crops import PhotoOptions
from restore.training.data.loading import Samples, to_rgb
from restore.training.losses import sizes
from restore.training.losses.discriminator import AdversaryOptions, adversarial_losses
from restore.training.losses.perceptual import PerceptualOptions, distance
from restore.training.losses.pixel import PIXEL_LOSSES, PixelLoss
from restore.training.rng import WHOLE, Part

MEASURED, TOGETHER = 256, 8  # crops that the scaling factor is measured on; so many at once


class PictureOptions(Options):
    """What any autoencoder is trained on, and what its pictures are measured by."""

    data: PhotoOptions
    """Where the training pictures come from."""
    start: str | None = None
    """A model that ships, or an export, to start from; its shape is taken as well."""
    pixel_loss: PixelLoss = "edges"
    """Pixel loss; edges is L1, gradients and half an MSE."""
    perceptual: PerceptualOptions | None = None
    """The perceptual loss, if any."""
    adversary: AdversaryOptions | None = None
    """The discriminator, if any."""

    @model_validator(mode="after")
    def _can_be_judged(self) -> Self:
        if why := sizes.complaint(self.data.crop, self.perceptual, self.adversary):
            raise ValueError(f"{why} (data.crop)")
        return self


class AutoencoderOptions(PictureOptions):
    """Without normalisation or attention, so that blocks decode exactly."""

    kind: Literal["autoencoder"] = "autoencoder"
    channels: int = Field(32, ge=8)
    """Channels of every layer."""
    encoder_blocks: tuple[int, ...] = (0, 2, 3)
    """Blocks at each resolution, from full resolution down."""
    decoder_blocks: tuple[int, ...] = (4, 2, 1)
    """Blocks at each resolution, from the latent up."""
    latent_channels: int = Field(8, ge=1)
    """Channels of the latent."""
    latent_noise: float = Field(0.06, ge=0)
    """Largest sigma of the noise that is added to a latent, so that the decoder learns to be
    smooth.
    """

    @model_validator(mode="after")
    def _has_as_many_levels(self) -> Self:
        down, up = self.encoder_blocks, self.decoder_blocks
        if len(down) != len(up) or not down or min(*down, *up) < 0:
            raise ValueError("encoder_blocks and decoder_blocks take one number a resolution each")
        return self


class StockOptions(PictureOptions):
    """The shape of the autoencoders of latent diffusion (Rombach et al. 2022)."""

    widths: tuple[int, ...] = (64, 128, 256)
    """Channels at each resolution, from full resolution down; each halves the one before."""
    layers: int = Field(2, ge=1)
    """ResNet blocks at each resolution."""
    groups: int = Field(32, ge=1)
    """Groups of group normalisation."""


class KlOptions(StockOptions):
    """Its latents are held near a standard normal distribution."""

    kind: Literal["autoencoder_kl"] = "autoencoder_kl"
    latent_channels: int = Field(4, ge=1)
    """Channels of the latent."""
    kl_weight: float = Field(1e-6, ge=0)
    """Weight of the KL divergence, summed over a latent, against the loss summed over pixels."""


class VqOptions(StockOptions):
    """Its decoder reads the nearest vectors of a codebook (van den Oord et al. 2017)."""

    kind: Literal["autoencoder_vq"] = "autoencoder_vq"
    latent_channels: int = Field(3, ge=1)
    """Channels of the latent."""
    codes: int = Field(8192, ge=2)
    """Number of vectors in the codebook."""
    commitment: float = Field(0.25, ge=0)
    """Weight by which latents follow the codes; the codes follow the latents at 1."""


AnyOptions = AutoencoderOptions | KlOptions | VqOptions
KINDS = {
    "autoencoder": AutoencoderTiny,
    "autoencoder_kl": AutoencoderKL,
    "autoencoder_vq": VQModel,
}


def build(options: AnyOptions) -> Vae:
    """A new autoencoder, or the one to start from.

    Raises:
        ConfigError: If the one to start from is of another kind.
    """
    if options.start:
        model = components.trained_vae(model_paths.find_path(options.start))
        if not isinstance(model, KINDS[options.kind]):
            kinds = {kind.__name__: name for name, kind in KINDS.items()}
            mend = f"take stage.kind={kinds[type(model).__name__]}"
            raise ConfigError(f"stage.start: {options.start} is a {type(model).__name__}; {mend}")
        return model.requires_grad_(True).train()
    if isinstance(options, AutoencoderOptions):
        width = (options.channels,) * len(options.encoder_blocks)
        return AutoencoderTiny(
            latent_channels=options.latent_channels,
            encoder_block_out_channels=width,
            decoder_block_out_channels=width,
            num_encoder_blocks=options.encoder_blocks,
            num_decoder_blocks=options.decoder_blocks,
        )
    shape = {
        "block_out_channels": options.widths,
        "down_block_types": ("DownEncoderBlock2D",) * len(options.widths),
        "up_block_types": ("UpDecoderBlock2D",) * len(options.widths),
        "layers_per_block": options.layers,
        "norm_num_groups": options.groups,
        "latent_channels": options.latent_channels,
    }
    if isinstance(options, KlOptions):
        return AutoencoderKL(**shape)
    model = VQModel(num_vq_embeddings=options.codes, **shape)
    # by default diffusers weighs the wrong one of both terms, as taming transformers did
    model.quantize.legacy, model.quantize.beta = False, options.commitment
    return model


def reconstruct(
    coder: Vae, rgb: Tensor, options: AnyOptions, rng: torch.Generator, part: Part = WHOLE
) -> tuple[Tensor, dict[str, Tensor]]:
    """Encode and decode, with the noise or the quantisation of training.

    Args:
        coder: The autoencoder.
        rgb: (B, 3, H, W).
        options: Its options.
        rng: The generator of the noise.
        part: Which part of the step's samples this is.

    Returns:
        rgb, not clamped, and the losses of the regularisation by name.
    """
    signed = rgb * 2 - 1
    if isinstance(options, AutoencoderOptions):
        latent = coder.encoder(signed)
        sigma = torch.rand(part.of * len(rgb), 1, 1, 1, generator=rng, device=rgb.device)
        sigma, noise = options.latent_noise * part.cut(sigma), part.normal(latent, rng)
        return (coder.decoder(latent + sigma * noise) + 1) / 2, {}
    if isinstance(options, KlOptions):
        moments = coder.encode(signed).latent_dist.parameters
        latents = DiagonalGaussianDistribution(moments.float())  # whatever the encoder computed in
        noise = part.normal(latents.mean, rng)
        made = coder.decode(latents.mean + latents.std * noise).sample
        # over the number of pixels, since the reconstruction is a mean over them
        return (made + 1) / 2, {"kl": options.kl_weight * latents.kl().sum() / rgb.numel()}
    decoded = coder.decode(coder.encode(signed).latents.float())
    assert decoded.commit_loss is not None
    return (decoded.sample + 1) / 2, {"codebook": decoded.commit_loss}


def last_layer(coder: Vae) -> Tensor:
    """The weight of the layer that outputs pictures."""
    is_tiny = isinstance(coder, AutoencoderTiny)
    last = coder.decoder.layers[-1] if is_tiny else coder.decoder.conv_out
    assert isinstance(last, nn.Conv2d)
    return last.weight


class AutoencoderStage:
    """Trains an autoencoder."""

    def __init__(self, options: AnyOptions, seed: int, device: torch.device):
        self.options, self.seed, self.device = options, seed, device
        self.vae = build(options).to(device, memory_format=torch.channels_last)
        self.model: nn.Module = self.vae
        self.adversary, self.discriminator = options.adversary, None
        if self.adversary:
            self.discriminator = self.adversary.build().to(device)
            self.model = nn.ModuleDict({"vae": self.vae, "judge": self.discriminator})
        self.distance = distance(options.perceptual, device) if options.perceptual else None
        crop, step = options.data.crop, vae.factor(self.vae)
        if crop % step:
            mend = "make it a multiple"
            raise ConfigError(f"stage.data.crop {crop}: a latent is {step} px of it; {mend}")
        photos = options.data.open()
        self.samples = Samples(
            lambda rng, _: photos.picture(crop, options.data.detail, rng), seed, photos
        )
        place = options.data.held_out
        shown = options.data.open(place, only_photos=True) if place else photos
        side = min(128, *map(min, shown.sizes)) // step * step
        # hashed: numpy takes the seed alone for (seed, 0), which is that of sample 0
        still = [np.random.default_rng(seed_of(seed, "preview", n)) for n in range(8)]
        self.preview_batch = torch.from_numpy(np.stack([shown.crop(side, 4, rng) for rng in still]))

    def loss(self, pixels: Tensor, step: int, part: Part = WHOLE) -> dict[str, Tensor]:
        """Pixel, perceptual and adversarial losses, and those of the regularisation.

        As Esser et al. 2021 (taming transformers), and as latent diffusion trains its autoencoders.
        """
        options, rgb = self.options, to_rgb(pixels.to(self.device))
        rng = generator(self.device, self.seed, step)
        result, losses = reconstruct(self.vae, rgb, options, rng, part)
        result = result.float() if self.distance or self.discriminator else result
        seen = {"reconstruction": PIXEL_LOSSES[options.pixel_loss](result, rgb)}
        if self.distance and options.perceptual:
            seen["perceptual"] = options.perceptual.weight * self.distance(result, rgb)
        losses = seen | losses
        if self.discriminator and options.adversary and step >= options.adversary.start:
            fidelity, layer = torch.stack([*seen.values()]).sum(), last_layer(self.vae)
            losses |= adversarial_losses(
                self.discriminator, result, rgb, fidelity, layer, options.adversary
            )
        return losses

    @torch.inference_mode()
    def preview(self) -> tuple[list[Tensor], dict[str, float]]:
        """Rows of pictures (each rgb) for the sample grid, and their score."""
        rgb = to_rgb(self.preview_batch.to(self.device))
        latent = vae.encode(self.vae, rgb)
        made = vae.decode(self.vae, latent)
        scores = {"psnr": -10 * (made - rgb).square().mean().log10().item()}
        if isinstance(self.vae, VQModel):
            scores["codes"] = len(self.vae.quantize(latent)[2][2].unique())
            scores["latent_std"] = latent.std().item()
        return [rgb, made], scores

    @torch.inference_mode()
    def export(self, folder: Path) -> None:
        """Save the autoencoder as diffusers does, its scaling factor measured on crops."""
        made = deepcopy(self.vae)  # training goes on with the original, in its memory format
        made.register_to_config(scaling_factor=1.0)
        made.register_to_config(scaling_factor=1 / self._spread(made))
        made.to("cpu", memory_format=torch.contiguous_format).save_pretrained(folder / "vae")

    def _spread(self, coder: Vae) -> float:
        """The standard deviation of the latents of crops."""
        count, total, squares = 0, 0.0, 0.0
        for first in range(0, MEASURED, TOGETHER):
            rows = [self.samples[first + n] for n in range(TOGETHER)]
            rgb = to_rgb(torch.from_numpy(np.stack(rows)))
            latent = vae.encode(coder, rgb.to(self.device)).cpu().double()
            count += latent.numel()
            total += latent.sum().item()
            squares += latent.square().sum().item()
        return ((squares - total**2 / count) / (count - 1)) ** 0.5
