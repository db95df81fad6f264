"""Degraded pictures in the loader of any torch trainer: draws are a function of seed, epoch, index.

pairs = PairDataset("photos", "realesrgan", scale=4, seed=0)
loader = DataLoader(pairs, batch_size=16, sampler=Epochs(pairs), num_workers=4)
for epoch in range(2):
    for batch in loader:  # batch["lr"], batch["hr"], batch["trace"]
        ...

So no draw is repeated, and workers, ranks and restarts do not change any. A loader's workers are
copies that know neither each other nor the epoch, so a generator in them would repeat its draws.
`PairStream` reads photos one after another. `Degrade` is a transform; `Keyed` wraps other datasets
that use it.
"""

import random
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import (
    ConcatDataset,
    Dataset,
    IterableDataset,
    Sampler,
    Subset,
    get_worker_info,
)

from degradations.cutting import Cutter, files_in, like
from degradations.errors import RecipeError
from degradations.keys import key_of, keyed
from degradations.passes import MOST_WORKERS, Passes
from degradations.pipeline import Recipe
from degradations.rng import Rng
from degradations.samples import Maker, pixels

Index = int | tuple[int, int]  # which picture; or which, and in which epoch


class Epochs(Sampler[tuple[int, int]]):
    """A sampler that yields (index, epoch): every picture once an epoch, in a new order each time.

    Each pass is the next epoch. Call `set_epoch` before a pass to say which one it is, as after a
    restart. Under accelerate leave out the ranks, because it shares out the batches itself.

    Args:
        dataset: Anything with a length.
        shuffle: Use a new order in each epoch.
        seed: Seed of the orders.
        rank: Number of this rank: it takes every `ranks`-th picture. All ranks take equally many,
            so up to ranks - 1 pictures are left out of an epoch.
        ranks: Number of ranks.

    Raises:
        TypeError: The dataset is a Subset or ConcatDataset, which pass on only an index.
    """

    def __init__(
        self, dataset: Any, shuffle: bool = True, seed: int = 0, rank: int = 0, ranks: int = 1
    ):
        if not 0 <= rank < ranks:
            raise ValueError(f"rank {rank} is none of {ranks}; give 0 to {ranks - 1}")
        if len(dataset) < ranks:
            raise ValueError(f"{len(dataset)} pictures cannot be shared by {ranks} ranks")
        if isinstance(dataset, Subset | ConcatDataset):
            raise TypeError(
                f"{type(dataset).__name__} does not take (index, epoch), which Epochs yields; wrap "
                "photos and Degrade in Keyed outermost, make PairDataset of a part of the files, "
                "or give the loader shuffle=True and call PairDataset.set_epoch before each epoch"
            )
        self.dataset, self.shuffle, self.seed = dataset, shuffle, seed
        self.rank, self.ranks, self.epoch = rank, ranks, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.dataset) // self.ranks

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, order = self.epoch, np.arange(len(self.dataset))
        self.epoch += 1
        if self.shuffle:
            order = np.random.default_rng((self.seed, epoch)).permutation(order)
        for index in order[self.rank :: self.ranks][: len(self)]:
            yield int(index), epoch


class _Numbered(Dataset):
    """A dataset that knows its epoch: from its sampler, or else from `set_epoch`.

    The epoch is in shared memory, so persistent workers see what `set_epoch` sets.
    """

    def __init__(self, length: int):
        self.length = length
        with torch.device("cpu"):  # whatever torch.set_default_device says
            self._epoch = torch.full((1,), -1, dtype=torch.int64).share_memory_()  # -1: not set
            self._met = torch.zeros(length, dtype=torch.bool).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of indices that come without one."""
        self._epoch[0] = epoch

    def __len__(self) -> int:
        return self.length

    def _numbers(self, which: Index) -> tuple[int, int]:
        """(index, epoch). Raises IndexError past the end, which ends a `for`."""
        index, epoch = which if isinstance(which, tuple | list) else (which, None)
        if not -self.length <= index < self.length:
            raise IndexError(f"{index} is none of {self.length} pictures")
        index = int(index) % self.length
        return index, self._current_epoch(index) if epoch is None else int(epoch)

    def _current_epoch(self, index: int) -> int:
        epoch = int(self._epoch[0])
        if epoch >= 0:
            return epoch
        if self._met[index]:
            self.set_epoch(0)  # say it once
            warnings.warn(
                f"picture {index} is drawn as before, for nobody said that another epoch began: "
                "give the loader sampler=Epochs(dataset), or call set_epoch(epoch) before each; "
                "for pictures that shall stay the same, set_epoch(0) once",
                stacklevel=4,
            )
        self._met[index] = True
        return 0


class Keyed(_Numbered):
    """A dataset whose transforms degrade: ours of this module, or that for albumentations.

    While it makes picture `index` of `epoch`, the key of all draws is "epoch/index". Meanwhile the
    global generators of random, numpy and torch, from which other transforms draw, are functions of
    the seed and that key.

    Args:
        dataset: Any dataset with a length.
        seed: Seed of the global generators.
        seeded: Objects with a generator of their own and `set_random_seed`, such as albumentations'
            Compose.
    """

    def __init__(self, dataset: Any, seed: int = 0, seeded: Sequence[Any] = ()):
        super().__init__(len(dataset))
        self.dataset, self.seed, self.seeded = dataset, seed, seeded

    def __getitem__(self, which: Index) -> Any:
        index, epoch = self._numbers(which)
        key = f"{epoch}/{index}"
        with keyed(key), _global_generators(Rng(self.seed, key).bits() % 2**32):
            for one in self.seeded:
                one.set_random_seed(Rng(self.seed, key).bits() % 2**32)
            return self.dataset[index]


class PairDataset(_Numbered):
    """Good pictures and their degraded versions, by number: {"lr", "hr", "trace", "photo"}.

    lr and hr are float (3, h, w) in [0, 1]. `trace` is JSON; replaying it on hr gives lr. `photo`
    is a number in `photos`. A recipe that sharpens adds "hr_sharp", the training target. A recipe
    that draws damage adds "damage", (1, h, w). The key of a draw is "epoch/index". A photo that
    cannot be read, or is smaller than the crop, is left out and logged; the next one is used in its
    place.

    Args:
        photos: A folder, files, or any sequence of arrays (H, W, 3), PIL pictures or tensors:
            whatever `read` turns into uint8 (H, W, 3).
        recipe: A recipe's name, a YAML file, or a Recipe.
        scale: HR size over LR size, 1 or more.
        seed: Seed of all draws.
        crop: Side of the crops, pixels; None: whole photos.
        turns: Turn and mirror at random.
        read: Turns an item of `photos` into uint8 (H, W, 3).
        apply: False leaves out lr and damage. The device makes them from the batch's hr and traces:
            degradations.device.degrade.

    Raises:
        RecipeError: If there are no photos or no such recipe, or if crop and scale do not fit.
    """

    def __init__(
        self,
        photos: str | Path | Sequence[Any],
        recipe: Recipe | str | Path,
        scale: float,
        seed: int,
        *,
        crop: int | None = 256,
        turns: bool = True,
        read: Callable[[Any], np.ndarray] = pixels,
        apply: bool = True,
    ):
        self.photos = files_in(photos) if isinstance(photos, str | Path) else photos
        super().__init__(len(self.photos))
        if not self.length:
            raise RecipeError("no photos to make pairs of")
        self.cutter = Cutter(Maker.of(recipe, scale, seed), crop, turns, read)
        self.apply = apply

    def hr(self, index: int, epoch: int) -> tuple[np.ndarray, int]:
        """The good picture of a sample, and the number of its photo.

        Raises:
            RecipeError: If no photo can be used.
        """
        why = ""
        for shift in range(self.length):
            number = (index + shift) % self.length
            hr = self.cutter.cut(self.photos, number, f"{epoch}/{index}")
            if isinstance(hr, np.ndarray):
                return hr, number
            why = hr
        raise RecipeError(f"none of {self.length} photos can be used; the last: {why}")

    def __getitem__(self, which: Index) -> dict[str, Any]:
        index, epoch = self._numbers(which)
        hr, photo = self.hr(index, epoch)
        return self.cutter.sample(hr, f"{epoch}/{index}", self.apply) | {"photo": photo}


class PairStream(IterableDataset):
    """As PairDataset, from photos that come one after another: shards, a queue, a hub's stream.

    Each pass over the photos is the next epoch, with however many workers, and a look at a single
    sample is a pass too; `set_epoch` says which one comes next.
    A photo that cannot be used is left out and logged.

    Args:
        photos: An iterable that yields the same photos in the same order each time.
        recipe: A recipe's name, a YAML file, or a Recipe.
        scale: HR size over LR size, 1 or more.
        seed: Seed of all draws.
        crop: Side of the crops, pixels; None: whole photos.
        turns: Turn and mirror at random.
        read: Turns a photo into uint8 (H, W, 3).
        apply: False leaves out lr and damage, see PairDataset.
        named: `photos` yields (name, photo) and splits itself among workers and ranks, as
            webdataset does; the key of a draw is "epoch/name". If False, each worker takes its
            share of the photos, none is lost or doubled, and the key is "epoch/number".
        rank: Number of this rank under DDP. Under accelerate leave it out.
        ranks: Number of ranks.

    Raises:
        TypeError: `photos` is a path.
    """

    def __init__(
        self,
        photos: Iterable[Any],
        recipe: Recipe | str | Path,
        scale: float,
        seed: int,
        *,
        crop: int | None = 256,
        turns: bool = True,
        read: Callable[[Any], np.ndarray] = pixels,
        apply: bool = True,
        named: bool = False,
        rank: int = 0,
        ranks: int = 1,
    ):
        if not 0 <= rank < ranks:
            raise ValueError(f"rank {rank} is none of {ranks}; give 0 to {ranks - 1}")
        if isinstance(photos, str | Path):  # a stream of its letters otherwise
            raise TypeError(f"{photos}: is a path, no stream of photos; give it to PairDataset")
        self.photos, self.apply, self.named = photos, apply, named
        self.cutter = Cutter(Maker.of(recipe, scale, seed), crop, turns, read)
        self.rank, self.ranks = rank, ranks
        self._epochs, self._passes = Passes(), 0

    def set_epoch(self, epoch: int) -> None:
        """Set which epoch the next pass is."""
        self._epochs.set_next(epoch)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        self._passes += 1
        if worker is None:
            return self._samples(self._epochs.begin(MOST_WORKERS, None), 0, 1)
        # a loader's workers have seeds that follow on each other, and make equally many passes
        loader = worker.seed - worker.id, worker.num_workers, self._passes
        epoch = self._epochs.begin(worker.id, loader)
        return self._samples(epoch, worker.id, worker.num_workers)

    def _samples(self, epoch: int, at: int, workers: int) -> Iterator[dict[str, Any]]:
        # so ranks differ by one photo at most, however many workers they have
        part, parts = at * self.ranks + self.rank, workers * self.ranks
        for number, photo in enumerate(self.photos):
            if not self.named and number % parts != part:
                continue
            name, picture = photo if self.named else (number, photo)
            hr = self.cutter.cut({name: picture}, name, f"{epoch}/{name}")
            if isinstance(hr, np.ndarray):
                yield self.cutter.sample(hr, f"{epoch}/{name}", self.apply)


class Degrade(torch.nn.Module):
    """A transform: a picture -> {"lr", "hr", "trace"}, in the type that the picture has.

    It takes the place of a torchvision transform, v1 or v2, after those that crop and turn, and
    before those that normalise; torchvision itself is not needed. PIL pictures, tensors (3, H, W),
    arrays (H, W, 3) and tv_tensors.Image come back as their own type; grey ones and those with
    alpha as RGB, for noise has colours. Further arguments, such as a label, are passed through.
    See PairDataset for what a sample holds.

    The draws are a function of `key`, if it is given. Else they belong to the picture that
    degradations.torch.Keyed is at, or to the key of degradations.keyed, or to the number of the
    call. The transform refuses to draw where several workers would draw the same.

    Args:
        recipe: A recipe's name, a YAML file, or a Recipe.
        scale: HR size over LR size, 1 or more.
        seed: Seed of all draws.
    """

    def __init__(self, recipe: Recipe | str | Path, scale: float = 4, seed: int = 0):
        super().__init__()
        self.maker = Maker.of(recipe, scale, seed)

    def forward(self, picture: Any, *beside: Any, key: str | None = None) -> Any:
        hr = pixels(picture)
        made = self.maker.sample(hr, self.maker.draw(hr, key_of(key)))
        sample = {name: like(v, picture) if name != "trace" else v for name, v in made.items()}
        return (sample, *beside) if beside else sample

    def extra_repr(self) -> str:
        maker = self.maker
        return f"{maker.recipe.name!r}, scale={maker.scale:g}, seed={maker.seed}"


@contextmanager
def _global_generators(seed: int) -> Iterator[None]:
    """Seeded within, and as they were after."""
    before = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed)
        torch.random.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])
