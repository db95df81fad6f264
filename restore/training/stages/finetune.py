"""Tuning a model that exists, ours or of the SD family, in the trust layout."""

from pathlib import Path
from typing import Literal, Self

import torch
from diffusers import DDIMScheduler, SchedulerMixin
from pydantic import Field, model_validator
from torch import nn

from restore.checkpoints import manifest
from restore.checkpoints.load import load
from restore.checkpoints.save import save
from restore.diffusion.stack import Stack
from restore.errors import ConfigError
from restore.training.stages import lora as adapters
from restore.training.stages.denoiser import EveryTaskOptions, EveryTaskStage, digest_of
from restore.training.stages.lora import LoraOptions
from restore.training.stages.networks import Prediction
from restore.training.stages.widening import widen_stack


class FinetuneOptions(EveryTaskOptions):
    """Which model is tuned, and how much of it."""

    kind: Literal["finetune"] = "finetune"
    model: str
    """A model that ships, a folder, a .safetensors file or a hub id."""
    lora: LoraOptions | None = None
    """Train LoRAs of this kind; None: all weights are trained."""
    text: bool = False
    """Train the text encoder as well."""
    last_share: float | None = Field(None, ge=0, le=1)
    """Share of a batch at the last timestep; None: 0.5 where sampling starts at pure noise, so that
    one step stays good, else 0.
    """
    prediction: Prediction | None = None
    """What the UNet predicts; None: as the checkpoint does; another prediction is learnt anew."""
    zero_terminal_snr: bool | None = None
    """Start sampling at pure noise (Lin et al. 2024); None: as the checkpoint does."""

    @model_validator(mode="after")
    def _can_be_weighed(self) -> Self:
        discriminator = self.texture and self.texture.adversary
        if self.lora and discriminator and discriminator.adaptive:
            raise ValueError(
                "an adaptive adversary is weighed at the UNet's last layer, which a LoRA holds "
                "still; set texture.adversary.adaptive=false"
            )
        return self


class FinetuneStage(EveryTaskStage):
    """Tunes an existing model in the trust layout."""

    options: FinetuneOptions

    def __init__(self, options: FinetuneOptions, seed: int, device: torch.device):
        found = load(options.model, "cpu", "fp32")
        self.is_widened = found.unet.config.in_channels == found.channels
        stack = widen_stack(found)
        stack.schedule = adapt_schedule(found.schedule, options)
        if options.last_share is None:
            share = 0.5 if stack.schedule.config.rescale_betas_zero_snr else 0.0
            options = options.model_copy(update={"last_share": share})
        model = select_modules(stack, options)
        if self.is_widened:  # the new channels are not trained yet
            stack.unet.conv_in.requires_grad_(True)
        super().__init__(options, stack, model, digest_of(stack), seed, device)

    def export(self, folder: Path) -> None:
        """Write the tuned stack as `load` reads it, with LoRAs merged, and the LoRAs alone into
        lora/.

        LoRAs alone are useful with the model they were trained on, so they are left out if that had
        to be widened.
        """
        card = f"# {folder}\n{self.options.model}, tuned with:\n\n```\n{self.options}\n```\n"
        stack = adapters.fuse(self.stack) if self.options.lora else self.stack
        save(stack, folder, card)
        if self.options.lora and not self.is_widened:
            adapters.save(self.stack, folder / "lora")
            manifest.write(folder)


def adapt_schedule(schedule: SchedulerMixin, options: FinetuneOptions) -> DDIMScheduler:
    """The checkpoint's noise schedule, with the changes that the options ask for.

    Args:
        schedule: The checkpoint's.
        options: Prediction and terminal SNR.

    Raises:
        ConfigError: If the UNet would have to predict the noise where there is nothing else.
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
    if zero:  # else sampling would not start at pure noise
        changed["timestep_spacing"] = "trailing"
    made = DDIMScheduler.from_config(config, **changed)
    assert isinstance(made, DDIMScheduler)
    return made


def select_modules(stack: Stack, options: FinetuneOptions) -> dict[str, nn.Module]:
    """The trained modules by name: all of their weights, or LoRAs that are added to them."""
    modules: dict[str, nn.Module] = {"unet": stack.unet}
    if options.text:
        modules["text"] = stack.reader.module
    for module in modules.values():
        module.requires_grad_(options.lora is None).train()
    if options.lora:
        prefixes = ("unet", "text_encoder") if options.text else ("unet",)
        adapters.attach(stack, options.lora, prefixes)
    return modules
