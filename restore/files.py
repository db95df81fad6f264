"""Files: found, hashed, and put under their final name only when whole."""

import hashlib
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from restore.errors import OutputError, UsageError

TEMPORARY = ".restore-"  # how the names of files in the making begin
JUNK = {"thumbs.db", ".ds_store", "desktop.ini", "ehthumbs.db"}
JUNK_FOLDERS = {"__macosx", "$recycle.bin", "@eadir"}
READ = {  # by name only: what the bytes are is found out when they are read
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".avif", ".gif", ".bmp", ".dib"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".tga"),
}
KNOWN = READ | {".heic", ".heif", ".jxl", ".jp2", ".psd", ".svg", ".eps", ".pdf"}  # refused by name


@dataclass(frozen=True)
class Found:
    """A file to work on, or one that was met and is left alone (`skip` says why)."""

    path: Path
    key: str  # path relative to the input folder, with /
    skip: str = ""  # JUNK, NOT_A_PICTURE, NOT_A_FILE, LINK, or empty


def find(inputs: Sequence[Path], output: Path) -> list[Found]:
    """The files that the inputs name, folders walked to their ends, in the order of their keys.

    A folder that is a link is not followed; an output folder inside an input is left out. Raises
    UsageError if an input is missing, is the output folder, or if there is no picture at all.
    """
    found: dict[str, Found] = {}  # by absolute path: the same file named twice is one input
    for given in inputs:
        if not os.path.lexists(given):
            raise UsageError(f"{given}: no such file or folder")
        if not given.is_dir():
            file = Found(given, given.name, _unfit(given))
            found.setdefault(os.path.abspath(given), file)
        elif _same(given, output):
            raise UsageError(f"{output}: is the input folder too; give -o another folder")
        else:
            for file in _walk(given, output):
                found.setdefault(os.path.abspath(file.path), file)
    if not any(not file.skip for file in found.values()):
        raise UsageError(f"{', '.join(map(str, inputs))}: no picture here")
    return sorted(found.values(), key=lambda file: file.key)


def _walk(top: Path, output: Path) -> Iterator[Found]:
    closed: list[OSError] = []
    for folder, folders, names in os.walk(top, onerror=closed.append, followlinks=False):
        here = Path(folder)
        for name in sorted(folders):
            path = here / name
            if path.is_symlink():
                yield Found(path, path.relative_to(top).as_posix(), "LINK")
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and name.casefold() not in JUNK_FOLDERS
            and not (here / name).is_symlink()
            and not _same(here / name, output)
        )
        for name in sorted(names):
            path = here / name
            skip = _unfit(path) or _unlike(name) or _outside(path, top)
            yield Found(path, path.relative_to(top).as_posix(), skip)
    for error in closed:  # it has a row of its own, which fails when it is opened
        path = Path(error.filename)
        yield Found(path, path.relative_to(top).as_posix())


def _unfit(path: Path) -> str:
    """A pipe or a socket would block whoever opens it; a broken link has nothing to open."""
    try:
        mode = path.stat().st_mode
    except PermissionError:
        return ""  # opening it will say so
    except OSError:
        return "LINK" if path.is_symlink() else ""
    return "" if stat.S_ISREG(mode) else "NOT_A_FILE"


def _unlike(name: str) -> str:
    if name.casefold() in JUNK or name.startswith(("._", TEMPORARY)):
        return "JUNK"
    return "" if Path(name).suffix.casefold() in KNOWN else "NOT_A_PICTURE"


def _outside(path: Path, top: Path) -> str:
    inside = not path.is_symlink() or path.resolve().is_relative_to(top.resolve())
    return "" if inside else "LINK"


def _same(one: Path, other: Path) -> bool:
    with suppress(OSError):
        return one.samefile(other)
    return False


def sha256(path: Path) -> str:
    """The digest of a file's bytes, read in pieces. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Lend a temporary file beside `path`; on a clean exit it takes the name, in one step.

    On any error, and if the process is killed, what was under `path` before is still there, whole.
    """
    temporary = path.parent / f"{TEMPORARY}{secrets.token_hex(8)}{path.suffix}"
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0)
    os.close(os.open(temporary, flags, 0o666))
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # elsewhere a folder cannot be opened
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Make the folder and hold it for one process, until the block or the process ends.

    Raises OutputError if another one holds it. On Windows nobody is kept out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{TEMPORARY}lock").open("a") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:
            pass
        except BlockingIOError as error:
            mend = "wait for it, or give another output"
            raise OutputError(f"{folder}: another run writes here; {mend}") from error
        yield


def write_text(path: Path, text: str) -> None:
    """Replace a small text file in one step."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
