"""Find the files that a run works on: its inputs, with all folders below them."""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from restore.errors import UsageError
from restore.files import TEMPORARY

JUNK = {"thumbs.db", ".ds_store", "desktop.ini", "ehthumbs.db"}
JUNK_FOLDERS = {"__macosx", "$recycle.bin", "@eadir"}
READ = {  # by name only; the content is checked when a file is read
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".avif", ".gif", ".bmp", ".dib"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".tga"),
}
PICTURES = frozenset(READ | {".heic", ".heif"})  # what every command accepts
KNOWN = READ | {".heic", ".heif", ".jxl", ".jp2", ".psd", ".svg", ".eps", ".pdf"}  # refused by name
Links = Literal["inside", "skip", "follow"]


@dataclass(frozen=True)
class Found:
    """A file to work on, or one that is skipped.

    Attributes:
        path: Where it is.
        key: The path relative to the input folder, with /.
        skip: Why it is skipped: JUNK, NOT_A_PICTURE, NOT_A_FILE or LINK. Empty if it is not.
        url: Its URL, if it is not on a disk.
        size: Bytes, for a URL.
    """

    path: Path
    key: str
    skip: str = ""
    url: str = ""
    size: int = 0


@dataclass(frozen=True)
class Choice:
    """Which of the files that are found are inputs.

    Attributes:
        include: Globs; empty includes all. A glob with a / is compared with the whole key, others
            with the name. * also matches /.
        exclude: Globs of the same kind.
        links: inside follows links to files in the same input folder and skips other links. skip
            skips all links. follow also follows links to folders, except those that form a circle.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    links: Links = "inside"

    def takes(self, key: str) -> bool:
        """Whether a file of this key is an input."""

        def fits(glob: str) -> bool:
            return fnmatchcase(key if "/" in glob else key.rpartition("/")[2], glob)

        return (not self.include or any(map(fits, self.include))) and not any(
            map(fits, self.exclude)
        )


def find(
    inputs: Sequence[Path],
    output: Path,
    choice: Choice = Choice(),
    listed: Sequence[Path] = (),
) -> list[Found]:
    """Find the files of the inputs, with all folders below them, sorted by their keys.

    An output folder inside an input is left out.

    Args:
        inputs: Files and folders.
        output: The output folder.
        choice: Which of the files are inputs.
        listed: Paths from a list. The key of a relative path is the path itself, that of an
            absolute path is the path without its root. A missing file is returned too, so that the
            report has a row for it.

    Raises:
        UsageError: If an input is missing or is the output folder, or if there is no picture.
    """
    found: dict[str, Found] = {}  # by absolute path: the same file named twice is one input
    for given in inputs:
        if not os.path.lexists(given):
            raise UsageError(f"{given}: no such file or folder")
        if not given.is_dir():
            met = [Found(given, given.name, _unfit(given))]
        elif _same(given, output):
            raise UsageError(f"{output}: is the input folder too; give -o another folder")
        else:
            met = _walk(given, output, choice.links)
        for file in met:
            found.setdefault(os.path.abspath(file.path), file)
    for given in listed:
        found.setdefault(os.path.abspath(given), Found(given, _listed_key(given), _unfit(given)))
    chosen = [file for file in found.values() if choice.takes(file.key)]
    if not any(not file.skip for file in chosen):
        names = ", ".join(map(str, inputs)) or "the list"
        raise UsageError(f"{names}: no picture {'that is asked for' if found else 'here'}")
    return sorted(chosen, key=lambda file: file.key)


def read_list(data: bytes) -> list[Path]:
    """Read a list of paths: one a line, or separated by NUL bytes as `find -print0` writes them."""
    names = data.split(b"\0") if b"\0" in data else data.splitlines()
    return [Path(os.fsdecode(name)) for name in names if name]


def _listed_key(path: Path) -> str:
    whole = Path(os.path.abspath(path))
    here = Path.cwd()
    inside = whole.is_relative_to(here) and not path.is_absolute()
    return whole.relative_to(here if inside else whole.anchor).as_posix()


def _walk(top: Path, output: Path, links: Links) -> Iterator[Found]:
    closed: list[OSError] = []
    above = {str(top): {os.path.realpath(top)}}  # folder -> real paths of it and its parents
    walk = os.walk(top, onerror=closed.append, followlinks=links == "follow")
    for folder, folders, names in walk:
        here = Path(folder)
        entered = []
        for name in sorted(folders):
            path = here / name
            real = os.path.realpath(path)
            if path.is_symlink() and (links != "follow" or real in above[folder]):
                yield Found(path, path.relative_to(top).as_posix(), "LINK")
            elif name.startswith(".") or name.casefold() in JUNK_FOLDERS:
                yield Found(path, path.relative_to(top).as_posix(), "JUNK")
            elif not _same(path, output):
                entered.append(name)
                above[str(path)] = above[folder] | {real}
        folders[:] = entered
        for name in sorted(names):
            path = here / name
            skip = _unfit(path) or unlike(name) or _unfollowed(path, top, links)
            yield Found(path, path.relative_to(top).as_posix(), skip)
    for error in closed:  # it gets a row in the report, which fails when it is opened
        path = Path(error.filename)
        yield Found(path, path.relative_to(top).as_posix())


def _unfit(path: Path) -> str:
    """Return why a path cannot be read: a pipe or socket would block, a broken link has no file."""
    try:
        mode = path.stat().st_mode
    except PermissionError:
        return ""  # opening it will say so
    except OSError:
        return "LINK" if path.is_symlink() else ""
    return "" if stat.S_ISREG(mode) else "NOT_A_FILE"


def unlike(name: str) -> str:
    """Return why a file of this name is skipped; empty if it may be a picture."""
    if name.casefold() in JUNK or name.startswith(("._", TEMPORARY)):
        return "JUNK"
    return "" if Path(name.rstrip(". ")).suffix.casefold() in KNOWN else "NOT_A_PICTURE"


def _unfollowed(path: Path, top: Path, links: Links) -> str:
    if not path.is_symlink() or links == "follow":
        return ""
    inside = links == "inside" and path.resolve().is_relative_to(top.resolve())
    return "" if inside else "LINK"


def visible(folder: Path) -> list[Path]:
    """List everything below a folder except hidden and system entries, such as thumbnails."""

    def is_shown(name: str) -> bool:
        return not name.startswith(".") and name.casefold() not in JUNK_FOLDERS

    paths = sorted(folder.rglob("*"))
    return [path for path in paths if all(map(is_shown, path.relative_to(folder).parts))]


def _same(one: Path, other: Path) -> bool:
    with suppress(OSError):
        return one.samefile(other)
    return False
