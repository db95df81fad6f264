"""The folder that training pairs are in: what they were made with, one run at a time, whole files.

A file is written beside its place and renamed, so a run that is killed leaves no half file.
"""

import json
import os
import re
import secrets
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b, file_digest
from pathlib import Path

import cv2
import numpy as np
from pydantic import TypeAdapter, ValidationError

from degradations import recipes
from degradations.errors import RecipeError
from degradations.ops import OPS
from degradations.ops.compose import iterate_ops
from degradations.pipeline import Recipe
from degradations.samples import check_crop, draws_damage

_PART = ".part"  # how the names of unfinished files end
_MADE = re.compile(r"\.(\d{6,}\.(png|json)|recipe\.yaml|\w+\.py)\.[0-9a-f]{16}\.part")
_IDENTITY = TypeAdapter(dict[str, str])
LARGEST = 2**30  # bytes of a photo; a sparse file may have any size
CONTENT = "content of the photos"  # changed in place, they have the same names and sizes
Digests = Callable[[Sequence[Path]], Sequence[str]]


@dataclass(frozen=True)
class PairSet:
    """What decides the bytes of the pairs, besides the photos."""

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
        """The recipe at the severity.

        Raises:
            RecipeError: If it cannot be used, or if crop and scale do not fit.
        """
        if self.crop is not None:
            check_crop(self.crop, self.scale)
        return recipes.find(self.recipe).at(self.severity)


def folders_of(recipe: Recipe) -> tuple[str, ...]:
    """The folders of a pair's files, in the order of writing; a trace marks a complete pair."""
    extra = ("damage",) * draws_damage(recipe) + ("hr_sharp",) * recipe.sharpen
    return ("hr", "lr", *extra, "traces")


def identity_of(
    recipe: Recipe, pairs: PairSet, photos: dict[str, Path], digests: Digests
) -> dict[str, str]:
    """What must be the same for pairs to belong together, in words."""
    names = sorted(photos)
    found = zip(names, digests([photos[name] for name in names]), strict=True)
    content = "/".join(f"{name}\0{digest}" for name, digest in found)
    sizes = (f"{key}\0{_size(photos[key])}" for key in sorted(photos))
    own = "".join(f"{name}{digest_of(data)}" for name, data in plugin_sources(recipe).items())
    return {
        "recipe": f"{recipe.name} ({recipe.digest()})",
        "own ops": digest_of(own) if own else "none",
        "seed": str(pairs.seed),
        "scale": f"{pairs.scale:g}",
        "crop": str(pairs.crop or "whole"),
        "severity": f"{pairs.severity:g}",
        "photos": f"{len(photos)} ({digest_of('/'.join(sizes))})",
        CONTENT: digest_of(content),
    }


def plugin_sources(recipe: Recipe) -> dict[str, str]:
    """The source of each module that defines an op which is not ours, by the module's name."""
    names = {type(op).__module__ for op in iterate_ops(recipe.steps) if op.kind not in OPS}
    return {
        name: Path(str(sys.modules[name].__file__)).read_text(encoding="utf-8")
        for name in sorted(names)
    }


@contextmanager
def hold(out: Path, identity: dict[str, str], folders: tuple[str, ...] = ()) -> Iterator[None]:
    """Lock the folder for one run, and for one kind of pairs.

    Args:
        out: The folder.
        identity: What `identity_of` returns; it is written to pairs.json, or compared with it.
        folders: Folders within it that must not be links.

    Raises:
        RecipeError: If the folder holds other files, or pairs made with other options.
        BlockingIOError: If another run writes there.
    """
    identity_file = out / "pairs.json"
    for path in (identity_file, *(out / folder for folder in folders), out / "recipe.yaml"):
        if path.is_symlink():
            raise RecipeError(f"{path}: is a link, through which pairs would be written; remove it")
    if not identity_file.exists() and out.is_dir() and any(out.iterdir()):
        raise RecipeError(f"{out}: holds files but no pairs.json; give a folder of its own")
    out.mkdir(parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
    # Without a buffer: one that could not be written would be written again at the end.
    with open(os.open(identity_file, flags, 0o666), "ab+", buffering=0) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise RecipeError(f"{identity_file}: is no file of its own; remove it")
        _lock(file.fileno(), out)
        file.seek(0)
        text = file.read().decode(errors="replace")
        record = json.dumps(identity, indent=1) + "\n"
        if record.startswith(text) and text != record:  # all that a killed run could write of it
            file.truncate(0)
            remaining = record.encode()
            while remaining:
                remaining = remaining[file.write(remaining) :]
            os.fsync(file.fileno())
        elif changes := _describe_changes(text, identity):
            mend = "give another folder, or the options it was made with"
            raise RecipeError(f"{out}: holds pairs made with other options: {changes}; {mend}")
        yield


def _describe_changes(text: str, identity: dict[str, str]) -> str:
    try:
        was = _IDENTITY.validate_json(text)
    except ValidationError:
        return "its pairs.json cannot be read"
    known = {CONTENT: identity.get(CONTENT), **was}  # older releases did not record it
    changed = (name for name, value in identity.items() if known.get(name) != value)
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
    except OSError as error:  # some network disks take none
        mend = "name a folder on another disk"
        raise OSError(f"{out}: cannot be locked: {error.strerror or error}; {mend}") from error


def begin(out: Path, folders: tuple[str, ...], recipe: Recipe, pairs: PairSet) -> None:
    """Make the folders, remove what a killed run left unfinished, and write recipe.yaml.

    Args:
        out: The folder of the pairs.
        folders: Its folders, such as hr and lr.
        recipe: Written as recipe.yaml, with the files of its own ops.
        pairs: Says where these files lie.
    """
    for folder in folders:
        (out / folder).mkdir(exist_ok=True)
        for left in (out / folder).glob(f".*{_PART}"):  # of a run that was killed
            if _MADE.fullmatch(left.name) and not left.is_symlink():
                left.unlink(missing_ok=True)
    put(out / "recipe.yaml", recipe.to_yaml().encode())
    for module in plugin_sources(recipe):  # so that recipe.yaml can be loaded from this folder
        name = Path(*module.split(".")).with_suffix(".py")
        source = Path(pairs.recipe).parent / name
        if source.is_file():
            if not (out / name).parent.resolve().is_relative_to(out.resolve()):
                raise RecipeError(f"{(out / name).parent}: leads out of {out}; remove it")
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            put(out / name, source.read_bytes())


def finished(folder: Path) -> set[str]:
    """Names of complete files, without extension; empty ones, left by a crash, are made again."""
    with os.scandir(folder) as entries:
        return {Path(entry.name).stem for entry in entries if entry.stat().st_size}


def png(pixels: np.ndarray) -> bytes:
    """A file of uint8 (H, W, 3) RGB or (H, W)."""
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", pixels)[1].tobytes()


def put(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{_PART}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    try:
        with open(os.open(temporary, flags, 0o666), "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def name_of(k: int) -> str:
    return f"{k:06d}"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def digests_of(paths: Sequence[Path]) -> list[str]:
    """The sha256 of each file, or another text if it cannot be read."""
    return [_sha256(path) for path in paths]


def _sha256(path: Path) -> str:
    try:
        if path.stat().st_size > LARGEST:
            return "too large"
        with path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def digest_of(text: str) -> str:
    return blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
