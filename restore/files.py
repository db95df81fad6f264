"""Files: found, hashed, and put under their final name only when whole."""

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from restore.errors import OutputError

UMASK = os.umask(0o077)  # read by setting it: there is no other way
os.umask(UMASK)
TEMPORARY = ".restore-"  # how the names of files in the making begin


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
    os.close(os.open(temporary, flags, 0o600))  # nobody's business until it is whole
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~UMASK)
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


def open_up(folder: Path) -> None:
    """Give the files of a folder the mode that the umask leaves: safetensors makes its own 0600."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(0o666 & ~UMASK)


@contextmanager
def held(folder: Path, waits: bool = False) -> Iterator[None]:
    """Make the folder and hold it for one process, until the block or the process ends.

    waits  until another one has done with it; else OutputError is raised.
    On Windows nobody is kept out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{TEMPORARY}lock").open("a") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
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
