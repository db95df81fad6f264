"""Random numbers shared by any number of processes: functions of (seed, step), drawn then split."""

import random
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from restore.diffusion.noise import seed_of


@dataclass(frozen=True)
class Part:
    """Which of a step's samples a batch holds: every `of`-th, from number `at` on.

    A step's batch is split over processes and over gradient accumulation. Noise and timesteps are
    drawn for the whole batch and then split, so the split does not change what is learnt. The first
    rows of a batch are at the last timestep; the parts are interleaved, so that each has its share
    of them.
    """

    at: int = 0
    """Number of this part, from 0."""
    of: int = 1
    """Number of parts."""

    def cut(self, values: Tensor) -> Tensor:
        """The rows of this part.

        Args:
            values: What was drawn for the whole batch.
        """
        return values[self.at :: self.of]

    def rows(self, count: int) -> range:
        """Which of a whole batch's `count` rows are in this part."""
        return range(self.at, count, self.of)

    def own(self, rows: Tensor) -> Tensor:
        """Those of a whole batch's row numbers that are in this part, as rows of the part."""
        return (rows[rows % self.of == self.at] - self.at) // self.of

    def normal(self, like: Tensor, rng: torch.Generator) -> Tensor:
        """Standard normal noise for a tensor that holds this part."""
        shape = (self.of * len(like), *like.shape[1:])
        return self.cut(torch.randn(shape, generator=rng, device=like.device))


WHOLE = Part()


def reseed(seed: int, step: int, part: Part) -> None:
    """Set every global generator, such as dropout draws from, to a function of seed, step and part.

    So checkpoints need no generator states.
    """
    mixed = seed_of(seed, "global", step, part.at, part.of)
    random.seed(mixed)
    np.random.seed(mixed % 2**32)
    torch.manual_seed(mixed)
