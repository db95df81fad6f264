"""What the loop needs of a stage, and what it uses of a stage's samples where they have it."""

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor, nn
from torch.utils.data import Dataset

from degradations import Trace
from restore.training.data.crops import Photos
from restore.training.losses.discriminator import AdversaryOptions
from restore.training.rng import Part


class Stage(Protocol):
    """What is trained, on what, and by which losses. It is built from (options, seed, device)."""

    @property
    def model(self) -> nn.Module:
        """The module that is trained. Its discriminator, if it has one, is a part of it."""
        ...

    @property
    def samples(self) -> Dataset:
        """An endless stream of samples, addressed by index."""
        ...

    def loss(self, batch: Any, step: int, part: Part, /) -> dict[str, Tensor]:
        """The losses of a batch.

        Args:
            batch: Samples, collated by torch's `default_collate`.
            step: Number of the update, from 0.
            part: Which part of the step's samples the batch is.

        Returns:
            Scalars by name, already weighted: their sum is minimised.
        """
        ...

    def preview(self) -> tuple[list[Tensor], dict[str, float]]:
        """Rows of pictures, each rgb (B, 3, H, W), and scores by name; either may be empty."""
        ...

    def export(self, folder: Path) -> None:
        """Write the trained weights into a new folder."""
        ...


@runtime_checkable
class AdversarialStage(Protocol):
    """A stage that may have a discriminator.

    The optimiser gives the discriminator a group of its own, with its own learning rate and clip.
    """

    discriminator: nn.Module | None
    adversary: AdversaryOptions | None


@runtime_checkable
class PreparedSamples(Protocol):
    """Samples that are made ahead of training."""

    def prepare(self, first: int, last: int) -> None:
        """Make what the samples from number `first` to before `last` need."""
        ...


@runtime_checkable
class PhotoSamples(Protocol):
    """Samples that are cut from photos, some of which may be refused."""

    photos: Photos | None


class Traced(Protocol):
    """A pair, and how its picture was degraded."""

    @property
    def trace(self) -> Trace | None:
        """How, if it was by a recipe."""
        ...

    @property
    def original(self) -> np.ndarray:
        """uint8 (S, S, 3): what the trace replays on."""
        ...


@runtime_checkable
class PairSamples(Protocol):
    """Samples that can make their whole pair once more, for a look at a batch that failed."""

    def pair(self, index: int) -> Traced:
        """The pair of sample `index`."""
        ...
