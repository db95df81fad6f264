"""Stage two: the denoiser, on pairs whose conditioning and trust are drawn from all tasks."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from restore.checkpoints.load import load
from restore.checkpoints.save import save
from restore.diffusion.noise import generator
from restore.diffusion.stack import Stack
from restore.diffusion.vae import Vae
from restore.errors import ConfigError
from restore.training.data.captions import vocabulary
from restore.training.data.latent_pairs import open_pairs, prepare_batch
from restore.training.data.pairs import PairOptions, check_captions
from restore.training.data.stored import StoredPairs
from restore.training.losses import sizes
from restore.training.rng import WHOLE, Part
from restore.training.stages.denoising_loss import DenoisingOptions, train_step
from restore.training.stages.networks import ShapeOptions, build, text
from restore.training.stages.previews import compare, drop_captions, sample_latents
from restore.training.stages.vocabulary import letters


class StepOptions(ShapeOptions, DenoisingOptions):
    """Networks of our own shapes and how they are trained, whatever the data."""


class EveryTaskOptions(DenoisingOptions):
    """What a denoiser for every task is trained on."""

    data: PairOptions
    """How training pairs are made."""
    cache: Path = Path("runs/pairs")
    """Folder in which encoded pairs are kept."""
    dropped: float = Field(0.0, ge=0, le=1)
    """Share of the samples whose caption is left out, drawn anew each time."""
    shown_steps: int | None = Field(None, ge=1)
    """Steps of sampling in previews; None: the model's own number."""
    _words_stay = model_validator(mode="after")(check_captions)


class EveryTaskStage:
    """Trains a denoiser for every task; a subclass adds `export`.

    Args:
        options: How it is trained.
        stack: The networks.
        model: The networks of the stack that are trained, by name.
        digest: Digest of what decides how pairs are stored.
        seed: Seed of all that is random.
        device: Where it trains.
    """

    def __init__(
        self,
        options: EveryTaskOptions,
        stack: Stack,
        model: dict[str, nn.Module],
        digest: str,
        seed: int,
        device: torch.device,
    ):
        self.options, self.stack, self.seed, self.device = options, stack, seed, device
        refuse_impossible(options, stack)
        move_to(stack, device)
        self.model = nn.ModuleDict(model)
        self.adversary = options.texture.adversary if options.texture else None
        self.discriminator = None
        if self.adversary:
            self.discriminator = self.adversary.build(3 if stack.restorer is None else 6).to(device)
            self.model["judge"] = self.discriminator
        self.samples = open_pairs(options.data, stack, options.cache, digest, seed)
        self.preview_batch = held_out_batch(stack, options.data, options.cache, digest, seed)

    def loss(self, batch: dict, step: int, part: Part = WHOLE) -> dict[str, Tensor]:
        batch = prepare_batch(batch, self.stack, self.device)
        rng = generator(self.device, self.seed, step)
        if self.options.dropped:
            draw = generator(self.device, self.seed, step, "dropped")
            batch = drop_captions(self.stack, batch, self.options.dropped, draw, part)
        return train_step(self.stack, batch, self.options, step, rng, part, self.discriminator)

    @torch.inference_mode()
    def preview(self) -> tuple[list[Tensor], dict[str, float]]:
        """The conditioning, the result and the truth, and the PSNR of the first two."""
        batch = prepare_batch(dict(self.preview_batch), self.stack, self.device)
        made = sample_latents(
            self.stack, batch, self.options.shown_steps or self.stack.steps, self.seed
        )
        return compare(self.stack, batch, {"psnr": made})


class DenoiserOptions(StepOptions, EveryTaskOptions):
    """Which networks are trained, and what they start from."""

    kind: Literal["denoiser"] = "denoiser"
    words: Literal["letters", "captions"] = "letters"
    """What is one token: each letter, or the words of captions as well."""
    start: Path | None = None
    """A model of these shapes to start from: a folder, or `nano`."""
    first_stage: str | None = None
    """A model whose first stage this denoiser goes on from; None: from an interpolated picture."""
    shown_steps: int = Field(1, ge=1)
    """Steps of sampling in previews."""


class DenoiserStage(EveryTaskStage):
    """Trains a denoiser with networks of our own."""

    options: DenoiserOptions

    def __init__(self, options: DenoiserOptions, seed: int, device: torch.device):
        stack = build_stack(options)
        if options.first_stage:
            first = load(options.first_stage, "cpu", "fp32")
            if first.restorer is None:
                raise ConfigError(f"stage.first_stage: {options.first_stage} has none")
            stack.restorer, stack.fidelity = first.restorer, first.fidelity
        if options.start:
            load_trained(load(str(options.start), "cpu", "fp32"), stack)
        model = {"unet": stack.unet, "text": stack.reader.module}
        super().__init__(options, stack, model, digest_of(stack), seed, device)

    def export(self, folder: Path) -> None:
        """Save the whole stack as `restore.checkpoints.load.load` reads it."""
        save(self.stack, folder, card=f"# {folder}\nTrained with:\n\n```\n{self.options}\n```\n")


def build_stack(options: DenoiserOptions, autoencoder: Vae | None = None) -> Stack:
    """An untrained stack.

    Args:
        options: Shapes of the networks.
        autoencoder: The autoencoder; None: the one that the options name.
    """
    reader = text(options, letters(extra_tokens(options)))
    return replace(build(options, reader, autoencoder=autoencoder), prompts_describe="damage")


def load_trained(trained: Stack, stack: Stack) -> None:
    """Copy the weights of a trained stack. The prediction may change between v and the sample.

    At pure noise, where sampling starts, v is the negative of the sample, so with negated output
    weights the first step stays the same. It also does if the new UNet pools the context and the
    old one did not. A text encoder with another vocabulary is trained anew.

    Args:
        trained: The stack whose weights are copied.
        stack: The stack they are copied into.

    Raises:
        ConfigError: If the shapes differ, or the prediction changes in another way.
    """
    keys = stack.unet.load_state_dict(trained.unet.state_dict(), strict=False)
    fresh = [name for name in keys.missing_keys if not name.startswith("add_embedding.")]
    if fresh or keys.unexpected_keys:
        names = ", ".join([*fresh, *keys.unexpected_keys][:3])
        raise ConfigError(f"stage.start: {trained.name} is of another shape, in {names} at least")
    if keys.missing_keys:
        nn.init.zeros_(stack.unet.add_embedding.norm2.weight)  # so that it adds nothing at first
    if stack.reader.tokenizer.get_vocab() == trained.reader.tokenizer.get_vocab():
        stack.reader.module.load_state_dict(trained.reader.module.state_dict())
    before, after = (model.schedule.config.prediction_type for model in (trained, stack))
    if {before, after} == {"v_prediction", "sample"}:
        with torch.no_grad():
            for parameter in stack.unet.conv_out.parameters():
                parameter.neg_()
    elif before != after:
        raise ConfigError(f"stage.prediction is {after}, but {trained.name} was taught {before}")


def extra_tokens(options: DenoiserOptions) -> list[str]:
    """The words that are one token each in a new vocabulary, besides letters."""
    return vocabulary() if options.words == "captions" else []


def move_to(stack: Stack, device: torch.device) -> None:
    """Move the parts to the device where they are trained; the autoencoder is frozen."""
    stack.vae.requires_grad_(False).eval().to(device, memory_format=torch.channels_last)
    stack.unet.to(device, memory_format=torch.channels_last)
    stack.reader.module.to(device)


def held_out_batch(
    stack: Stack, data: PairOptions, cache: Path, digest: str, seed: int
) -> dict[str, Tensor]:
    """A batch of 32 whole pairs that no training sample is cut from.

    Args:
        stack: Its autoencoder encodes them.
        data: The training's own options of data.
        cache: Folder in which encoded pairs are kept.
        digest: Of the autoencoder and the vocabulary; pairs of others are not taken.
        seed: The training's seed; these pairs take the next one.
    """
    # for so few, photos need not stay decoded a second time
    few = {"count": 64, "memory_gb": 0, "window": data.crop // stack.factor}
    whole = data.model_copy(update=few)
    found = open_pairs(whole, stack, cache, digest, seed + 1, held_out=True)
    if isinstance(found, StoredPairs):
        found.prepare(0, 32)
    return torch.utils.data.default_collate([found[i] for i in range(32)])


def refuse_impossible(options: EveryTaskOptions, stack: Stack) -> None:
    """Refuse what would fail at the first picture that is decoded, or at the first preview.

    Raises:
        ConfigError: If windows are too small for what judges them, or steps too many.
    """
    side, texture = stack.factor * options.data.window, options.texture
    for perceptual, adversary in (
        (options.perceptual, None),
        (texture and texture.perceptual, texture and texture.adversary),
    ):
        why = sizes.complaint(side, perceptual, adversary)
        if why and options.pixel_weight:
            raise ConfigError(f"stage.data.window {options.data.window}: {why}")
    refuse_steps("stage.shown_steps", options.shown_steps or 1, stack)


def refuse_steps(name: str, steps: int, stack: Stack) -> None:
    """Refuse more steps of sampling than the noise schedule has.

    Raises:
        ConfigError: If they are more.
    """
    most = stack.schedule.config.num_train_timesteps
    if steps > most:
        raise ConfigError(f"{name}: {steps} steps of sampling are more than the {most} there are")


def digest_of(stack: Stack) -> str:
    """Digest of what decides how pairs are stored: the autoencoder, with the scale and the shift of
    its latents, and the vocabulary.
    """
    config = {name: value for name, value in stack.vae.config.items() if name[0] != "_"}
    found = hashlib.sha256(json.dumps([type(stack.vae).__name__, config], sort_keys=True).encode())
    for name, tensor in stack.vae.state_dict().items():
        found.update(name.encode() + tensor.cpu().numpy().tobytes())
    found.update(json.dumps(stack.reader.tokenizer.get_vocab(), sort_keys=True).encode())
    return found.hexdigest()
