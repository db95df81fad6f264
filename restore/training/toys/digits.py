"""Diffusion on pixels, without an autoencoder: DDPM (Ho et al. 2020) on small grey digits.

restore train configs/train/digits.yaml; python -m restore.training.toys.digits MODEL -o FOLDER
"""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
import torch
import typer
from diffusers import DDPMScheduler, UNet2DModel
from PIL import Image
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from restore.config import Options
from restore.diffusion.conditioning import guided
from restore.diffusion.noise import generator
from restore.diffusion.sampling import sample, start
from restore.errors import ConfigError
from restore.training import command
from restore.training.data.loading import Samples
from restore.training.rng import WHOLE, Part

CLASSES = 10
NO_CLASS = CLASSES  # the embedding of samples whose label was left out
SURE = 0.9  # probability from which a classifier's answer counts as confident
IDX_UINT8 = 8  # the type code of an IDX file of bytes


class PixelOptions(Options):
    """The pictures and the shape of the UNet."""

    kind: Literal["pixels"] = "pixels"
    images: Path | None = None
    """An IDX file such as MNIST's train-images-idx3-ubyte[.gz]; None: scikit-learn's digits."""
    channels: tuple[int, ...] = (32, 64)
    """Channels of the UNet, from full resolution down."""
    layers: int = Field(2, ge=1)
    """ResNet blocks a level."""
    timesteps: int = Field(1000, ge=1)
    """Timesteps of the noise schedule."""
    dropped: float = Field(0.1, ge=0, le=1)
    """Share of the samples whose label is left out."""
    guidance: float = Field(2, ge=1, le=30)
    """Guidance in previews."""
    steps: int = Field(50, ge=1)
    """Steps of sampling in previews."""

    @model_validator(mode="after")
    def _has_the_steps(self) -> Self:
        if self.steps > self.timesteps:
            raise ValueError(f"steps is at most timesteps, {self.timesteps}, not {self.steps}")
        return self


def pictures(images: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Digits: scikit-learn's of 8x8 pixels, or those of an IDX file.

    Args:
        images: The IDX file; None: scikit-learn's.

    Returns:
        Pictures (n, H, W) in [-1, 1], and their digits (n,).

    Raises:
        ConfigError: If scikit-learn or a file is missing, or a file is not what it should be.
    """
    if images:
        labels = images.with_name(images.name.replace("images-idx3", "labels-idx1"))
        pixels, digits = idx(images, 3), idx(labels, 1)
        if labels == images or len(pixels) != len(digits):
            raise ConfigError(f"{images}: needs as many labels, in a file named ...labels-idx1...")
        return pixels / np.float32(127.5) - 1, digits.astype(np.int64)
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        mend = "pip install scikit-learn, or give MNIST's file with stage.images"
        raise ConfigError(f"the digits come with scikit-learn: {mend}") from error
    digits = load_digits()
    return (digits.images / 8 - 1).astype(np.float32), digits.target.astype(np.int64)


def idx(path: Path, axes: int) -> np.ndarray:
    """The uint8 array of an IDX file, gzipped or not.

    Args:
        path: The file.
        axes: Number of axes that it must have.

    Raises:
        ConfigError: If it cannot be read, or has another shape.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    data = gzip.decompress(data) if path.suffix == ".gz" else data
    begin = 4 + 4 * axes
    shape = tuple(int.from_bytes(data[i : i + 4]) for i in range(4, begin, 4))
    if data[:4] != bytes((0, 0, IDX_UINT8, axes)) or len(data) != begin + np.prod(shape):
        raise ConfigError(f"{path}: is no IDX file of bytes with {axes} axes")
    return np.frombuffer(data, np.uint8, offset=begin).reshape(shape)


def build(options: PixelOptions, side: int) -> UNet2DModel:
    levels = len(options.channels)
    return UNet2DModel(
        sample_size=side,
        in_channels=1,
        out_channels=1,
        block_out_channels=options.channels,
        layers_per_block=options.layers,
        norm_num_groups=8,
        attention_head_dim=16,
        down_block_types=("DownBlock2D",) * (levels - 1) + ("AttnDownBlock2D",),
        up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * (levels - 1),
        num_class_embeds=CLASSES + 1,
    )


def train_step(
    unet: UNet2DModel,
    schedule: DDPMScheduler,
    batch: dict[str, Tensor],
    rng: torch.Generator,
    part: Part = WHOLE,
) -> Tensor:
    """The mean squared error of the predicted noise (Ho et al. 2020, equation 14).

    x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise, at a t drawn uniformly.

    Args:
        unet: Predicts the noise.
        schedule: The noise schedule.
        batch: pixels (B, 1, H, W) in [-1, 1] and labels (B,).
        rng: The generator of all draws.
        part: Which part of the step's samples the batch is.
    """
    clean = batch["pixels"]
    shape = (part.of * len(clean),)
    t = torch.randint(0, len(schedule.betas), shape, generator=rng, device=clean.device)
    t, noise = part.cut(t), part.normal(clean, rng)
    made = unet(schedule.add_noise(clean, noise, t), t, class_labels=batch["labels"]).sample
    return F.mse_loss(made.float(), noise)


class PixelStage:
    """Trains diffusion on the pixels of small digits."""

    def __init__(self, options: PixelOptions, seed: int, device: torch.device):
        self.options, self.seed, self.device = options, seed, device
        self.pixels, self.digits = pictures(options.images)
        self.model = build(options, self.pixels.shape[-1]).to(device)
        self.schedule = DDPMScheduler(options.timesteps, beta_schedule="squaredcos_cap_v2")
        self.samples = Samples(self.example, seed)

    def example(self, rng: np.random.Generator, _: int) -> dict[str, Tensor]:
        index = rng.integers(len(self.pixels))
        label = NO_CLASS if rng.random() < self.options.dropped else int(self.digits[index])
        return {
            "pixels": torch.from_numpy(self.pixels[index][None]),
            "labels": torch.tensor(label),
        }

    def loss(self, batch: dict[str, Tensor], step: int, part: Part = WHOLE) -> dict[str, Tensor]:
        batch = {name: tensor.to(self.device) for name, tensor in batch.items()}
        rng = generator(self.device, self.seed, step)
        return {"noise": train_step(self.model, self.schedule, batch, rng, part)}

    def preview(self) -> tuple[list[Tensor], dict[str, float]]:
        """A row of eight samples a digit."""
        o, labels = self.options, np.repeat(np.arange(CLASSES), 8)
        made = sample_digits(self.model, self.schedule, labels, o.guidance, o.steps, self.seed)
        rows = F.interpolate((made + 1) / 2, scale_factor=4).expand(-1, 3, -1, -1)
        return list(rows.split(8)), {"spread": made.std().item()}

    def export(self, folder: Path) -> None:
        self.model.save_pretrained(folder / "unet")
        self.schedule.save_pretrained(folder / "scheduler")


@torch.inference_mode()
def sample_digits(
    unet: UNet2DModel,
    schedule: DDPMScheduler,
    labels: Sequence[int],
    guidance: float,
    steps: int,
    seed: int,
) -> Tensor:
    """Sample digits with DDPM's ancestral steps.

    Args:
        unet: The network.
        schedule: The noise schedule.
        labels: A digit for each sample.
        guidance: Scale of classifier-free guidance.
        steps: Steps of sampling.
        seed: Seed of all noise.

    Returns:
        (B, 1, H, W) in [-1, 1].
    """
    side, count = unet.config.sample_size, len(labels)
    asked = torch.as_tensor(labels, device=unet.device)
    wanted, unwanted = (
        lambda x, t, corners, labels=labels: unet(x, t, class_labels=labels).sample
        for labels in (asked, torch.full_like(asked, NO_CLASS))
    )
    predict = guided(wanted, unwanted, guidance)
    plan = DDPMScheduler.from_config(schedule.config)
    plan.set_timesteps(steps, device=unet.device)
    rng = generator("cpu", seed)
    noise = torch.randn(count, 1, side, side, generator=rng).to(unet.device)
    x = start(plan, noise)
    made = sample(lambda x, t: predict(x, t, [(0, 0)] * count), x, plan, rng=rng)
    return made.clamp(-1, 1)


def main(
    model: Annotated[Path, typer.Argument(help="The folder that training exported.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for scores and the grid.")],
    images: Annotated[Path | None, typer.Option(help="The IDX file it was trained on.")] = None,
    count: Annotated[int, typer.Option("-n", min=1, help="Samples of each digit.")] = 50,
    guidance: float = 2,
    steps: int = 100,
    seed: int = 0,
) -> None:
    """Draw digits and let a classifier that knows only real ones read them."""
    unet = UNet2DModel.from_pretrained(model / "unet", local_files_only=True)
    schedule = DDPMScheduler.from_pretrained(model / "scheduler", local_files_only=True)
    labels = np.repeat(np.arange(CLASSES), count)
    samples = sample_digits(unet.eval(), schedule, labels, guidance, steps, seed).numpy()[:, 0]
    out.mkdir(parents=True, exist_ok=True)
    apart = np.pad(samples, ((0, 0), (1, 1), (1, 1)), constant_values=-1)
    lines = apart.reshape(CLASSES, count, *apart.shape[1:])[:, :16]
    page = np.concatenate([np.concatenate(list(line), 1) for line in lines], 0)
    grid = Image.fromarray(np.rint((page + 1) * 127.5).astype(np.uint8))
    grid.resize((grid.width * 4, grid.height * 4), Image.Resampling.NEAREST).save(out / "grid.png")
    scores = score(samples, labels, *pictures(images))
    (out / "scores.json").write_text(json.dumps(scores, indent=1) + "\n")
    print(json.dumps(scores))


def score(
    samples: np.ndarray, labels: np.ndarray, pixels: np.ndarray, digits: np.ndarray
) -> dict[str, float]:
    """Score samples with a small classifier, which is trained on two thirds of 6,000 real digits.

    Args:
        samples: Samples (n, H, W).
        labels: The digits that were asked for.
        pixels: Real digits, as `pictures` returns them.
        digits: Their labels.

    Returns:
        "agree", share classified as the digit that was asked for; "sure", share classified with a
            probability of SURE or more; real_*, the same for the other third; "spread", how much
            the pixels of one digit vary, relative to real digits: below 1 the samples are more
            alike than handwriting.
    """
    from sklearn.neural_network import MLPClassifier

    pixels, digits = pixels[:6000], digits[:6000]
    fitted = np.arange(len(pixels)) % 3 > 0
    machine = MLPClassifier(128, random_state=0, max_iter=500)
    machine.fit(pixels[fitted].reshape(fitted.sum(), -1), digits[fitted])
    scores = {}
    for name, chosen, meant in (("", samples, labels), ("real_", pixels[~fitted], digits[~fitted])):
        odds = machine.predict_proba(chosen.reshape(len(chosen), -1))
        scores[f"{name}agree"] = float((odds.argmax(1) == meant).mean())
        scores[f"{name}sure"] = float((odds.max(1) >= SURE).mean())
    scores["spread"] = within(samples, labels) / within(pixels, digits)
    return scores


def within(samples: np.ndarray, labels: np.ndarray) -> float:
    """Standard deviation of a pixel among pictures of one label."""
    kinds = [samples[labels == label] for label in np.unique(labels)]
    return float(np.sqrt(np.mean([kind.var(0).mean() for kind in kinds])))


if __name__ == "__main__":
    command.run(main)
