"""Tuning a model that exists, ours or of the SD family, in the trust layout."""

from pathlib import Path
from typing import Literal

import torch
from diffusers import DDIMScheduler, SchedulerMixin
from pydantic import Field, model_validator
from torch import Tensor, nn

from restore import manifest
from restore.errors import ConfigError
from restore.loading import load, save
from restore.noise import generator
from restore.stack import Stack
from restore.training import adapters
from restore.training.adapters import LoraOptions
from restore.training.chance import WHOLE, Part
from restore.training.denoising import DenoisingOptions, train_step
from restore.training.diffusion import digest_of, held_out, place
from restore.training.encoded import pairs, ready
from restore.training.networks import Prediction
from restore.training.pairs import PairOptions, words_stay
from restore.training.previews import compared, drawn, without_words
from restore.training.widening import widened


class FinetuneOptions(DenoisingOptions):
    """Which model, how much of it, and on what."""

    kind: Literal["finetune"] = "finetune"
    model: str  # that ships, a folder, a .safetensors file or a hub id
    lora: LoraOptions | None = None  # else all weights are tuned
    text: bool = False  # the text encoder is tuned as well
    # None: half where the walk begins at pure noise, so that one step stays sound, and elsewhere 0
    last_share: float | None = Field(None, ge=0, le=1)
    prediction: Prediction | None = None  # None: the checkpoint's own; another is learnt anew
    zero_terminal_snr: bool | None = None  # None: as the checkpoint has it
    data: PairOptions
    cache: Path = Path("runs/pairs")
    dropped: float = Field(0.0, ge=0, le=1)  # share of samples whose caption is left out this time
    shown_steps: int | None = Field(None, ge=1)  # of the preview; None: the model's own
    _words_stay = model_validator(mode="after")(words_stay)


class FinetuneStage:
    """What the loop needs to know of it."""

    def __init__(self, options: FinetuneOptions, seed: int, device: torch.device):
        self.seed, self.device = seed, device
        found = load(options.model, "cpu", "fp32")
        self.is_widened = found.unet.config.in_channels == found.channels
        self.stack = widened(found)
        self.stack.schedule = reworked(found.schedule, options)
        share = options.last_share
        if share is None:
            share = 0.5 if self.stack.schedule.config.rescale_betas_zero_snr else 0.0
        self.options = options.model_copy(update={"last_share": share})
        self.model = nn.ModuleDict(opened(self.stack, options))
        if self.is_widened:  # what reads the new channels has all to learn
            self.stack.unet.conv_in.requires_grad_(True)
        place(self.stack, device)
        digest = digest_of(self.stack)
        self.samples = pairs(options.data, self.stack, options.cache, digest, seed)
        self.shown = held_out(self.stack, options.data, options.cache, digest, seed)

    def loss(self, batch: dict, step: int, part: Part = WHOLE) -> dict[str, Tensor]:
        batch = ready(batch, self.stack, self.device)
        rng = generator(self.device, self.seed, step)
        if self.options.dropped:
            draw = generator(self.device, self.seed, step, "dropped")
            batch = without_words(self.stack, batch, self.options.dropped, draw, part)
        return train_step(self.stack, batch, self.options, step, rng, part)

    @torch.inference_mode()
    def preview(self) -> tuple[list[Tensor], dict[str, float]]:
        """What is known, the answer and the truth, with both scores."""
        batch = ready(dict(self.shown), self.stack, self.device)
        made = drawn(self.stack, batch, self.options.shown_steps or self.stack.steps, self.seed)
        return compared(self.stack, batch, {"psnr": made})

    def export(self, folder: Path) -> None:
        """The tuned stack as `load` reads it; LoRAs in its weights, and by themselves in lora/.

        Alone they are of use beside the model that they were trained on, so not where that was
        widened.
        """
        card = f"# {folder}\n{self.options.model}, tuned with:\n\n```\n{self.options}\n```\n"
        stack = adapters.fused(self.stack) if self.options.lora else self.stack
        save(stack, folder, card)
        if self.options.lora and not self.is_widened:
            adapters.save(self.stack, folder / "lora")
            manifest.write(folder)


def reworked(schedule: SchedulerMixin, options: FinetuneOptions) -> DDIMScheduler:
    """The checkpoint's noise schedule, with what the options change of it.

    Raises ConfigError if the UNet would be asked for the noise where there is nothing else.
    """
    config = schedule.config
    prediction = options.prediction or config.get("prediction_type", "epsilon")
    zero = options.zero_terminal_snr
    if zero is None:
        zero = config.get("rescale_betas_zero_snr", False)
    if zero and prediction == "epsilon":
        raise ConfigError(
            f"{options.model} answers with the noise, which says nothing where all is noise; with "
            "stage.zero_terminal_snr set stage.prediction=v_prediction or sample"
        )
    changed = {"prediction_type": prediction, "rescale_betas_zero_snr": zero, "clip_sample": False}
    if zero:  # or the walk would not begin where it ends
        changed["timestep_spacing"] = "trailing"
    return DDIMScheduler.from_config(config, **changed)


def opened(stack: Stack, options: FinetuneOptions) -> dict[str, nn.Module]:
    """The modules that are trained, by name; whole, or the LoRAs beside them."""
    modules = {"unet": stack.unet} | ({"text": stack.context.module} if options.text else {})
    for module in modules.values():
        module.requires_grad_(options.lora is None).train()
    if options.lora:
        prefixes = ("unet", "text_encoder") if options.text else ("unet",)
        adapters.attach(stack, options.lora, prefixes)
    return modules
