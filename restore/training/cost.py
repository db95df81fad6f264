"""What a model costs to run: parameters, and arithmetic a window and an output megapixel.

python -m restore.training.cost configs/train/base_autoencoder.yaml configs/train/base_denoiser.yaml
"""

from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from restore.config import load_config
from restore.diffusion.stack import Stack
from restore.diffusion.vae import Vae
from restore.errors import ConfigError
from restore.training import command
from restore.training.options import TrainOptions
from restore.training.registry import StageOptions
from restore.training.stages import autoencoder, denoiser
from restore.training.toys import scene_stage

MEGAPIXEL = 1_000_000


def flops(module: nn.Module, *inputs: torch.Tensor) -> int:
    """Operations of one call; a multiplication and an addition are two. Nothing is computed."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*inputs)
    return counter.get_total_flops()


def cost(stack: Stack, steps: int) -> dict[str, float]:
    """Counts for infinite canvases, the overlap of windows included, on the meta device.

    Args:
        stack: The networks; they are moved to the meta device.
        steps: Steps of sampling.

    Returns:
        Parameters of each part; "unet_gflop_window", of one step over one window; "unet_tflop_mp",
        of all steps over an output megapixel; "vae_tflop_mp", of encoding the conditioning and
        decoding the result; "tflop_mp", the sum of both.
    """
    words = torch.empty_like(stack.reader.embed(""), device="meta")
    parts = {"vae": stack.vae, "unet": stack.unet, "context": stack.reader.module}
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    size, factor = stack.windows.size, stack.factor
    with torch.device("meta"):
        vae, unet = stack.vae.to("meta"), stack.unet.to("meta")
        x = torch.empty(1, unet.config.in_channels, size, size)
        window = flops(unet, x, torch.empty((), dtype=torch.long), words)
        pixels = torch.empty(1, 3, size * factor, size * factor)
        latent = torch.empty(1, stack.channels, size, size)
        coded = flops(vae.encoder, pixels) + flops(vae.decoder, latent)
    windows = MEGAPIXEL / (stack.windows.stride * factor) ** 2
    denoiser, code = steps * window * windows, coded * MEGAPIXEL / (size * factor) ** 2
    return {
        **{f"{name}_parameters": count for name, count in counts.items()},
        "unet_gflop_window": window / 1e9,
        "unet_tflop_mp": denoiser / 1e12,
        "vae_tflop_mp": code / 1e12,
        "tflop_mp": (denoiser + code) / 1e12,
    }


def build_stack(first: Path, second: Path) -> Stack:
    """The untrained networks of two configs.

    Args:
        first: A config of an autoencoder.
        second: A config of a denoiser or of scenes.

    Raises:
        ConfigError: If a config is of another stage.
    """
    one, two = (load_config(TrainOptions, path).stage for path in (first, second))
    if not isinstance(one, autoencoder.AnyOptions):
        raise ConfigError(refusal(first, one, "an autoencoder: autoencoder, autoencoder_kl or _vq"))
    coder: Vae = autoencoder.build(one)
    if isinstance(two, denoiser.DenoiserOptions):
        return denoiser.build_stack(two, coder)
    if isinstance(two, scene_stage.SceneOptions):
        return scene_stage.build_stack(two, coder)
    raise ConfigError(refusal(second, two, "fresh networks over it: denoiser or scenes"))


def refusal(path: Path, stage: StageOptions, wanted: str) -> str:
    return f"{path}: stage.kind is {stage.kind}; give a config of {wanted}"


def main(
    first: Annotated[Path, typer.Argument(help="A config of stage one.")],
    second: Annotated[Path, typer.Argument(help="A config of stage two.")],
    steps: Annotated[int, typer.Option(min=1, help="Of sampling.")] = 1,
) -> None:
    """Count what the networks of two configs cost, before either is trained."""
    for name, count in cost(build_stack(first, second), steps).items():
        print(f"{name:20}{count:12,.0f}" if count > 1e4 else f"{name:20}{count:12.3f}")


if __name__ == "__main__":
    command.run(main)
