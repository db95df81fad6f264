"""Model folders with a manifest: the SHA-256 of every file, to find damage before use."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from pydantic import RootModel, ValidationError
from safetensors import SafetensorError

from restore.checkpoints import families, file_kinds, hub, model_paths
from restore.errors import ModelError, OutputError
from restore.files import is_temporary_name, open_up, sha256, temporary_for
from restore.storage import sealed

NAME = "manifest.json"
# What training exported before 2026, when some exports had no manifest.
BEFORE = re.compile(
    r"(vae|unet|scheduler)/[\w.-]+\.(json|safetensors)|scratches\.safetensors"
    r"|README\.md|photos\.csv"
)
CARD = "Made by `restore train`"
LOADED = re.compile(r".*\.(safetensors|onnx|bin|pt|pth|ckpt|json|txt|model)")  # of components
ABOUT = {"stack.json", "model_index.json"}

ALONE = {  # what a training may export that is a part of a model
    "restorer": ("a restorer", "train again with stage.stack=nano added, which exports a model"),
    "fusion": ("a fusion", "train it with stage.stack=nano instead of stage.restorer"),
    "vae": ("an autoencoder", "a denoiser is trained over it: stage.autoencoder names it"),
}


class Listed(RootModel[dict[str, str]]):
    """manifest.json: names of files, with /, and their SHA-256."""

    def checked(self) -> dict[str, str]:
        """Return the list. Raises ValueError if a name leaves the folder or a digest is none."""
        for name, digest in self.root.items():
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
                raise ValueError(f"{NAME} lists {name!r}, which is no file of its folder")
            if not re.fullmatch(r"[0-9a-f]{64}", digest):
                raise ValueError(f"{NAME} gives {name} a digest that is none")
        return self.root


@sealed.sealing()
def find_model(
    name: str, revision: str | None = None, offline: bool = False, allow_pickle: bool = False
) -> tuple[Path, str]:
    """Find a model, and compute the digest of its files.

    Args:
        name: The name of a model that ships or of one of the user's own; the path of a folder, ours
            or a diffusers pipeline's, or of one file of weights; or a hub id, `org/name` or
            `org/name@revision`.
        revision: Of a hub id.
        offline: Do not use the network.
        allow_pickle: Accept pickled weights. A pixel upscaler's .pth is always accepted: only
            tensors are read of it.

    Returns:
        Its path and digest.

    Raises:
        ModelError: If there is none, if a file of its manifest is missing or changed, or if its
            weights are pickled and that is not allowed.
    """
    path = model_paths.find_path(name)
    if path.is_file():
        if path.suffix.casefold() not in (".safetensors", *hub.PICKLED):
            raise ModelError(f"{name}: holds no weights; take the model's .pth or .safetensors")
        if not file_kinds.is_pixel(path):
            hub.refuse_pickles([path], allow_pickle)
        return path, hub.digest(path)
    if not path.is_dir():
        if not hub.HUB_ID.fullmatch(name):
            mend = model_paths.nearest(name) or (
                f"; choose from {', '.join(model_paths.list_names())}, give the folder that "
                "`restore train` exported, a diffusers folder, a .safetensors file, an upscaler's "
                ".pth, or a hub id such as org/name@revision; `restore models add` adds others by "
                "name"
            )
            problem = "no model of that name ships, nor is it a folder or file"
            raise ModelError(f"{name}: {problem}{mend}")
        path = hub.fetch_model(name, revision, offline, allow_pickle)
    families.refuse(path, name)
    if (path / "model_index.json").is_file() and not (path / NAME).is_file():
        hub.refuse_pickles(
            [file for part in hub.WEIGHED for file in hub.weight_files(path / part)], allow_pickle
        )
        return path, hub.digest(path)
    return path, _check_ours(path, name)


def _check_ours(path: Path, name: str) -> str:
    """The digest of a model folder with a manifest. Raises ModelError as `find_model`."""
    if not (path / "stack.json").is_file():
        for part, (what, mend) in ALONE.items():
            if (path / part / "config.json").is_file() and not (path / "unet").is_dir():
                raise ModelError(f"{path}: is {what} alone, no model: {mend}")
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
    return digest


def write(folder: Path) -> str:
    """List every file of the folder in its manifest; returns the SHA-256 of the list.

    The files get the mode of the umask.
    """
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != NAME)
    sums = {path.relative_to(folder).as_posix(): sha256(path) for path in files}
    text = json.dumps(sums, indent=1) + "\n"
    (folder / NAME).write_text(text)
    open_up(folder)
    return hashlib.sha256(text.encode()).hexdigest()


def read(text: bytes) -> dict[str, str]:
    """Return the names and digests of a manifest. Raises ValueError if it is none."""
    try:
        return Listed.model_validate_json(text).checked()
    except ValidationError as error:
        raise ValueError(f"{NAME} is no list of files and their digests") from error


@sealed.sealing()
def check(folder: Path) -> str:
    """Check every file in the folder's manifest; returns the SHA-256 of the manifest.

    Raises:
        ValueError: If a file or the manifest is missing or changed; it names the first.
    """
    path = folder / NAME
    try:
        text = sealed.read(path, most=2**24)
        for name, wanted in read(text).items():
            path = folder / name
            if sealed.sha256(path) != wanted:
                raise ValueError(f"{path}: changed since {NAME} was written")
        return sealed.sha256(folder / NAME)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error


def unlisted(folder: Path) -> list[Path]:
    """Return the files that the folder's manifest does not list. Raises ValueError, OSError."""
    listed = {NAME, *read(sealed.read(folder / NAME, most=2**24))}
    found = sorted(path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
    return [path for path in found if path.relative_to(folder).as_posix() not in listed]


def is_loaded(folder: Path, path: Path) -> bool:
    """Whether a loader would read such a file of a model folder."""
    first, *rest = path.relative_to(folder).parts
    return bool(LOADED.fullmatch(path.name)) if rest else first in ABOUT


def foreign(folder: Path) -> Path | None:
    """Return the first file that we did not export, or that changed since; None without one."""
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
    """As `foreign`, for folders from before every export had a manifest."""
    card = folder / "README.md"
    if not card.is_file() or CARD not in card.read_text(encoding="utf-8", errors="replace"):
        return folder
    files = (path for path in sorted(folder.rglob("*")) if not path.is_dir() or path.is_symlink())
    names = ((path, path.relative_to(folder).as_posix()) for path in files)
    return next((path for path, name in names if not BEFORE.fullmatch(name)), None)


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Yield a folder to export to; on a clean exit it replaces `folder`.

    After an error the old folder is unchanged.

    Raises:
        OutputError: If the old folder holds files that we did not export, or the disk is full.
    """
    _refuse_foreign(folder)
    temporary = temporary_for(folder.parent / "folder")
    try:
        with as_output_error(folder):
            yield temporary
            _refuse_foreign(folder)
            if folder.exists():
                old = temporary_for(folder.parent / "folder")
                folder.rename(old)
                temporary.rename(folder)
                shutil.rmtree(old)
            else:
                temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@contextmanager
def as_output_error(path: Path) -> Iterator[None]:
    """Turn what a disk refuses while a model is written into an OutputError."""
    try:
        yield
    except (OSError, SafetensorError) as error:  # safetensors has a class of its own
        raise OutputError(f"{path}: cannot be written: {error}") from error


def _refuse_foreign(folder: Path) -> None:
    if path := foreign(folder):
        raise OutputError(
            f"{folder}: holds {path.name}, which is not as we wrote it; move it away, or give "
            "another folder"
        )


def sweep(folder: Path) -> None:
    """Remove unfinished exports that a killed run left beside folder/export."""
    if not (folder / "export").exists():
        return  # if the run was killed between two renames, the only copy is temporary
    for left in folder.glob(".restore-*"):
        if is_temporary_name(left.name) and left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)


@contextmanager
def unchanged(path: Path, digest: str) -> Iterator[None]:
    """Raise ModelError if the block loads anything but the bytes of a model with this digest."""
    with sealed.sealing():
        if find_model(str(path))[1] != digest:
            raise sealed.changed(path)
        yield


def with_loras(digest: str, loras: Sequence[tuple[str, float]]) -> str:
    """Combine the digest of weights with fused LoRAs, (file, scale) each."""
    for file, scale in loras:
        message = f"{digest} {lora_digest(hub.lora_file(file))} {scale}"
        digest = hashlib.sha256(message.encode()).hexdigest()
    return digest


def lora_digest(path: Path) -> str:
    """Return the digest of a LoRA, with PEFT's config, which holds its alpha, if it is PEFT's."""
    beside = path.with_name(hub.PEFT_CONFIG)
    is_pefts = any(name.startswith(hub.OF_PEFT) for name in file_kinds.header(path)[0])
    if not is_pefts or not sealed.is_file(beside):
        return hub.digest(path)
    both = f"{hub.digest(path)} {hub.digest(beside)}"
    return hashlib.sha256(both.encode()).hexdigest()
