"""Streams of samples and their batches, made ahead of time by worker processes."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import current_process, get_all_start_methods
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from degradations.errors import RecipeError
from restore.errors import RestoreError
from restore.training.data.crops import Photos
from restore.training.rng import Part


class Samples(Dataset):
    """The endless stream make(rng of (seed, index), index), addressed by index.

    Args:
        make: Makes a sample.
        seed: Seed of all samples.
        photos: What samples are cut from, if anything.
    """

    def __init__(
        self,
        make: Callable[[np.random.Generator, int], object],
        seed: int,
        photos: Photos | None = None,
    ):
        self.make, self.seed, self.photos = make, seed, photos

    def __getitem__(self, index: int) -> object:
        return self.make(np.random.default_rng((self.seed, index)), index)


class Rows(Sampler[list[int]]):
    """The sample numbers of one process's parts, in the order in which it needs them.

    Args:
        position: Number of the first sample.
        batch: Samples of a step, over all processes and accumulated parts.
        steps: Number of steps.
        rank: Number of this process.
        ranks: Number of processes.
        accumulate: Parts of a step that one process takes one after another.
    """

    def __init__(
        self, position: int, batch: int, steps: int, rank: int = 0, ranks: int = 1, accumulate=1
    ):
        self.position, self.batch, self.steps = position, batch, steps
        self.parts = [Part(n * ranks + rank, ranks * accumulate) for n in range(accumulate)]

    def __len__(self) -> int:
        return self.steps * len(self.parts)

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.steps):
            first = self.position + step * self.batch
            for part in self.parts:
                yield [first + row for row in part.rows(self.batch)]


@dataclass(frozen=True)
class Refusal:
    """What a worker returns instead of a batch: torch would wrap an error in a traceback of its
    own.
    """

    error: Exception


class Batches(Dataset):
    """Samples by the batch, or the error that prevented one."""

    def __init__(self, samples: Dataset):
        self.samples = samples

    def __getitems__(self, numbers: list[int]) -> Any:
        try:
            return default_collate([self.samples[number] for number in numbers])
        except (RestoreError, RecipeError, OSError) as error:
            return Refusal(error)


class Loader:
    """Iterates over a DataLoader of `Batches` and raises their errors."""

    def __init__(self, loader: DataLoader):
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        for batch in self.loader:
            if isinstance(batch, Refusal):
                raise batch.error
            yield batch


def build_loader(
    samples: Dataset, rows: Iterable[list[int]], workers: int, pinned: bool = False
) -> Loader:
    """A loader of the batches that `rows` asks for. Errors of workers are raised as if made here.

    Args:
        samples: Addressed by index.
        rows: The sample numbers of each batch.
        workers: Processes that make batches ahead of time; 0: this one makes them.
        pinned: Put batches into pinned memory, for a GPU.
    """
    if workers:  # a fork takes OpenCV's pool along without its threads, and would wait for them
        cv2.setNumThreads(1)
    loader = DataLoader(
        Batches(samples),
        batch_sampler=rows,
        collate_fn=identity,
        num_workers=workers,
        worker_init_fn=may_have_children,
        # photos that are kept in memory are shared with the workers, not sent to them
        multiprocessing_context="fork" if workers and "fork" in get_all_start_methods() else None,
        pin_memory=pinned,
        prefetch_factor=4 if workers else None,
    )
    return Loader(loader)


def may_have_children(worker: int) -> None:
    """Let a loader's worker decode in a process of its own, as all others do.

    torch makes its workers daemons, of which Python says that they start none. Ours ends with the
    pipe to it, however the worker ends.
    """
    current_process().daemon = False


def identity(batch: Any) -> Any:
    return batch


def to_rgb(pixels: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) -> rgb (B, 3, H, W) in [0, 1], channels last in memory."""
    return pixels.permute(0, 3, 1, 2).to(torch.float32) / 255
