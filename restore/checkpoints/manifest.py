"""Folders with a manifest: the sha256 of every file, so that a flipped bit is met before use."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from pydantic import RootModel, ValidationError

from restore.checkpoints import families, file_kinds, hub, places
from restore.errors import ModelError, OutputError
from restore.files import is_temporary_name, open_up, read_plain, sha256, temporary_for

NAME = "manifest.json"
# What stages export that have no manifest, until 2026.
BEFORE = re.compile(
    r"(vae|unet|scheduler)/[\w.-]+\.(json|safetensors)|scratches\.safetensors"
    r"|README\.md|photos\.csv"
)
CARD = "Made by `restore train`"
LOADED = re.compile(r".*\.(safetensors|onnx|bin|pt|pth|ckpt|json|txt|model)")  # in a part's folder
ABOUT = {"stack.json", "model_index.json"}


class Listed(RootModel[dict[str, str]]):
    """Of manifest.json: names of files, with /, and their sha256."""

    def checked(self) -> dict[str, str]:
        """Raises ValueError if a name leads out of the folder, or a digest is none."""
        for name, digest in self.root.items():
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
                raise ValueError(f"{NAME} lists {name!r}, which is no file of its folder")
            if not re.fullmatch(r"[0-9a-f]{64}", digest):
                raise ValueError(f"{NAME} gives {name} a digest that is none")
        return self.root


def find_model(
    name: str, revision: str | None = None, offline: bool = False, allow_pickle: bool = False
) -> tuple[Path, str]:
    """Where a model is, and the digest of what it is made of.

    name  of a model that ships or of one of the user's own; the path of a folder, ours or a
          diffusers pipeline's, or of one file of weights; or a hub id, `org/name` or
          `org/name@revision`.
    Raises ModelError if there is none, if a file that its manifest lists is missing or changed, or
    if its weights are pickled and that is not allowed. A pixel upscaler's .pth always is: tensors
    are all that is read of it.
    """
    path = places.place_of(name)
    if path.is_file():
        if path.suffix.casefold() not in (".safetensors", *hub.PICKLED):
            raise ModelError(f"{name}: holds no weights; a checkpoint is a .safetensors file")
        if not file_kinds.is_pixel(path):
            hub.refuse_pickles([path], allow_pickle)
        return path, hub.digest(path)
    if not path.is_dir():
        if not hub.HUB_ID.fullmatch(name):
            raise ModelError(
                f"{name}: no model of that name ships, nor is it a folder or file; choose from "
                f"{', '.join(places.names())}, give the folder that `restore train` exported, a "
                "diffusers folder, a .safetensors file, an upscaler's .pth, or a hub id such as "
                "org/name@revision; `restore models add` adds others by name"
            )
        path = hub.fetch_model(name, revision, offline, allow_pickle)
    families.refuse(path, name)
    if (path / "model_index.json").is_file() and not (path / NAME).is_file():
        hub.refuse_pickles(
            [file for part in hub.WEIGHED for file in hub.weight_files(path / part)], allow_pickle
        )
        return path, hub.digest(path)
    if not (path / "stack.json").is_file():
        raise ModelError(
            f"{path}: is no model: it has neither stack.json, as ours do, nor model_index.json, as "
            "a diffusers pipeline does"
        )
    try:
        digest = check(path)
        strange = [each for each in unlisted(path) if is_loaded(path, each)]
    except (ValueError, OSError) as error:
        raise ModelError(f"{error}; copy or install the model {name} again") from error
    if strange:
        raise ModelError(
            f"{strange[0]}: is not in the model's {NAME}, and would be loaded unseen; remove it, "
            f"or copy the model {name} again"
        )
    return path, digest


def write(folder: Path) -> str:
    """List every file of the folder in its manifest; returns the sha256 of the list.

    Who may read the folder's files is then up to the umask.
    """
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != NAME)
    sums = {path.relative_to(folder).as_posix(): sha256(path) for path in files}
    text = json.dumps(sums, indent=1) + "\n"
    (folder / NAME).write_text(text)
    open_up(folder)
    return hashlib.sha256(text.encode()).hexdigest()


def read(text: bytes) -> dict[str, str]:
    """The names and digests of a manifest. Raises ValueError if it is none."""
    try:
        return Listed.model_validate_json(text).checked()
    except ValidationError as error:
        raise ValueError(f"{NAME} is no list of files and their digests") from error


def check(folder: Path) -> str:
    """The sha256 of the folder's manifest, every file that it lists having been found unchanged.

    Raises ValueError that names the first file, the manifest among them, which is missing or
    differs.
    """
    path = folder / NAME
    try:
        text = read_plain(path, most=2**24)
        for name, wanted in read(text).items():
            path = folder / name
            if sha256(path) != wanted:
                raise ValueError(f"{path}: changed since {NAME} was written")
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    return hashlib.sha256(text).hexdigest()


def unlisted(folder: Path) -> list[Path]:
    """Files of the folder that its manifest does not list, in order. Raises ValueError, OSError."""
    listed = {NAME, *read(read_plain(folder / NAME, most=2**24))}
    found = sorted(path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
    return [path for path in found if path.relative_to(folder).as_posix() not in listed]


def is_loaded(folder: Path, path: Path) -> bool:
    """Whether a loader would take such a file of a model's folder."""
    first, *rest = path.relative_to(folder).parts
    return bool(LOADED.fullmatch(path.name)) if rest else first in ABOUT


def foreign(folder: Path) -> Path | None:
    """The first file that shows that a folder is not, as it is, one that we exported."""
    if not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir())):
        return None
    if folder.is_symlink() or not folder.is_dir():
        return folder
    if not os.path.lexists(folder / NAME):
        return _foreign_before(folder)
    try:
        check(folder)
        return next(iter(unlisted(folder)), None)
    except (ValueError, OSError):
        return folder / NAME


def _foreign_before(folder: Path) -> Path | None:
    """As `foreign`, of a folder from when not every export had a manifest."""
    card = folder / "README.md"
    if not card.is_file() or CARD not in card.read_text(encoding="utf-8", errors="replace"):
        return folder
    files = (path for path in sorted(folder.rglob("*")) if not path.is_dir() or path.is_symlink())
    names = ((path, path.relative_to(folder).as_posix()) for path in files)
    return next((path for path, name in names if not BEFORE.fullmatch(name)), None)


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Lend a place beside `folder` to export to; on a clean exit it takes the folder's name.

    On any error, what was there before is still there, whole. Raises OutputError if that is
    nothing that we exported.
    """
    _refuse_foreign(folder)
    made = temporary_for(folder.parent / "folder")
    try:
        yield made
        _refuse_foreign(folder)
        if folder.exists():
            old = temporary_for(folder.parent / "folder")
            folder.rename(old)
            made.rename(folder)
            shutil.rmtree(old)
        else:
            made.rename(folder)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise


def _refuse_foreign(folder: Path) -> None:
    if path := foreign(folder):
        raise OutputError(
            f"{folder}: holds {path.name}, which is not as we wrote it; move it away, or give "
            "another folder"
        )


def sweep(folder: Path) -> None:
    """Remove what a killed run had begun to export to folder/export."""
    if not (folder / "export").exists():
        return  # it may have been killed between two names: then this is all there is
    for left in folder.glob(".restore-*"):
        if is_temporary_name(left.name) and left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)


def marks(*places: Path) -> dict[str, tuple[int, ...]]:
    """What the disk says of each file below some places: it tells a swap, and a swap back, too.

    The time of the last change of an inode cannot be set, as that of the file's contents can.
    """
    found: dict[str, tuple[int, ...]] = {}
    for place in places:
        for path in [place, *place.rglob("*")] if place.is_dir() else [place]:
            status = path.stat()
            if not path.is_dir():
                told = (status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns)
                found[str(path)] = told
    return found


@contextmanager
def unchanged(path: Path, digest: str) -> Iterator[None]:
    """Raises ModelError if a model is not of that digest after the block, or was not meanwhile."""
    try:
        before = marks(path)
        yield
        is_same = (find_model(str(path))[1], marks(path)) == (digest, before)
    except OSError as error:
        raise ModelError(f"{error.filename}: cannot be read: {error.strerror}") from error
    if not is_same:
        raise ModelError(f"{path}: changed while it was read; try again")


def with_loras(digest: str, loras: Sequence[tuple[str, float]]) -> str:
    """The digest of weights that LoRAs, (file, scale) each, were fused into."""
    for file, scale in loras:
        told = f"{digest} {hub.digest(hub.lora_file(file))} {scale}"
        digest = hashlib.sha256(told.encode()).hexdigest()
    return digest
