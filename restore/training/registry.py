"""What can be trained: a config's `stage.kind` picks its options, and those their stage.

A stage has `model`, the module that is trained; `samples`, addressed by index; `loss(batch, step)`,
named scalars whose sum is descended; `preview()`, rows of pictures and their scores; and
`export(folder)`. An adversary is part of `model` too, under the name `judge`, its loss one more of
the scalars; the optimiser holds it as a group of its own, with its own learning rate and clip.
"""

from typing import Annotated

from pydantic import Field

from restore.training.stages.autoencoder import (
    AutoencoderOptions,
    AutoencoderStage,
    KlOptions,
    VqOptions,
)
from restore.training.stages.denoiser import DenoiserOptions, DenoiserStage
from restore.training.stages.distil import DistilOptions, DistilStage
from restore.training.stages.finetune import FinetuneOptions, FinetuneStage
from restore.training.stages.restorer import (
    FusionOptions,
    FusionStage,
    RestorerOptions,
    RestorerStage,
)
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
STAGES = {
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
