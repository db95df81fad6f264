"""Files: found, hashed, and put under their final name only when whole."""

import errno
import hashlib
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from restore.errors import OutputError

UMASK = os.umask(0o077)  # read by setting it: there is no other way
os.umask(UMASK)
TEMPORARY = ".restore-"  # how the names of files in the making begin
_OURS = re.compile(re.escape(TEMPORARY) + r"([0-9a-f]{8})([0-9a-f]{8})(\..*)?", re.DOTALL)


def cache() -> Path:
    """The folder of the user's that may be deleted at any time."""
    home = Path.home()
    if sys.platform == "win32":
        place = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    else:
        place = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return place / "restore"


def temporary_for(path: Path) -> Path:
    """A new name beside `path` for what shall take its place."""
    nonce = secrets.token_hex(4)
    return path.parent / f"{TEMPORARY}{nonce}{_sign(nonce)}{path.suffix}"


def is_temporary(path: Path) -> bool:
    """Whether a file is one that `replacing` left behind: its name proves it, not how it begins."""
    return is_temporary_name(path.name) and path.is_file() and not path.is_symlink()


def is_temporary_name(name: str) -> bool:
    named = _OURS.fullmatch(name)
    return named is not None and _sign(named[1]) == named[2]


def _sign(nonce: str) -> str:
    return hashlib.blake2b(nonce.encode(), digest_size=4, person=b"restore").hexdigest()


def read_plain(path: Path, most: int = 2**31) -> bytes:
    """The bytes of a file of ours. Raises OSError for pipes and devices, which might never end.

    most  more bytes than that are refused.
    """
    with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no plain file")
        if status.st_size > most:
            raise OSError(errno.EFBIG, f"it is larger than {most:,} bytes")
        return file.read()


def sha256(path: Path) -> str:
    """The digest of a file's bytes, read in pieces. Raises OSError, for pipes and devices too."""
    with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no plain file")
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def replacing(path: Path, is_lasting: bool = True) -> Iterator[Path]:
    """Lend a temporary file beside `path`; on a clean exit it takes the name, in one step.

    On any error, and if the process is killed, what was under `path` before is still there, whole.

    is_lasting  wait until the disk has it, so that it survives a crash of the machine too.
    """
    temporary = temporary_for(path)
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0)
    os.close(os.open(temporary, flags, 0o600))  # nobody's business until it is whole
    try:
        yield temporary
        if is_lasting:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.chmod(0o666 & ~UMASK)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if is_lasting and os.name == "posix":  # elsewhere a folder cannot be opened
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
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        handle = os.open(folder / f"{TEMPORARY}lock", flags, 0o666)
    except OSError as error:  # a link, a pipe or a folder of that name
        told = f"its {TEMPORARY}lock is no lock of ours ({error.strerror}); remove it"
        raise OutputError(f"{folder}: {told}") from error
    with open(handle, "a") as file:
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
