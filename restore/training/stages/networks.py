"""Fresh networks for stage two, over a trained autoencoder."""

from pathlib import Path
from typing import Literal, Self

from diffusers import DDIMScheduler, UNet2DConditionModel
from pydantic import Field, model_validator
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from restore.checkpoints import components
from restore.checkpoints.model_paths import find_path
from restore.config import Options
from restore.diffusion import vae
from restore.diffusion.contexts import Context
from restore.diffusion.contexts.text import TextContext
from restore.diffusion.layouts import TRUST
from restore.diffusion.stack import Stack
from restore.diffusion.tiling import Windows
from restore.diffusion.vae import Vae
from restore.errors import ConfigError
from restore.training.stages.vocabulary import letters

HEADS = 2  # of the text encoder
POOLING_HEADS = 4  # of what pools its context
Prediction = Literal["v_prediction", "sample", "epsilon"]
"""What the UNet predicts: v (Salimans and Ho 2022), the clean sample, or the noise."""


class ShapeOptions(Options):
    """Shapes of the UNet and the context, and what the UNet predicts."""

    autoencoder: Path
    """The export of an autoencoder, or a model that ships: `nano`."""
    channels: tuple[int, ...] = Field((32, 64, 96, 128), min_length=1)
    """Channels of the UNet, from full latent resolution down."""
    reading: int = Field(0, ge=0)
    """Number of the UNet's coarsest levels that read the context by cross-attention."""
    pooled: bool = False
    """Add the pooled context to the timestep embedding, so that it reaches every block."""
    scale_shift: bool = False
    """Scale each block by the timestep embedding as well (adaptive group normalisation)."""
    layers: int = Field(2, ge=1)
    """ResNet blocks a level."""
    groups: int = Field(8, ge=1)
    """Groups of group normalisation."""
    text_width: int = Field(64, ge=8)
    """Width of the context."""
    text_layers: int = Field(2, ge=1)
    """Layers of the text encoder."""
    residual_scale: float = Field(0.7, gt=0)
    """Divisor of the residual that is diffused."""
    walk_steps: int = Field(1, ge=1, le=1000)
    """Steps of sampling where the user asks for no number."""
    prediction: Prediction = "v_prediction"
    """What the UNet predicts."""
    zero_terminal_snr: bool = True
    """Start sampling at pure noise (Lin et al. 2024)."""

    @model_validator(mode="after")
    def _divides(self) -> Self:
        for width in self.channels:
            if width < 1 or width % self.groups:
                raise ValueError(f"channels: {width} is no multiple of groups, {self.groups}")
        heads = POOLING_HEADS if self.pooled else HEADS
        if self.text_width % heads:
            raise ValueError(f"text_width: {self.text_width} is no multiple of {heads} heads")
        return self


def build(
    options: ShapeOptions,
    context: Context | None = None,
    windows: Windows | None = None,
    autoencoder: Vae | None = None,
) -> Stack:
    """A stack with a trained autoencoder and new other networks.

    Args:
        options: Shapes of the networks.
        context: None: text, spelled letter by letter.
        windows: Windows of the canvas; None: the default ones.
        autoencoder: None: the one that the options name.

    Raises:
        ConfigError: If the UNet would have to predict the noise where there is nothing else.
    """
    if options.prediction == "epsilon" and options.zero_terminal_snr:
        raise ConfigError(
            "stage.prediction epsilon says nothing where all is noise; set "
            "stage.zero_terminal_snr=false, or take v_prediction or sample"
        )
    context, windows = context or text(options, letters()), windows or Windows()
    autoencoder = autoencoder or components.trained_vae(find_path(str(options.autoencoder)))
    latent_channels = vae.channels(autoencoder)
    levels = len(options.channels)
    blocks = ["CrossAttn" if levels - n <= options.reading else "" for n in range(levels)]
    unet = UNet2DConditionModel(
        in_channels=2 * latent_channels + 1,
        out_channels=latent_channels,
        sample_size=windows.size,
        block_out_channels=options.channels,
        layers_per_block=options.layers,
        norm_num_groups=options.groups,
        down_block_types=tuple(f"{block}DownBlock2D" for block in blocks),
        up_block_types=tuple(f"{block}UpBlock2D" for block in reversed(blocks)),
        cross_attention_dim=options.text_width,
        attention_head_dim=4,
        addition_embed_type="text" if options.pooled else None,
        addition_embed_type_num_heads=POOLING_HEADS,
        resnet_time_scale_shift="scale_shift" if options.scale_shift else "default",
    )
    nn.init.zeros_(unet.conv_out.weight)  # its first prediction is the conditioning itself
    nn.init.zeros_(unet.conv_out.bias)
    return Stack(
        vae=autoencoder,
        unet=unet,
        context=context,
        schedule=schedule(options.prediction, options.zero_terminal_snr),
        layout=TRUST,
        windows=windows,
        residual_scale=options.residual_scale,
        steps=options.walk_steps,
    )


def schedule(
    prediction: Prediction = "v_prediction", zero_terminal_snr: bool = True
) -> DDIMScheduler:
    """A noise schedule that ends in pure noise, or nearly so."""
    return DDIMScheduler(
        prediction_type=prediction,
        rescale_betas_zero_snr=zero_terminal_snr,
        timestep_spacing="trailing",
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,
    )


def text(options: ShapeOptions, tokenizer: CLIPTokenizer) -> TextContext:
    """A new text encoder."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=options.text_width,
        intermediate_size=4 * options.text_width,
        num_hidden_layers=options.text_layers,
        num_attention_heads=HEADS,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return TextContext(CLIPTextModel(config), tokenizer)


def start_from(network: nn.Module, trained: nn.Module, option: str) -> None:
    """Copy the weights of a trained network of the same shape.

    Raises:
        ConfigError: If it has another shape; the message names the option that chose it.
    """
    try:
        network.load_state_dict(trained.state_dict())
    except RuntimeError as error:
        more = str(error).splitlines()
        why = more[1].strip() if len(more) > 1 else more[0]
        raise ConfigError(f"{option}: its networks are of another shape: {why}") from error
