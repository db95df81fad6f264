"""Hold an output folder for one process, and turn what its disk refuses into errors of the run."""

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from io import FileIO
from pathlib import Path

from restore.batch.store import HIDDEN
from restore.errors import DiskFullError, OutputError
from restore.files import TEMPORARY, is_temporary, unlockable

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # EFBIG: `ulimit -f`
PATIENCE_S = 30  # that a shard waits for another one's cleanup


@contextmanager
def as_output_error(path: Path) -> Iterator[None]:
    """Turn an OSError into an OutputError, or a DiskFullError if the disk is full."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise DiskFullError(full(path)) from error
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error


def full(path: Path) -> str:
    return f"{path}: no room left there; make some, and run the same command again to go on"


def is_full(error: BaseException | None) -> bool:
    """Whether an error is, or comes from, a disk, quota or size limit that is used up."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        error = error.__cause__
    return False


@contextmanager
def appending(path: Path) -> Iterator[FileIO]:
    """Open a file of lines for appending, never through a link; end a torn last line.

    It has no buffer: what a full disk did not take is not tried again when it is closed.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
    with open(os.open(path, flags, 0o666), "ab+", buffering=0) as file:
        if os.fstat(file.fileno()).st_nlink > 1:
            raise OSError(errno.EMLINK, "it has a second name, whose file would be written too")
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
            if file.read(1) != b"\n":  # a torn line must not swallow the next one
                file.write(b"\n")
        yield file


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Make a folder and hold it for reports without a run; remove what a killed process left.

    Raises:
        OutputError: It cannot be written, or a run writes there.
    """

    def tidy() -> None:
        for left in out.glob(f"{TEMPORARY}*"):
            if is_temporary(left):
                left.unlink(missing_ok=True)

    with ExitStack() as held:
        with as_output_error(out):
            (out / HIDDEN).mkdir(parents=True, exist_ok=True)
            lock = out / HIDDEN / "lock"
            held.enter_context(holding(out, lock, lock, tidy))
        yield


@contextmanager
def holding(out: Path, own: Path, whole: Path, tidy: Callable[[], None]) -> Iterator[None]:
    """Lock a folder for one run: alone, or beside other shards or single files.

    The system drops these locks with the process, however it dies, so none is ever stale.

    Args:
        out: The folder, for the error message.
        own: The lock file of this run; no second run may have it.
        whole: The lock file of the folder; the same as `own` if the run needs it alone.
        tidy: Called if no other run is in the folder.

    Raises:
        OutputError: Another run is in the way.
    """
    try:
        import fcntl  # not on Windows, where two runs on one folder go unnoticed
    except ImportError:
        tidy()
        yield
        return

    def lock(file: FileIO, how: int) -> bool:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            raise OutputError(unlockable(out, error)) from error
        return True

    def shared(file: FileIO) -> bool:
        until = time.monotonic() + PATIENCE_S
        while not lock(file, fcntl.LOCK_SH):
            if time.monotonic() > until:
                return False
            time.sleep(0.05)
        return True

    told = OutputError(f"{out}: another run writes here; wait, or give another -o")
    is_one = own != whole  # of several
    with appending(own) as mine, ExitStack() as more:
        if not lock(mine, fcntl.LOCK_EX):
            raise told
        all_of_it = more.enter_context(appending(whole)) if is_one else mine
        if lock(all_of_it, fcntl.LOCK_EX):  # nobody else is here
            tidy()
        if is_one and not shared(all_of_it):
            raise told
        yield
