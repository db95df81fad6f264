"""Local copies of sources that are elsewhere: each is made once, and ahead of its turn."""

import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restore.batch.background import Threads, wait_for
from restore.batch.jobs import Job, digest_of, short_digest
from restore.batch.remote import open_filesystem, retry
from restore.errors import ImageError
from restore.files import replacing
from restore.storage.urls import redact_error, redact_url

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

    from restore.images.picture import Header, Reading

AHEAD = 8  # files whose copies are made before their turn, if they are small
ROOM = 2**28  # bytes of such copies on the disk, beside the first of them
WHOLE = 2**24  # bytes of a file that is read by one request, and so cannot change meanwhile


_lock = threading.Lock()  # of what follows
_futures: dict[str, Future[Path]] = {}  # the copies of this process, finished or not, by URL


@cache
def _make_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="restore-", ignore_cleanup_errors=True)


def fetch(job: Job) -> Path:
    """The local file of a job's source; a remote one is downloaded once, until `release`.

    Raises:
        ImageError: It cannot be downloaded, or changed meanwhile.
    """
    if not job.url:
        assert job.source
        return job.source
    with _lock:
        begun = _futures.get(job.url)
        future = _futures.setdefault(job.url, Future())
    if begun is None:
        try:
            future.set_result(_downloaded(job))
        except BaseException as error:  # another thread may wait for it too
            future.set_exception(error)
    return wait_for(future)


def files_of(job: Job) -> list[Path]:
    """The local files of a job: its source, and the others that its result depends on."""
    source = fetch(job)
    return [source, *(source if other == job.source else other for other in job.others)]


def digests_of(job: Job) -> tuple[str, ...]:
    """sha256 of each file of a job, as `files_of` lists them. Raises ImageError."""
    try:
        return tuple(map(digest_of, files_of(job)))
    except OSError as error:
        mend = "check the file and its permissions"
        raise ImageError("UNREADABLE", f"{error.strerror or error}; {mend}") from error


def cached_file(job: Job) -> Path:
    """The path of a job's downloaded source."""
    with _lock:  # else two threads might make a folder each, of which one vanishes with its files
        folder = Path(_make_folder().name)
    return folder / f"{short_digest(job.url)}{Path(job.key).suffix}"


def probe(job: Job, how: "Reading") -> "Header":
    """What a job's source says of itself; a download of it is not kept, as there may be millions.

    Raises:
        ImageError: It cannot be downloaded or is no picture.
    """
    from restore.images import sandbox

    try:
        return sandbox.probe(fetch(job), how)
    finally:
        release(job)


def release(job: Job) -> None:
    """Remove a job's downloaded source."""
    if not job.url:
        return
    with _lock:
        future = _futures.pop(job.url, None)
    if future and future.done():
        cached_file(job).unlink(missing_ok=True)


def _downloaded(job: Job) -> Path:
    files, path = open_filesystem(job.url)
    place = cached_file(job)
    try:
        with replacing(place, is_lasting=False) as temporary:
            if 0 < job.size <= WHOLE:
                # some libraries ask for the size first, unless they are told the range
                data = retry(lambda: files.cat_file(path, start=0, end=WHOLE + 1))
                if len(data) <= WHOLE:  # else it grew since it was listed
                    temporary.write_bytes(data)
                    return place
            mark = retry(lambda: _mark(files, path))
            retry(lambda: files.get_file(path, str(temporary)))
            if retry(lambda: _mark(files, path)) != mark:
                told = "the file changed while it was downloaded; run again"
                raise ImageError("CHANGED", f"{redact_url(job.url)}: {told}")
    except OSError as error:
        mend = "check the URL and who may read it"
        raise ImageError(
            "UNREADABLE", f"{redact_url(job.url)}: {redact_error(error)}; {mend}"
        ) from None
    return place


def _mark(files: "AbstractFileSystem", path: str) -> tuple[Any, ...]:
    """Facts on a file that change if the file changes."""
    about = files.info(path)
    names = ("size", "ETag", "etag", "LastModified", "mtime", "last_modified")
    return tuple(str(about.get(name)) for name in names)


def ahead(
    jobs: Iterable[Job],
    prepare: Callable[[Job], object] = fetch,
    is_over: Callable[[], bool] = lambda: False,
) -> Iterator[Job]:
    """Yield jobs in their order, and prepare the next few in threads meanwhile.

    Args:
        prepare: Called in a thread with a job whose turn will come. What it raises does not
            matter, since the job's own work will meet it again.
        is_over: Whether the run must end; then jobs that were only prepared are left.
    """
    threads, coming = Threads(AHEAD, "restore download"), deque[Job]()
    source = iter(jobs)

    def has_room() -> bool:
        return not coming or (
            len(coming) < AHEAD and sum(job.size for job in coming) + coming[-1].size <= ROOM
        )

    def prepared(job: Job) -> None:
        with suppress(Exception):
            prepare(job)

    try:
        first = next(source, None)
        while first and not is_over():
            while has_room() and (following := next(source, None)):
                coming.append(following)
                threads.submit(lambda job=following: prepared(job))
            yield first
            first = coming.popleft() if coming else next(source, None)
    finally:
        threads.close(0)
        for job in coming:
            release(job)
