"""Where training pictures come from: folders, lists, shards, datasets. Read by number, any time."""

import io
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pydantic import Field

from restore.config import Options
from restore.errors import ConfigError, ImageError, counted, near, printable
from restore.file_search import PICTURES, visible
from restore.images import picture, sandbox
from restore.storage import digests
from restore.training.data import shards

log = logging.getLogger(__name__)
SUFFIXES = PICTURES


class DatasetOptions(Options):
    """A dataset that the `datasets` package can load; no code of its own runs."""

    dataset: str
    """A hub id, or a folder."""
    split: str = "train"
    """The split of the dataset."""
    column: str = Field("image", min_length=1)
    """The column that holds the pictures."""
    revision: str | None = None
    """A revision of the dataset on the hub; None: the newest."""


Place = Path | DatasetOptions


class Source(Protocol):
    """Pictures by number."""

    names: list[str]
    """One name a picture."""
    sizes: list[int]
    """Bytes of each file; empty where that is not known."""

    def read(self, number: int) -> np.ndarray:
        """Read a picture: uint8 (H, W, 3), upright.

        Raises:
            ImageError: If it cannot be read.
        """
        ...

    def size(self, number: int) -> tuple[int, int]:
        """(height, width), from the header alone.

        Raises:
            ImageError: If it cannot be read.
        """
        ...

    def identity(self) -> list[str]:
        """What distinguishes these pictures from all others: names, and digests of the contents."""
        ...

    def places(self) -> list[str]:
        """Where each picture is: one name of its file, however it was reached, or of its row."""
        ...


class Files:
    """Pictures in files of their own."""

    def __init__(self, paths: list[Path], top: Path):
        self.paths = paths
        self.names = [
            path.relative_to(top).as_posix() if path.is_relative_to(top) else str(path)
            for path in paths
        ]
        self.sizes = [path.stat().st_size if path.is_file() else 0 for path in paths]

    def read(self, number: int) -> np.ndarray:
        return picture.to_rgb8(sandbox.read(self.paths[number]))

    def size(self, number: int) -> tuple[int, int]:
        return sandbox.probe(self.paths[number]).size

    def identity(self) -> list[str]:
        return [*self.names, *digests.of(self.paths)]

    def places(self) -> list[str]:
        return [os.path.realpath(path) for path in self.paths]


class Shards:
    """Pictures within tar files."""

    def __init__(self, tars: list[Path], top: Path):
        self.members = [m for tar in tars for m in shards.members(tar, SUFFIXES)]
        top = top if top.is_dir() else top.parent
        self.names = [f"{m.shard.relative_to(top).as_posix()}/{m.name}" for m in self.members]
        self.sizes = [member.size for member in self.members]

    def read(self, number: int) -> np.ndarray:
        return picture.to_rgb8(self._of(number, sandbox.read))

    def size(self, number: int) -> tuple[int, int]:
        return self._of(number, sandbox.probe).size

    def identity(self) -> list[str]:
        return [*self.names, *digests.of(sorted({member.shard for member in self.members}))]

    def places(self) -> list[str]:
        real = {shard: os.path.realpath(shard) for shard in {m.shard for m in self.members}}
        return [f"{real[member.shard]}/{member.name}" for member in self.members]

    def _of(self, number: int, how: Callable[[picture.Encoded], Any]) -> Any:
        member = self.members[number]
        try:
            return how(picture.Encoded(member.read(), Path(member.name).suffix))
        except ImageError as error:
            raise ImageError(error.code, f"{self.names[number]}: {error}") from error
        except OSError as error:
            raise ImageError("UNREADABLE", f"{self.names[number]}: {error.strerror}") from error


class Dataset:
    """A column of a dataset of the `datasets` package."""

    def __init__(self, options: DatasetOptions):
        try:
            import datasets
        except ImportError as error:
            raise ConfigError("stage.data.photos.dataset needs: pip install datasets") from error
        arguments = {"split": options.split, "revision": options.revision}
        rows = datasets.load_dataset(options.dataset, **arguments)
        if options.column not in rows.column_names:
            mend = near(options.column, rows.column_names)
            raise ConfigError(f"{options.dataset}: has no column {options.column!r}{mend}")
        self.rows = rows.select_columns([options.column]).cast_column(
            options.column, datasets.Image(decode=False)
        )
        self.column = options.column
        self.names = [f"{options.dataset}/{options.split}/{n}" for n in range(len(self.rows))]
        self.sizes = []

    def read(self, number: int) -> np.ndarray:
        return picture.to_rgb8(sandbox.read(picture.Encoded(*self.cell(number))))

    def size(self, number: int) -> tuple[int, int]:
        return sandbox.probe(picture.Encoded(*self.cell(number))).size

    def identity(self) -> list[str]:
        return [*self.names, self.rows._fingerprint]  # of `datasets`, over all that made the rows

    def places(self) -> list[str]:
        return self.names

    def cell(self, number: int) -> tuple[bytes, str]:
        """The bytes of a picture's file, and the end of its name."""
        cell = self.rows[number][self.column]
        suffix = Path(cell["path"] or "").suffix
        return cell["bytes"] or Path(cell["path"]).read_bytes(), suffix


def find(location: Place) -> Source:
    """The pictures at a place.

    Args:
        location: A dataset; a .tar; a list file with one path a line, relative to its folder; or a
            folder of either tars or pictures.

    Raises:
        ConfigError: If there is no such place, or it cannot be read.
    """
    if isinstance(location, DatasetOptions):
        return Dataset(location)
    if not location.exists():
        mend = (
            "name one with stage.data.photos=FOLDER; without photos, "
            f"`restore data scenes -o {location}` draws pictures of coloured shapes"
        )
        raise ConfigError(f"{location}: no such file or folder; {mend}")
    if location.suffix == ".tar":
        return Shards([location], location)
    if location.is_file() and location.suffix.lower() in SUFFIXES:
        mend = "name its folder, or a text file that lists it"
        raise ConfigError(f"{location}: is one picture; {mend}")
    if location.is_file():
        return Files(listed(location), location.parent)
    paths = pictures(location)
    tars = shards.find(location)
    if tars and paths:
        message = f"{counted(len(tars), 'shard')} and {counted(len(paths), 'picture')}"
        raise ConfigError(f"{location}: holds {message}; name a folder with one of them")
    return Shards(tars, location) if tars else Files(paths, location)


def refuse_shared(photos: Place, held_out: Place) -> None:
    """Make sure that no picture is trained on and held out.

    Raises:
        ConfigError: Names the first that is.
    """
    others = find(held_out)
    seen = set(find(photos).places())
    for name, place in zip(others.names, others.places(), strict=True):
        if place in seen:
            raise ConfigError(
                f"stage.data.held_out: {name} is among stage.data.photos too, so training would "
                "see it; move the held-out pictures out of that place, or name each set by a list"
            )


def pictures(folder: Path) -> list[Path]:
    """The pictures in a folder, in the order of their numbers: by the parts of their paths."""
    return [path for path in visible(folder) if path.suffix.lower() in SUFFIXES]


def listed(file: Path) -> list[Path]:
    """The pictures that a list file names; empty lines and lines that begin with # are skipped.

    Raises:
        ConfigError: If it is not UTF-8 text.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        mend = "a list is UTF-8 text, one picture a line"
        raise ConfigError(f"{file}: cannot be read as a list: {error}; {mend}") from error
    names = [line.strip() for line in lines]
    return [file.parent / name for name in names if name and not name.startswith("#")]


class Refused:
    """Pictures that could not be used, with reasons, in a file that every worker appends to."""

    def __init__(self) -> None:
        self.why: dict[str, str] = {}
        self.file: Path | None = None  # JSON lines

    def add(self, name: str, reason: str) -> None:
        """Note a picture and why it cannot be used; only the first reason is kept."""
        if name in self.why:
            return
        self.why[name] = reason
        log.warning("left out: %s", printable(reason if name in reason else f"{name}: {reason}"))
        if self.file:
            self._write(name, reason)

    def keep_in(self, file: Path) -> None:
        """Write the pictures refused so far into a file, and later ones as they are refused."""
        file.unlink(missing_ok=True)
        self.file = file
        for name, reason in self.why.items():
            self._write(name, reason)

    def _write(self, name: str, reason: str) -> None:
        assert self.file
        line = json.dumps({"picture": name, "why": reason}) + "\n"
        with io.FileIO(self.file, "a") as file:  # one write, which no other worker's cuts in two
            file.write(line.encode("utf-8", "backslashreplace"))
