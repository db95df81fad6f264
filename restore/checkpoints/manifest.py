"""Folders with a manifest: the sha256 of every file, so that a flipped bit is met before use."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from restore.checkpoints import file_kinds, hub, places
from restore.errors import ModelError
from restore.files import open_up, sha256

NAME = "manifest.json"


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
        return path, check(path)
    except ValueError as error:
        raise ModelError(f"{error}; copy or install the model {name} again") from error


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


def check(folder: Path) -> str:
    """The sha256 of the folder's manifest, every file that it lists having been found unchanged.

    Raises ValueError that names the first file, the manifest among them, which is missing or
    differs.
    """
    path = folder / NAME
    try:
        text = path.read_bytes()
        for name, wanted in json.loads(text).items():
            path = folder / name
            if sha256(path) != wanted:
                raise ValueError(f"{path}: changed since {NAME} was written")
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    return hashlib.sha256(text).hexdigest()


def with_loras(digest: str, loras: Sequence[tuple[str, float]]) -> str:
    """The digest of weights that LoRAs, (file, scale) each, were fused into."""
    for file, scale in loras:
        told = f"{digest} {sha256(hub.lora_file(file))} {scale}"
        digest = hashlib.sha256(told.encode()).hexdigest()
    return digest
