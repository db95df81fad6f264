"""Training pairs on disk. Pair k is a function of (seed, k, the photos) alone.

    OUT/hr/000000.png        the crop
    OUT/lr/000000.png        what became of it
    OUT/damage/000000.png    where the recipe draws damage, if it draws any
    OUT/hr_sharp/000000.png  the training target, if the recipe sharpens it
    OUT/traces/000000.json   how: replay(trace, hr) is lr; its key names the photo and the crop
    OUT/recipe.yaml          and pairs.json: what all of them were made by

So any number of workers makes the same files, and a run that was killed can be continued. Each file
is written under another name and renamed, the trace last.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import get_context, parent_process
from pathlib import Path

import cv2
import numpy as np

from degradations.errors import RecipeError
from degradations.ops.sharpen import sharpen
from degradations.pair_folder import (
    Digests,
    PairSet,
    begin,
    digest_of,
    digests_of,
    finished,
    folders_of,
    hold,
    identity_of,
    name_of,
    png,
    put,
)
from degradations.pipeline import Recipe
from degradations.rng import Rng
from degradations.samples import whole_size
from degradations.trace import plain_text

Read = Callable[[Path], np.ndarray]  # a photo as uint8 (H, W, 3) RGB; what it raises refuses it
Task = tuple[str, Path, list[int]]  # a photo, and the pairs to cut from it
_CHUNK = 16  # pairs that share one reading of a photo


@dataclass(frozen=True)
class PairCounts:
    """The result of a run."""

    new: int
    """Pairs made by this run."""
    existing: int
    """Pairs made by an earlier run."""
    missing: int
    """Pairs that could not be made because no photo was left that can be used."""
    refused: dict[str, str]
    """Photos that gave no crop: key and reason."""


def make(
    photos: dict[str, Path],
    pairs: PairSet,
    out: Path,
    count: int,
    read: Read,
    *,
    workers: int = 0,
    show: Callable[[int], None] = lambda pairs: None,
    digests: Digests = digests_of,
) -> PairCounts:
    """Make the pairs 0 to count - 1 that are not in `out` yet.

    Args:
        photos: By a key that does not depend on where the folder is. Every photo is used once
            before any is used twice. The next one is used in place of one that cannot be read.
        pairs: What decides the pairs.
        out: The folder.
        count: Number of pairs.
        read: Reads a photo as uint8 (H, W, 3); a function of a module, so that it can be pickled.
        workers: Processes; 0 works in this one.
        show: Called with the number of pairs just made.
        digests: Returns a digest of the content of each photo; a caller may keep them.

    Raises:
        RecipeError: If the recipe cannot be used, or `out` holds other pairs.
        OSError: If `out` cannot be written, or another run is writing there.
        ChildProcessError: If a worker dies.
    """
    if not photos:
        raise RecipeError("no photos to cut pairs from")
    recipe = pairs.load()
    folders = folders_of(recipe)
    with hold(out, identity_of(recipe, pairs, photos, digests), folders):
        begin(out, folders, recipe, pairs)
        done = set.intersection(*(finished(out / folder) for folder in folders))
        missing = [k for k in range(count) if name_of(k) not in done]
        existing, new, refused = count - len(missing), 0, {}
        maker = _Maker(pairs, out, read, recipe.digest(), folders)
        with _running(maker, workers) as run:
            while tasks := list(_tasks(missing, photos, pairs.seed, refused)):
                missing = []
                for (key, _, numbers), reason in run(tasks):
                    if reason:
                        refused[key] = reason
                        missing += numbers
                    else:
                        new += len(numbers)
                        show(len(numbers))
    return PairCounts(new, existing, len(missing), refused)


def _tasks(
    missing: Sequence[int], photos: dict[str, Path], seed: int, refused: dict[str, str]
) -> Iterator[Task]:
    """The missing pairs by their photo: the first in the order of their epoch that is readable."""
    wanted: dict[str, list[int]] = {}
    order, at = [], -1
    for k in sorted(missing):
        epoch, place = divmod(k, len(photos))
        if epoch != at:
            order, at = sorted(photos, key=lambda key: digest_of(f"{seed}/{epoch}/{key}")), epoch
        walk = (order[(place + i) % len(order)] for i in range(len(order)))
        photo = next((key for key in walk if key not in refused), None)
        if photo is not None:
            wanted.setdefault(photo, []).append(k)
    for photo, numbers in wanted.items():
        for start in range(0, len(numbers), _CHUNK):
            yield photo, photos[photo], numbers[start : start + _CHUNK]


@dataclass(frozen=True)
class _Maker:
    """Makes the pairs of a task. It is sent to the workers, so it does not hold the recipe."""

    pairs: PairSet
    out: Path
    read: Read
    digest: str
    folders: tuple[str, ...]

    def begin(self) -> Callable[[Task], str]:
        """Load the recipe; returns a function that does a task and returns why it could not."""
        recipe = self.pairs.load()
        if recipe.digest() != self.digest:
            raise RecipeError(f"{self.pairs.recipe}: changed while it was used; run again")
        return lambda task: self._do(recipe, *task)

    def _do(self, recipe: Recipe, key: str, path: Path, numbers: list[int]) -> str:
        try:
            photo = self._read(path)
        except MemoryError:
            raise
        except Exception as error:  # whatever a reader may raise; a bad photo costs no other
            return str(error)
        (height, width), crop = photo.shape[:2], self.pairs.crop
        sides = (crop, crop) if crop else whole_size((height, width), self.pairs.scale)
        if height < sides[0] or width < sides[1] or 0 in sides:
            need = (
                f"the crop of {crop} px" if crop else f"what the scale {self.pairs.scale:g} needs"
            )
            return f"{width}x{height} px is smaller than {need}"
        for k in numbers:
            rng, y, x = Rng(self.pairs.seed, f"crop/{k}"), 0, 0
            if crop:
                y, x = (int(rng.uniform() * (side - crop + 1)) for side in (height, width))
            hr = np.ascontiguousarray(photo[y : y + sides[0], x : x + sides[1]])
            self._write(recipe, k, hr, f"{name_of(k)}/{plain_text(key)}@{y},{x}")
        return ""

    def _read(self, path: Path) -> np.ndarray:
        """Read a photo; twice if need be: what a disk refuses once must not decide a pair."""
        try:
            return self.read(path)
        except MemoryError:
            raise
        except Exception:
            return self.read(path)

    def _write(self, recipe: Recipe, k: int, hr: np.ndarray, key: str) -> None:
        degraded = recipe.degrade(hr, self.pairs.scale, self.pairs.seed, key)
        pictures = {"hr": hr, "lr": degraded.lr, "damage": degraded.damage}
        if "hr_sharp" in self.folders:
            pictures["hr_sharp"] = sharpen(hr)
        for folder in self.folders[:-1]:
            put(self.out / folder / f"{name_of(k)}.png", png(pictures[folder]))
        text = degraded.trace.to_json() + "\n"
        put(self.out / "traces" / f"{name_of(k)}.json", text.encode())


@cache
def _begin_once(maker: _Maker) -> Callable[[Task], str]:
    return maker.begin()  # once a worker


def _work(maker: _Maker, task: Task) -> str:
    return _begin_once(maker)(task)


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops the workers
    threading.Thread(target=_die_with, args=(parent_process(),), daemon=True).start()
    cv2.setNumThreads(1)


def _die_with(parent) -> None:
    parent.join()
    os._exit(1)  # nobody is left to take the results


@contextmanager
def _running(maker: _Maker, workers: int) -> Iterator[Callable]:
    """Lend a function: tasks -> (task, why it could not be done) for each."""
    if workers == 0:
        do = maker.begin()
        yield lambda tasks: ((task, do(task)) for task in tasks)
        return
    context = get_context("spawn")  # a fork would copy OpenCV's threads half alive
    pool = ProcessPoolExecutor(workers, context, _begin_worker)
    try:
        yield lambda tasks: zip(tasks, pool.map(partial(_work, maker), tasks), strict=True)
    except BrokenProcessPool as error:
        mend = "if memory was short, give fewer workers; run again to go on"
        raise ChildProcessError(f"a worker process was ended from outside; {mend}") from error
    finally:
        pool.shutdown(cancel_futures=True)
