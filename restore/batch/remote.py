"""Object stores and web servers through fsspec: s3, gs, az, http and whatever else it supports.

Secrets in a URL, such as a password or a signature, are used but never shown.
"""

import hashlib
import itertools
import json
import posixpath
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from restore.batch.jobs import Job, short_digest
from restore.batch.rows import Row, parsed
from restore.batch.store import HIDDEN, NOTES, REPORTS, note_name
from restore.errors import ImageError, OutputError, RestoreError, UsageError
from restore.file_search import unlike
from restore.files import cache as cache_folder
from restore.files import replacing, sha256
from restore.listing import Found
from restore.urls import is_url, shown, told

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

WEB = ("http", "https")
PART = 2**23  # bytes of a large report that are in memory at a time
TRIES = 4
WAIT_S = 0.5  # before the second try; twice as long before each later one
DIGEST = "sha256"  # its name in an object's metadata
Made = TypeVar("Made")


@cache
def opened(url: str) -> "tuple[AbstractFileSystem, str]":
    """Open a URL.

    Returns:
        (the file system, the path in it)

    Raises:
        UsageError: No installed package supports the URL.
    """
    if find_spec("fsspec") is None:
        mend = "pip install 'restore-toolkit[remote]'"
        raise UsageError(f"{shown(url)}: fsspec is missing, by which URLs are read; {mend}")
    from fsspec.core import url_to_fs

    try:
        files, path = url_to_fs(url, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        mend = "pip install 'restore-toolkit[remote]' for s3, gcsfs for gs, adlfs for az"
        raise UsageError(f"{shown(url)}: {told(error)}; {mend}") from None
    return files, path


def trying(what: Callable[[], Made]) -> Made:
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
                raise OSError(told(error)) from None
            time.sleep(WAIT_S * 2**number)
    raise AssertionError


def found(url: str, out: str = "") -> Iterator[Found]:
    """Find the files below a URL, folder by folder, or the one file that it names.

    Args:
        url: Of a folder or a file.
        out: URL of the output folder, which is left out if it is inside.

    Raises:
        UsageError: There is nothing, or it cannot be listed.
    """
    files, top = opened(url)
    try:
        if urlsplit(url).scheme in WEB or trying(lambda: files.isfile(top)):
            yield _found(url, top, top.split("?")[0].rpartition("/")[2], 0)
            return
        if not trying(lambda: files.isdir(top)):
            raise UsageError(f"{shown(url)}: nothing there")
        yield from _walked(url, out)
    except OSError as error:
        raise UsageError(f"{shown(url)}: cannot be listed: {told(error)}") from None


def named(url: str) -> Found:
    """The file that a list names by its URL. Nobody is asked whether it is there.

    Its key is its path with the name of the server or the bucket, but never leads up.
    """
    parts = urlsplit(shown(url))
    inside = posixpath.normpath(f"/{parts.path}").lstrip("/")
    key = posixpath.normpath(f"/{parts.netloc}/{inside}").lstrip("/")
    return Found(Path(shown(url)), key, "", url)


def _walked(url: str, out: str) -> Iterator[Found]:
    files, top = opened(url)
    top = top.rstrip("/")
    closed = opened(out)[1].rstrip("/") if out else ""
    for path, size in _objects(files, top, closed):
        key = path[len(top) :].strip("/")
        yield _found(url, path, key, size, unlike(key.rpartition("/")[2]))


def _objects(files: "AbstractFileSystem", top: str, closed: str) -> Iterator[tuple[str, int]]:
    """(path, bytes) of each file below a folder, but for hidden folders and the closed one."""

    def is_open(folder: str) -> bool:
        inside = folder[len(top) :].strip("/")
        return folder != closed and not any(name.startswith(".") for name in inside.split("/"))

    if "s3" in files.protocol:  # a thousand at a time, however many there are
        for path, size in _s3_objects(files, top):
            folders = itertools.accumulate(path[len(top) + 1 :].split("/")[:-1], "{}/{}".format)
            if all(is_open(f"{top}/{folder}") for folder in folders):
                yield path, size
        return
    for folder, folders, here in files.walk(top, detail=True, on_error="raise"):
        for name in list(folders):
            if not is_open(f"{folder.rstrip('/')}/{name}"):
                del folders[name]
        for name, about in here.items():
            if name:
                yield f"{folder.rstrip('/')}/{name}", about["size"] or 0


def _s3_objects(files: "AbstractFileSystem", top: str) -> Iterator[tuple[str, int]]:
    bucket, _, folder = top.partition("/")
    asked = {"Bucket": bucket, "Prefix": f"{folder}/" if folder else "", **files.req_kw}
    is_cut = True
    while is_cut:
        page = trying(lambda: files.call_s3("list_objects_v2", **asked))
        for about in page.get("Contents", []):
            if not about["Key"].endswith("/"):  # else it stands for a folder
                yield f"{bucket}/{about['Key']}", about["Size"]
        is_cut = page.get("IsTruncated", False)
        asked["ContinuationToken"] = page.get("NextContinuationToken", "")


def _found(url: str, path: str, key: str, size: int, skip: str = "") -> Found:
    whole = path if is_url(path) else f"{urlsplit(url).scheme}://{path.lstrip('/')}"
    return Found(Path(shown(whole)), key, skip, whole, size)


def here(job: Job) -> Path:
    """The local file of a job's source; a remote one is downloaded if it is new or has changed.

    Raises:
        ImageError: It cannot be downloaded.
    """
    if not job.url:
        assert job.source
        return job.source
    files, path = opened(job.url)
    place = place_of(job)
    try:
        mark = trying(lambda: _mark(files, path))
        if _marks().get(job.url) != mark or not place.exists():
            with replacing(place, is_lasting=False) as temporary:
                trying(lambda: files.get_file(path, str(temporary)))
            _marks()[job.url] = mark
    except OSError as error:
        mend = "check the URL and who may read it"
        raise ImageError("UNREADABLE", f"{shown(job.url)}: {told(error)}; {mend}") from None
    return place


def files_of(job: Job) -> list[Path]:
    """The local files of a job: its source, and the others that its result depends on."""
    source = here(job)
    return [source, *(source if other == job.source else other for other in job.others)]


def place_of(job: Job) -> Path:
    """The path of a job's downloaded source."""
    return Path(_folder().name) / f"{short_digest(job.url)}{Path(job.key).suffix}"


def let_go(job: Job) -> None:
    """Remove a job's downloaded source."""
    if job.url and _marks().pop(job.url, None):
        place_of(job).unlink(missing_ok=True)


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
    return cache_folder() / "remote" / short_digest(shown(url).rstrip("/"))


class Bucket:
    """A place in an object store: each result is one PUT, and nothing is ever renamed.

    A result is done if its row is there, and the object has the digest that the row names.
    """

    def __init__(self, out: Path, url: str):
        self.out, self.url = out, url.rstrip("/")

    def _path(self, name: str) -> str:
        return f"{opened(self.url)[1].rstrip('/')}/{name}"

    @property
    def _files(self) -> "AbstractFileSystem":
        return opened(self.url)[0]

    def where(self, name: str) -> str:
        return f"{shown(self.url)}/{name}"

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
        """Call `what` as `trying` does; turn an error that concerns all files into OutputError."""
        try:
            return trying(what)
        except (FileNotFoundError, FileExistsError):
            raise
        except OSError as error:
            mend = "check the URL and who may write there"
            raise OutputError(f"{shown(self.url)}: {told(error)}; {mend}") from None


def _hashed(files: "AbstractFileSystem", path: str) -> str:
    with files.open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
