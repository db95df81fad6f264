"""Reading, hashing, locking and replacing files."""

import errno
import hashlib
import os
import re
import secrets
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal

from restore.errors import OutputError

UMASK = os.umask(0o077)  # the umask can only be read by setting it
os.umask(UMASK)
LONGEST = 2**24  # bytes of a line
ABSENT = {errno.ENOENT, errno.ENOTDIR}  # what reading raises where there is no file
STRANGE = {errno.EINVAL, errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.EFBIG}  # or no plain one
UNABLE = {errno.EPERM, errno.EACCES, errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.ENOSYS}
XDG = {"cache": ".cache", "data": ".local/share", "state": ".local/state"}  # by its specification
TEMPORARY = ".restore-"  # prefix of temporary files
_OURS = re.compile(re.escape(TEMPORARY) + r"([0-9a-f]{8})([0-9a-f]{8})(\..*)?", re.DOTALL)


def home_folder(purpose: Literal["cache", "data", "state"]) -> Path:
    """Return this package's folder in the user's home, which may not exist yet.

    Args:
        purpose: cache: it may be deleted at any time; data: what the user added; state: jobs.

    Raises:
        FileNotFoundError: The system does not know the user's home.
    """
    is_windows = sys.platform == "win32"
    name = "LOCALAPPDATA" if is_windows else f"XDG_{purpose.upper()}_HOME"
    if folder := os.environ.get(name):
        return Path(folder) / "restore"
    try:
        home = Path.home()
    except RuntimeError as error:  # a number without a name, as in a container
        raise FileNotFoundError(f"this user has no home folder; set HOME or {name}") from error
    return home / ("AppData/Local" if is_windows else XDG[purpose]) / "restore"


def expand_home(value: Any) -> Any:
    """The value of a YAML file with the home folder for ~/ in its paths: no shell reads them."""
    if isinstance(value, dict):
        return {expand_home(key): expand_home(one) for key, one in value.items()}
    if isinstance(value, list):
        return [expand_home(one) for one in value]
    is_path = isinstance(value, str) and value.startswith("~/")
    return os.path.expanduser(value) if is_path else value


def temporary_for(path: Path) -> Path:
    """Return a new name beside `path` for a file that will replace it."""
    nonce = secrets.token_hex(4)
    return path.parent / f"{TEMPORARY}{nonce}{_sign(nonce)}{path.suffix}"


def is_temporary(path: Path) -> bool:
    """Whether `replacing` left this file behind. The name holds a checksum that proves it."""
    return is_temporary_name(path.name) and path.is_file() and not path.is_symlink()


def is_temporary_name(name: str) -> bool:
    named = _OURS.fullmatch(name)
    return named is not None and _sign(named[1]) == named[2]


def _sign(nonce: str) -> str:
    return hashlib.blake2b(nonce.encode(), digest_size=4, person=b"restore").hexdigest()


def is_ours_or_absent(path: Path, is_ours: Callable[[bytes], bool]) -> bool:
    """Whether there is no file, or one whose contents are ours.

    Links, pipes and folders are never ours. Raises OutputError if the disk does not say.

    Args:
        path: The file.
        is_ours: Decides from the contents.
    """
    if path.is_symlink():
        return False
    try:
        return is_ours(read_plain(path))
    except OSError as error:
        return is_missing(path, error)


def is_missing(path: Path, error: OSError) -> bool:
    """Whether there is no file; if there is one, it is none of ours.

    Raises:
        OutputError: The disk does not say what is there.
    """
    if error.errno in ABSENT:
        return True
    if error.errno in STRANGE:
        return False
    raise OutputError(f"{path}: cannot be read: {error.strerror or error}") from error


@contextmanager
def _open_plain(path: Path) -> Iterator[IO[bytes]]:
    """Open a regular file; never wait for a pipe or a device, which might never end."""
    flag = getattr(os, "O_NONBLOCK", 0)
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | flag)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no plain file")
        yield file


def read_plain(path: Path, most: int = 2**31) -> bytes:
    """Read the bytes of a regular file.

    Args:
        path: The file.
        most: The largest size accepted, in bytes.

    Raises:
        OSError: If the file is larger, or is a pipe or a device, which might never end.
    """
    with _open_plain(path) as file:
        if os.fstat(file.fileno()).st_size > most:
            raise OSError(errno.EFBIG, f"it is larger than {most:,} bytes")
        return file.read()


def read_lines(path: Path) -> Iterator[bytes]:
    """Read the lines of a regular file of any size. A line without end comes in pieces.

    Raises:
        OSError: As `read_plain`, but for the size.
    """
    with _open_plain(path) as file:
        while piece := file.readline(LONGEST):
            yield from piece.splitlines()


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, read in pieces.

    Raises:
        OSError: If it cannot be read, or is a pipe or a device.
    """
    return _digest(path, hashlib.sha256)


def md5(path: Path) -> str:
    """As sha256, but the MD5, by which object stores tell files. It protects from nobody."""
    return _digest(path, partial(hashlib.md5, usedforsecurity=False))


def _digest(path: Path, kind: Callable[[], Any]) -> str:
    with _open_plain(path) as file:
        return hashlib.file_digest(file, kind).hexdigest()


@contextmanager
def replacing(path: Path, is_lasting: bool = True) -> Iterator[Path]:
    """Yield a temporary file beside `path`, and rename it to `path` on a clean exit.

    The rename is atomic. After an error, or if the process is killed, the old file is unchanged.

    Args:
        path: The file to write.
        is_lasting: Wait until the data is on the disk, so that it survives a crash of the machine.
    """
    temporary = temporary_for(path)
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0)
    os.close(os.open(temporary, flags, 0o600))  # private until it is complete
    try:
        yield temporary
        if is_lasting:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        _set_mode(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if is_lasting:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where its disk can tell.

    Some network disks cannot, and a folder that may not be listed cannot be opened.
    """
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    with _if_able():
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def open_up(folder: Path) -> None:
    """Give the files of a folder the mode of the umask; safetensors writes them with mode 0600."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            _set_mode(path)


def _set_mode(path: Path) -> None:
    with _if_able():  # on FAT, or a share of Windows, one user may own all files
        path.chmod(0o666 & ~UMASK)


@contextmanager
def _if_able() -> Iterator[None]:
    """Go on where a disk cannot do what is asked of it; other errors are raised."""
    try:
        yield
    except OSError as error:
        if error.errno not in UNABLE:
            raise


def unwritable(folder: Path, error: OSError) -> str:
    """Return the text for a folder in which nothing can be made."""
    return f"{folder}: cannot be written: {error.strerror or error}; name another folder"


@contextmanager
def locked(folder: Path, waits: bool = False) -> Iterator[None]:
    """Make the folder and lock it for this process until the block or the process ends.

    On Windows there is no lock.

    Args:
        folder: The folder to lock.
        waits: Whether to wait for another process that holds it.

    Raises:
        OutputError: If another process holds it and `waits` is False, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        problem = "is a file, or lies within one; give a folder"
        raise OutputError(f"{folder}: {problem}") from error
    except (PermissionError, FileNotFoundError) as error:  # the latter: within /proc or such
        raise OutputError(unwritable(folder, error)) from error
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    lock = folder / f"{TEMPORARY}lock"
    try:
        handle = os.open(lock, flags, 0o666)
    except OSError as error:
        if not os.path.lexists(lock):
            raise OutputError(unwritable(folder, error)) from error
        # a link, a pipe or a folder of that name
        problem = f"its {TEMPORARY}lock is no lock of ours ({error.strerror}); remove it"
        raise OutputError(f"{folder}: {problem}") from error
    with open(handle, "a") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
        except ImportError:
            pass
        except BlockingIOError as error:
            mend = "wait for it, or give another output"
            raise OutputError(f"{folder}: another run writes here; {mend}") from error
        except OSError as error:
            raise OutputError(unlockable(folder, error)) from error
        yield


def unlockable(folder: Path, error: OSError) -> str:
    """Return the text for a folder whose disk takes no locks, as some network disks."""
    return f"{folder}: cannot be locked: {error.strerror or error}; name a folder on another disk"


def write_text(path: Path, text: str) -> None:
    """Replace a small text file in one step. File names that are not UTF-8 are escaped."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Replace a text file of any size in one step; `lines` come without their ends."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
