"""Object stores and web servers through fsspec: s3, gs, az, http and whatever else it supports.

Secrets in a URL, such as a password or a signature, are used but never shown.
"""

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from restore.batch.jobs import Job, short_digest
from restore.batch.rows import Row, parsed
from restore.batch.store import HIDDEN, NOTES, REPORTS, note_name
from restore.errors import ImageError, OutputError, RestoreError, UsageError
from restore.files import home_folder, replacing, sha256
from restore.storage.urls import redact_error, redact_url

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

PART = 2**23  # bytes of a large report that are in memory at a time
TRIES = 4
WAIT_S = 0.5  # before the second try; twice as long before each later one
DIGEST = "sha256"  # its name in an object's metadata
Made = TypeVar("Made")


@cache
def open_filesystem(url: str) -> "tuple[AbstractFileSystem, str]":
    """Open a URL.

    Returns:
        (the file system, the path in it)

    Raises:
        UsageError: No installed package supports the URL.
    """
    if find_spec("fsspec") is None:
        mend = "pip install 'restore-toolkit[remote]'"
        raise UsageError(f"{redact_url(url)}: fsspec is missing, by which URLs are read; {mend}")
    from fsspec.core import url_to_fs

    try:
        files, path = url_to_fs(url, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        mend = "pip install 'restore-toolkit[remote]' for s3, gcsfs for gs, adlfs for az"
        raise UsageError(f"{redact_url(url)}: {redact_error(error)}; {mend}") from None
    return files, path


def retry(what: Callable[[], Made]) -> Made:
    """Call `what` and return its result; try again after a fault of the network or the server.

    Raises:
        FileNotFoundError, FileExistsError, PermissionError, RestoreError: At once.
        OSError: All tries failed; its message holds no secret.
    """
    for number in range(TRIES):
        try:
            return what()
        except (FileNotFoundError, FileExistsError, PermissionError, RestoreError):
            raise
        except Exception as error:  # each library has its own
            if number == TRIES - 1:
                raise OSError(redact_error(error)) from None
            time.sleep(WAIT_S * 2**number)
    raise AssertionError


def fetch(job: Job) -> Path:
    """The local file of a job's source; a remote one is downloaded if it is new or has changed.

    Raises:
        ImageError: It cannot be downloaded.
    """
    if not job.url:
        assert job.source
        return job.source
    files, path = open_filesystem(job.url)
    cached = cached_file(job)
    try:
        mark = retry(lambda: _mark(files, path))
        if _marks().get(job.url) != mark or not cached.exists():
            with replacing(cached, is_lasting=False) as temporary:
                retry(lambda: files.get_file(path, str(temporary)))
            _marks()[job.url] = mark
    except OSError as error:
        mend = "check the URL and who may read it"
        raise ImageError(
            "UNREADABLE", f"{redact_url(job.url)}: {redact_error(error)}; {mend}"
        ) from None
    return cached


def files_of(job: Job) -> list[Path]:
    """The local files of a job: its source, and the others that its result depends on."""
    source = fetch(job)
    return [source, *(source if other == job.source else other for other in job.others)]


def cached_file(job: Job) -> Path:
    """The path of a job's downloaded source."""
    return Path(_folder().name) / f"{short_digest(job.url)}{Path(job.key).suffix}"


def release(job: Job) -> None:
    """Remove a job's downloaded source."""
    if job.url and _marks().pop(job.url, None):
        cached_file(job).unlink(missing_ok=True)


def _mark(files: "AbstractFileSystem", path: str) -> tuple[Any, ...]:
    """Facts on a file that change if the file changes."""
    about = files.info(path)
    names = ("size", "ETag", "etag", "LastModified", "mtime", "last_modified")
    return tuple(str(about.get(name)) for name in names)


@cache
def _marks() -> dict[str, tuple[Any, ...]]:
    return {}


@cache
def _folder() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="restore-", ignore_cleanup_errors=True)


def mirror(url: str) -> Path:
    """The folder on this machine that stands for a URL; it holds the journal."""
    return home_folder("cache") / "remote" / short_digest(redact_url(url).rstrip("/"))


class Bucket:
    """A place in an object store: each result is one PUT, and nothing is ever renamed.

    A result is done if its row is there, and the object has the digest that the row names.
    """

    def __init__(self, out: Path, url: str):
        self.out, self.url = out, url.rstrip("/")

    def _path(self, name: str) -> str:
        return f"{open_filesystem(self.url)[1].rstrip('/')}/{name}"

    @property
    def _files(self) -> "AbstractFileSystem":
        return open_filesystem(self.url)[0]

    def where(self, name: str) -> str:
        return f"{redact_url(self.url)}/{name}"

    def name(self, path: Path) -> str:
        return path.relative_to(self.out).as_posix()

    def has(self, name: str) -> bool:
        try:
            self._ask(lambda: self._files.info(self._path(name)))
        except FileNotFoundError:
            return False
        return True

    def digest(self, name: str) -> str | None:
        path = self._path(name)
        try:
            if self._keeps_digests:
                known = self._ask(lambda: self._files.metadata(path)).get(DIGEST)
                if known:
                    return known
            return self._ask(lambda: _hashed(self._files, path))
        except FileNotFoundError:
            return None

    @property
    def _keeps_digests(self) -> bool:
        return "s3" in self._files.protocol

    def make_way(self, name: str) -> None: ...

    def refuse_link(self, name: str) -> None: ...

    @contextmanager
    def making(self, name: str) -> Iterator[Path]:
        is_new = not self.has(name)
        place = self.out / name
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=".restore-") as folder:
            path = Path(folder) / place.name
            path.touch()
            yield path
            self._put(name, path, is_new)

    def _put(self, name: str, path: Path, is_new: bool) -> None:
        data, digest = path.read_bytes(), sha256(path)
        more: dict[str, Any] = {"Metadata": {DIGEST: digest}} if self._keeps_digests else {}
        mode = "create" if is_new else "overwrite"
        try:
            self._ask(lambda: self._files.pipe_file(self._path(name), data, mode=mode, **more))
        except FileExistsError:
            if self.digest(name) != digest:  # else it is ours: an earlier try lost its answer
                mend = "another run writes there; run again, or give another -o"
                raise ImageError("EXISTS", f"{self.where(name)} came meanwhile; {mend}") from None

    def remember(self, row: Row) -> None:
        self.note(row)

    def note(self, row: Row) -> None:
        path, data = self._path(f"{HIDDEN}/{note_name(row['key'])}"), json.dumps(row).encode()
        self._ask(lambda: self._files.pipe_file(path, data))

    def noted(self, key: str) -> list[Row]:
        return self._row(self._path(f"{HIDDEN}/{note_name(key)}"))

    def notes(self) -> Iterator[Row]:
        for path in self._notes():
            yield from self._row(path)

    def drop_notes(self, keys: Iterable[str]) -> None:
        kept = self._notes()
        if not kept:
            return
        of = {path.rpartition("/")[2].removesuffix(".json"): path for path in kept}
        done = [of[digest] for digest in map(short_digest, keys) if digest in of]
        if done:
            self._ask(lambda: self._files.rm(done))

    def _notes(self) -> list[str]:
        try:
            return list(self._ask(lambda: self._files.find(self._path(f"{HIDDEN}/{NOTES}"))))
        except FileNotFoundError:
            return []

    def _row(self, path: str) -> list[Row]:
        try:
            row = parsed(self._ask(lambda: self._files.cat_file(path)))
        except FileNotFoundError:
            return []
        return [row] if row else []

    def begin(self, home: Path) -> None:
        """Download the reports of earlier runs, if this machine has none."""
        kept = home / HIDDEN
        kept.mkdir(parents=True, exist_ok=True)
        if any(kept.glob(REPORTS)):
            return
        with suppress(FileNotFoundError):
            for path in self._ask(lambda: self._files.glob(self._path(f"{HIDDEN}/{REPORTS}"))):
                with replacing(kept / path.rpartition("/")[2]) as place:
                    self._ask(lambda path=path, place=place: self._files.get_file(path, str(place)))

    def end(self, home: Path) -> None:
        """Upload the reports beside the results."""
        for path in [*home.glob("report*"), *home.glob("summary*"), *(home / HIDDEN).glob(REPORTS)]:
            name = path.relative_to(home).as_posix()
            more = {"chunksize": PART, "max_concurrency": 2} if self._keeps_digests else {}
            self._ask(
                lambda name=name, path=path, more=more: self._files.put_file(
                    str(path), self._path(name), **more
                )
            )

    def _ask(self, what: Callable[[], Made]) -> Made:
        """Call `what` as `retry` does; turn an error that concerns all files into OutputError."""
        try:
            return retry(what)
        except (FileNotFoundError, FileExistsError):
            raise
        except OSError as error:
            mend = "check the URL and who may write there"
            raise OutputError(f"{redact_url(self.url)}: {redact_error(error)}; {mend}") from None


def _hashed(files: "AbstractFileSystem", path: str) -> str:
    with files.open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
