"""A tiny stack that learns to draw scenes from prompts: text, classes or boxes."""

from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from restore.checkpoints import model_paths
from restore.checkpoints.load import load
from restore.checkpoints.save import save
from restore.diffusion import vae
from restore.diffusion.contexts import Context, Kind
from restore.diffusion.contexts.boxes import BoxContext, BoxEncoder
from restore.diffusion.contexts.classes import ClassContext
from restore.diffusion.layouts import GREY, REPAINT
from restore.diffusion.noise import generator
from restore.diffusion.stack import Stack
from restore.diffusion.tiling import Windows
from restore.diffusion.vae import Vae
from restore.training.data.loading import Samples, to_rgb
from restore.training.rng import WHOLE, Part
from restore.training.stages.denoiser import StepOptions
from restore.training.stages.denoising_loss import train_step
from restore.training.stages.networks import Prediction, build, start_from, text
from restore.training.stages.vocabulary import letters
from restore.training.toys import scenes
from restore.training.toys.scene_score import MOST, answer, sample_scenes, scores

PLACES = 32  # tokens of the longest caption, its first and last among them


class SceneOptions(StepOptions):
    """How the scene model is shaped and trained."""

    kind: Literal["scenes"] = "scenes"
    autoencoder: Path = model_paths.SHIPPED / "nano"
    """The autoencoder, which is not trained."""
    context: Kind = "text"
    """What prompts are made of."""
    start: Path | None = None
    """A trained model folder whose UNet training starts from."""
    channels: tuple[int, ...] = (64, 96)
    reading: int = Field(2, ge=0)
    walk_steps: int = Field(20, ge=1, le=1000)
    layers: int = Field(1, ge=1)
    text_width: int = Field(128, ge=8)
    # v contains the noise, which a UNet as narrow as this is slow to copy (Li and He 2025, Back to
    # Basics): after 1,920 scenes the mean squared error of the clean latent at t = 500 is 0.15 by
    # "sample" and 0.30 by "v_prediction".
    prediction: Prediction = "sample"
    pooled: bool = True
    scale_shift: bool = True
    # The first steps decide where things are. Before that is decided their looks cannot be known,
    # so equal weights for all timesteps would teach blurred things.
    last_share: float = Field(0.02, ge=0, le=1)
    lean: float = Field(2, ge=1)
    min_snr: float | None = Field(5, gt=0)
    dropped: float = Field(0.1, ge=0, le=1)
    """Share of the samples whose prompt is left out."""
    guidance: float = Field(4, ge=1, le=30)
    """Guidance in previews."""
    shown: int = Field(32, ge=1)
    """Number of scenes in previews."""

    @model_validator(mode="after")
    def _has_no_judge(self) -> Self:
        if self.texture and self.texture.adversary:
            raise ValueError("texture.adversary: scenes train no discriminator; leave it out")
        return self

    @model_validator(mode="after")
    def _reads_text(self) -> Self:
        if self.context != "text" and "text_layers" in self.model_fields_set:
            raise ValueError(f"text_layers is for context text, not {self.context}; leave it out")
        return self


def build_context(options: SceneOptions) -> Context:
    if options.context == "text":
        return text(options, letters(scenes.vocabulary(), PLACES))
    count, width = len(scenes.LABELS), options.text_width
    if options.context == "classes":
        return ClassContext(nn.Embedding(count + 1, width), scenes.LABELS)
    return BoxContext(BoxEncoder(count, width), scenes.LABELS, MOST["boxes"])


def build_stack(options: SceneOptions, autoencoder: Vae | None = None) -> Stack:
    """An untrained stack whose one window is a whole scene."""
    side = scenes.SIZE // 4
    windows = Windows(side, side * 3 // 4)
    return build(options, build_context(options), windows, autoencoder)


class SceneStage:
    """Trains the scene model; scenes are drawn and encoded when they are needed."""

    def __init__(self, options: SceneOptions, seed: int, device: torch.device):
        self.options, self.seed, self.device = options, seed, device
        self.stack = build_stack(options)
        self.context = self.stack.reader
        self.stack.unet.conv_out.reset_parameters()  # no known picture to start from: zero is slow
        if options.start:
            start_from(self.stack.unet, load(str(options.start), "cpu").unet, "stage.start")
        self.stack.vae.requires_grad_(False).eval().to(device, memory_format=torch.channels_last)
        self.stack.unet.to(device, memory_format=torch.channels_last)
        self.context.module.to(device)
        self.model = nn.ModuleDict({"unet": self.stack.unet, "context": self.context.module})
        grey = torch.full((1, 3, scenes.SIZE, scenes.SIZE), GREY, device=device)
        with torch.inference_mode():
            self.conditioning = vae.encode(self.stack.vae, grey).clone()
        self.samples = Samples(self.example, seed)

    def example(self, rng: np.random.Generator, index: int) -> dict[str, Tensor]:
        """uint8 pixels of scene `index`, and its prompt as the context reads it, or without."""
        made = scenes.scene(self.seed, index, MOST[self.options.context])
        prompt = made.prompt(self.options.context) if rng.random() >= self.options.dropped else ""
        inputs = self.context.inputs(prompt)
        return {"truth": torch.from_numpy(made.render()), "tokens": inputs}

    def loss(self, batch: dict[str, Tensor], step: int, part: Part = WHOLE) -> dict[str, Tensor]:
        batch = {name: tensor.to(self.device) for name, tensor in batch.items()}
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16):
            batch["target"] = vae.encode(self.stack.vae, to_rgb(batch["truth"])).float()
        batch |= self.unknown(len(batch["target"]))
        rng = generator(self.device, self.seed, step)
        return train_step(self.stack, batch, self.options, step, rng, part)

    def unknown(self, count: int) -> dict[str, Tensor]:
        """Grey and trust 1, as text to image has them."""
        conditioning = self.conditioning.expand(count, -1, -1, -1)
        return {
            "conditioning": conditioning,
            "trust": torch.full_like(conditioning[:, :1], REPAINT),
        }

    def preview(self) -> tuple[list[Tensor], dict[str, float]]:
        """Held-out scenes sampled from their prompts, the true ones, and scores."""
        options, count = self.options, self.options.shown
        most = MOST[options.context]
        asked = [scenes.scene(self.seed + 1, n, most, held_out=True) for n in range(count)]
        prompts = [scene.prompt(options.context) for scene in asked]
        made = sample_scenes(self.stack, prompts, range(count), options.guidance)
        answers = [answer(scene, pixels) for scene, pixels in zip(asked, made, strict=True)]
        truth = np.stack([scene.render() for scene in asked])
        return [to_rgb(torch.from_numpy(rows[:16])) for rows in (made, truth)], scores(answers)

    def export(self, folder: Path) -> None:
        """Save the whole stack as `restore.checkpoints.load.load` reads it."""
        save(self.stack, folder, card=f"# {folder}\nTrained with:\n\n```\n{self.options}\n```\n")
