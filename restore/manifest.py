"""Folders with a manifest: the sha256 of every file, so that a flipped bit is met before use."""

import hashlib
import json
from pathlib import Path

from restore.errors import ModelError
from restore.files import sha256

NAME = "manifest.json"
SHIPPED = Path(__file__).parent / "weights"


def find_model(name: str) -> tuple[Path, str]:
    """The folder of a model that ships, by name, or of any other, by path; and its digest.

    Raises ModelError if there is none, or if one of its files is missing or changed.
    """
    folder = SHIPPED / name if (SHIPPED / name).is_dir() else Path(name)
    if not folder.is_dir():
        shipped = ", ".join(sorted(path.name for path in SHIPPED.iterdir() if path.is_dir()))
        raise ModelError(
            f"{name}: no model of that name ships, nor is it a folder; choose from {shipped}, or "
            "give the folder that `restore train` exported"
        )
    try:
        return folder, check(folder)
    except ValueError as error:
        raise ModelError(f"{error}; copy or install the model {name} again") from error


def write(folder: Path) -> str:
    """List every file of the folder in its manifest; returns the sha256 of the list."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != NAME)
    sums = {path.relative_to(folder).as_posix(): sha256(path) for path in files}
    text = json.dumps(sums, indent=1) + "\n"
    (folder / NAME).write_text(text)
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
