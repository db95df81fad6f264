"""Training pairs on disk. Pair k is a function of (seed, k, the photos) alone.

    OUT/hr/000000.png        the crop
    OUT/lr/000000.png        what became of it
    OUT/damage/000000.png    where the recipe draws damage, if it draws any
    OUT/hr_sharp/000000.png  the training target, if the recipe sharpens it
    OUT/traces/000000.json   how: replay(trace, hr) is lr; its key names the photo and the crop
    OUT/recipe.yaml          and pairs.json: what all of them were made by

So any number of workers gives the same files, and a run that was killed is gone on with. Each file
is written beside its place and renamed, the trace last.
"""

import json
import os
import re
import secrets
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from hashlib import blake2b
from multiprocessing import get_context, parent_process
from pathlib import Path

import cv2
import numpy as np
from pydantic import TypeAdapter, ValidationError

from degradations import recipes
from degradations.errors import RecipeError
from degradations.ops import OPS
from degradations.ops.compose import every
from degradations.ops.sharpen import sharpen
from degradations.pipeline import Recipe
from degradations.rng import Rng
from degradations.samples import check_crop, draws_damage, whole_size

Read = Callable[[Path], np.ndarray]  # a photo as uint8 (H, W, 3) RGB; what it raises refuses it
Task = tuple[str, Path, list[int]]  # a photo, and the pairs to cut from it
_CHUNK = 16  # pairs that share one reading of a photo
_PART = ".part"  # how the names of files in the making end
_MADE = re.compile(r"\.(\d{6,}\.(png|json)|recipe\.yaml|\w+\.py)\.[0-9a-f]{16}\.part")
_IDENTITY = TypeAdapter(dict[str, str])


@dataclass(frozen=True)
class PairSet:
    """What decides the bytes of the pairs, beside the photos."""

    recipe: str
    """A named recipe, or a YAML file."""
    seed: int = 0
    """Seed of all draws."""
    scale: float = 4
    """1 or more; crop / scale is a whole number."""
    crop: int | None = 256
    """Side of a crop, pixels; None: whole photos, less what the scale leaves over."""
    severity: float = 1
    """Severity of the recipe, 0 to 1."""

    def load(self) -> Recipe:
        """The recipe at the severity. Raises RecipeError, also where crop and scale do not fit."""
        if self.crop is not None:
            check_crop(self.crop, self.scale)
        return recipes.find(self.recipe).at(self.severity)


@dataclass(frozen=True)
class Made:
    """How a run ended."""

    made: int
    """Pairs made by this run."""
    there: int
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
) -> Made:
    """Make pairs 0 to count - 1 that are not in `out` yet.

    Args:
        photos: By a key that stays the same wherever the folder lies; every photo is used once
            before any is used twice, and the next one stands in for one that cannot be read.
        read: A function of a module, so that workers can be told of it.
        workers: Processes; 0 works in this one.
        show: Called with the number of pairs just made.

    Raises:
        RecipeError: For a recipe that cannot be used, and if `out` holds other pairs; OSError if
            `out` cannot be written or another run is writing there, ChildProcessError if a worker
            dies.
    """
    if not photos:
        raise RecipeError("no photos to cut pairs from")
    recipe = pairs.load()
    folders = _folders(recipe)
    with _held(out, _identity(recipe, pairs, photos), folders):
        _begin_folder(out, folders, recipe, pairs)
        done = set.intersection(*(_whole(out / folder) for folder in folders))
        missing = [k for k in range(count) if _name(k) not in done]
        there, made, refused = count - len(missing), 0, {}
        maker = _Maker(pairs, out, read, recipe.digest(), folders)
        with _running(maker, workers) as run:
            while tasks := list(_tasks(missing, photos, pairs.seed, refused)):
                missing = []
                for (key, _, numbers), reason in run(tasks):
                    if reason:
                        refused[key] = reason
                        missing += numbers
                    else:
                        made += len(numbers)
                        show(len(numbers))
    return Made(made, there, len(missing), refused)


def _tasks(
    missing: Sequence[int], photos: dict[str, Path], seed: int, refused: dict[str, str]
) -> Iterator[Task]:
    """The missing pairs by their photo: the first in the order of their epoch that is readable."""
    wanted: dict[str, list[int]] = {}
    order, at = [], -1
    for k in sorted(missing):
        epoch, place = divmod(k, len(photos))
        if epoch != at:
            order, at = sorted(photos, key=lambda key: _digest(f"{seed}/{epoch}/{key}")), epoch
        walk = (order[(place + i) % len(order)] for i in range(len(order)))
        photo = next((key for key in walk if key not in refused), None)
        if photo is not None:
            wanted.setdefault(photo, []).append(k)
    for photo, numbers in wanted.items():
        for start in range(0, len(numbers), _CHUNK):
            yield photo, photos[photo], numbers[start : start + _CHUNK]


@dataclass(frozen=True)
class _Maker:
    """Makes the pairs of a task; sent to the workers, hence without the recipe itself."""

    pairs: PairSet
    out: Path
    read: Read
    digest: str
    folders: tuple[str, ...]

    def begin(self) -> Callable[[Task], str]:
        """Load the recipe; gives the function that does a task and returns why it could not."""
        recipe = self.pairs.load()
        if recipe.digest() != self.digest:
            raise RecipeError(f"{self.pairs.recipe}: changed while it was used; run again")
        return lambda task: self._do(recipe, *task)

    def _do(self, recipe: Recipe, key: str, path: Path, numbers: list[int]) -> str:
        try:
            photo = self.read(path)
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
            plain = key.encode("utf-8", "backslashreplace").decode()  # JSON holds Unicode alone
            self._write(recipe, k, hr, f"{_name(k)}/{plain}@{y},{x}")
        return ""

    def _write(self, recipe: Recipe, k: int, hr: np.ndarray, key: str) -> None:
        degraded = recipe.degrade(hr, self.pairs.scale, self.pairs.seed, key)
        pictures = {"hr": hr, "lr": degraded.lr, "damage": degraded.damage}
        if "hr_sharp" in self.folders:
            pictures["hr_sharp"] = sharpen(hr)
        for folder in self.folders[:-1]:
            _put(self.out / folder / f"{_name(k)}.png", png(pictures[folder]))
        text = degraded.trace.to_json() + "\n"
        _put(self.out / "traces" / f"{_name(k)}.json", text.encode())


@cache
def _begun(maker: _Maker) -> Callable[[Task], str]:
    return maker.begin()  # once a worker


def _work(maker: _Maker, task: Task) -> str:
    return _begun(maker)(task)


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops the workers
    threading.Thread(target=_die_with, args=(parent_process(),), daemon=True).start()
    cv2.setNumThreads(1)


def _die_with(parent) -> None:
    parent.join()
    os._exit(1)  # a killed parent leaves nobody to take the results


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


def _folders(recipe: Recipe) -> tuple[str, ...]:
    """In the order they are written; a trace says that its pair is whole."""
    extra = ("damage",) * draws_damage(recipe) + ("hr_sharp",) * recipe.sharpen
    return ("hr", "lr", *extra, "traces")


def _identity(recipe: Recipe, pairs: PairSet, photos: dict[str, Path]) -> dict[str, str]:
    """What must be the same for pairs to belong together, in words."""
    sizes = (f"{key}\0{_size(photos[key])}" for key in sorted(photos))
    own = "".join(f"{name}{_digest(data)}" for name, data in own_code(recipe).items())
    return {
        "recipe": f"{recipe.name} ({recipe.digest()})",
        "own ops": _digest(own) if own else "none",
        "seed": str(pairs.seed),
        "scale": f"{pairs.scale:g}",
        "crop": str(pairs.crop or "whole"),
        "severity": f"{pairs.severity:g}",
        "photos": f"{len(photos)} ({_digest('/'.join(sizes))})",
    }


def own_code(recipe: Recipe) -> dict[str, str]:
    """The source of each module that holds an op which is not ours, by the module's name."""
    names = {type(op).__module__ for op in every(recipe.steps) if op.kind not in OPS}
    return {
        name: Path(str(sys.modules[name].__file__)).read_text(encoding="utf-8")
        for name in sorted(names)
    }


@contextmanager
def _held(out: Path, identity: dict[str, str], folders: tuple[str, ...] = ()) -> Iterator[None]:
    """Hold the folder for one run, and for one kind of pairs."""
    told = out / "pairs.json"
    for path in (told, *(out / folder for folder in folders), out / "recipe.yaml"):
        if path.is_symlink():
            raise RecipeError(f"{path}: is a link, through which pairs would be written; remove it")
    if not told.exists() and out.is_dir() and any(out.iterdir()):
        raise RecipeError(f"{out}: holds files but no pairs.json; give a folder of its own")
    out.mkdir(parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
    with open(os.open(told, flags, 0o666), "a+", encoding="utf-8") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise RecipeError(f"{told}: is no file of its own; remove it")
        _lock(file.fileno(), out)
        file.seek(0)
        text = file.read()
        if not text.strip():
            file.write(json.dumps(identity, indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        elif there := _differing(text, identity):
            mend = "give another folder, or the options it was made with"
            raise RecipeError(f"{out}: holds pairs made with other options: {there}; {mend}")
        yield


def _differing(text: str, identity: dict[str, str]) -> str:
    try:
        was = _IDENTITY.validate_json(text)
    except ValidationError:
        return "its pairs.json cannot be read"
    changed = (name for name, value in identity.items() if was.get(name) != value)
    return ", ".join(f"{name} {was.get(name)}, now {identity[name]}" for name in changed)


def _lock(handle: int, out: Path) -> None:
    try:
        import fcntl  # not on Windows, where two runs on one folder go unnoticed
    except ImportError:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise BlockingIOError(f"{out}: another run writes here; wait, or give another") from error


def _begin_folder(out: Path, folders: tuple[str, ...], recipe: Recipe, pairs: PairSet) -> None:
    for folder in folders:
        (out / folder).mkdir(exist_ok=True)
        for left in (out / folder).glob(f".*{_PART}"):  # of a run that was killed
            if _MADE.fullmatch(left.name) and not left.is_symlink():
                left.unlink(missing_ok=True)
    _put(out / "recipe.yaml", recipe.to_yaml().encode())
    for module in own_code(recipe):  # so that recipe.yaml can be loaded where it lies
        name = Path(*module.split(".")).with_suffix(".py")
        source = Path(pairs.recipe).parent / name
        if source.is_file():
            if not (out / name).parent.resolve().is_relative_to(out.resolve()):
                raise RecipeError(f"{(out / name).parent}: leads out of {out}; remove it")
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            _put(out / name, source.read_bytes())


def _whole(folder: Path) -> set[str]:
    """Names of files; a machine that went down may leave empty ones, which are made again."""
    with os.scandir(folder) as entries:
        return {Path(entry.name).stem for entry in entries if entry.stat().st_size}


def png(pixels: np.ndarray) -> bytes:
    """A file of uint8 (H, W, 3) RGB or (H, W)."""
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", pixels)[1].tobytes()


def _put(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{_PART}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    try:
        with open(os.open(temporary, flags, 0o666), "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _name(k: int) -> str:
    return f"{k:06d}"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _digest(text: str) -> str:
    return blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
