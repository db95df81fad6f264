"""What can be trained: a config's `stage.kind` picks its options, and those their stage."""

from collections.abc import Callable
from typing import Annotated, Any

import torch
from pydantic import Field

from restore.training.stage import Stage
from restore.training.stages.autoencoder import (
    AutoencoderOptions,
    AutoencoderStage,
    KlOptions,
    VqOptions,
)
from restore.training.stages.denoiser import DenoiserOptions, DenoiserStage
from restore.training.stages.distil import DistilOptions, DistilStage
from restore.training.stages.finetune import FinetuneOptions, FinetuneStage
from restore.training.stages.fusion import FusionOptions, FusionStage
from restore.training.stages.restorer import RestorerOptions, RestorerStage
from restore.training.stages.scratches import ScratchOptions, ScratchStage
from restore.training.toys.digits import PixelOptions, PixelStage
from restore.training.toys.scene_stage import SceneOptions, SceneStage

StageOptions = Annotated[
    AutoencoderOptions
    | KlOptions
    | VqOptions
    | DenoiserOptions
    | FinetuneOptions
    | DistilOptions
    | SceneOptions
    | ScratchOptions
    | PixelOptions
    | RestorerOptions
    | FusionOptions,
    Field(discriminator="kind"),
]
STAGES: dict[str, Callable[[Any, int, torch.device], Stage]] = {
    "autoencoder": AutoencoderStage,
    "autoencoder_kl": AutoencoderStage,
    "autoencoder_vq": AutoencoderStage,
    "denoiser": DenoiserStage,
    "finetune": FinetuneStage,
    "distil": DistilStage,
    "scenes": SceneStage,
    "scratches": ScratchStage,
    "pixels": PixelStage,
    "restorer": RestorerStage,
    "fusion": FusionStage,
}
