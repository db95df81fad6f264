"""Results in an object store: each is one PUT, and nothing is ever renamed."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from glob import has_magic
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restore.batch.jobs import short_digest
from restore.batch.ownership import REPORT
from restore.batch.remote import Made, is_s3, open_filesystem, retry, s3_objects
from restore.batch.rows import Row, parsed
from restore.batch.store import HIDDEN, NOTES, note_name
from restore.errors import ImageError, OutputError
from restore.files import home_folder, replacing, sha256, temporary_for, write_text
from restore.storage.database import TemporaryDatabase
from restore.storage.urls import redact_error, redact_url

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

PART = 2**23  # bytes of a large report that are in memory at a time
DIGEST = "sha256"  # its name in an object's metadata
PAGE = 500  # notes that are read or removed at a time
SEEN = 256  # names whose state is remembered until they are written
AT_ONCE = 8  # results on their way
SEEN_REPORTS = "seen.json"  # what was downloaded of the store's reports, or uploaded
UNKNOWN = ""  # digest of an object that does not say it


def mirror(url: str) -> Path:
    """The folder on this machine that stands for a URL; it holds the journal."""
    return home_folder("cache") / "remote" / short_digest(redact_url(url).rstrip("/"))


class Bucket:
    """A place in an object store.

    A result is done if its row is there, and the object has the digest that the row names.
    """

    def __init__(self, out: Path, url: str):
        self.out, self.url, self.at_once = out, url.rstrip("/"), AT_ONCE
        self._seen: dict[str, str | None] = {}

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
        return self._state(name) is not None

    def digest(self, name: str) -> str | None:
        known = self._state(name)
        if known != UNKNOWN:
            return known
        try:
            return self._ask(lambda: _hashed(self._files, self._path(name)))
        except FileNotFoundError:
            return None

    def _state(self, name: str) -> str | None:
        """The digest of an object, or UNKNOWN; None if there is no object.

        The store is asked once before a result is written, not by each who wants to know. Should
        another run write meanwhile, the PUT notices.
        """
        if name in self._seen:
            return self._seen[name]
        path = self._path(name)
        state: str | None = UNKNOWN
        try:
            if is_s3(self._files):
                state = self._ask(lambda: self._files.metadata(path)).get(DIGEST, UNKNOWN)
            else:
                self._ask(lambda: self._files.info(path))
        except FileNotFoundError:
            state = None
        while len(self._seen) >= SEEN:  # of jobs that failed
            oldest, *_ = list(self._seen)  # a copy: other threads change it
            self._seen.pop(oldest, None)
        self._seen[name] = state
        return state

    def make_way(self, name: str) -> None: ...

    def refuse_link(self, name: str) -> None: ...

    @contextmanager
    def making(self, name: str) -> Iterator[Path]:
        is_new = not self.has(name)
        # Not in a folder as in the store, which takes longer names. The next run here removes it,
        # should we be killed.
        path = temporary_for(self.out / f"result{Path(name).suffix}")
        try:
            path.touch()
            yield path
            self._put(name, path, is_new)
        finally:
            path.unlink(missing_ok=True)

    def _put(self, name: str, path: Path, is_new: bool) -> None:
        data, digest = path.read_bytes(), sha256(path)
        more: dict[str, Any] = {"Metadata": {DIGEST: digest}} if is_s3(self._files) else {}
        mode = "create" if is_new else "overwrite"
        self._seen.pop(name, None)
        try:
            self._ask(lambda: self._files.pipe_file(self._path(name), data, mode=mode, **more))
        except FileExistsError:
            is_ours = self.digest(name) == digest  # an earlier try lost its answer
            if not is_ours:
                mend = "another run writes there; run again, or give another -o"
                raise ImageError("EXISTS", f"{self.where(name)} came meanwhile; {mend}") from None
        finally:
            self._seen.pop(name, None)

    def remember(self, row: Row) -> None:
        self.note(row)

    def note(self, row: Row) -> None:
        path, data = self._path(f"{HIDDEN}/{note_name(row['key'])}"), json.dumps(row).encode()
        self._ask(lambda: self._files.pipe_file(path, data))

    def noted(self, key: str) -> list[Row]:
        return self._row(self._path(f"{HIDDEN}/{note_name(key)}"))

    def notes(self) -> Iterator[Row]:
        for paths in _pages(self._notes()):
            # not by `cat`, to which the place's own name may be a glob
            found = self._ask(
                lambda paths=paths: self._files.cat_ranges(paths, None, None, on_error="return")
            )
            for path, data in zip(paths, found, strict=True):
                row = parsed(data) if isinstance(data, bytes) else None
                yield from [row] if row else self._row(path)

    def drop_notes(self, keys: Iterable[str]) -> None:
        notes = TemporaryDatabase("CREATE TABLE note(digest TEXT PRIMARY KEY, path TEXT);")
        paths = ((path.rpartition("/")[2].removesuffix(".json"), path) for path in self._notes())
        notes.add_all("INSERT OR IGNORE INTO note VALUES (?, ?)", paths)
        if not notes.one("SELECT 1 FROM note"):
            return
        found = (
            notes.one("SELECT path FROM note WHERE digest = ?", short_digest(key)) for key in keys
        )
        for paths in _pages(row[0] for row in found if row):
            self._ask(lambda paths=paths: self._remove(paths))

    def _remove(self, paths: list[str]) -> None:
        if not has_magic(self._path("")):
            self._files.rm(paths)
            return
        for path in paths:  # as globs they might be files of another place
            self._files.rm_file(path)

    def _notes(self) -> Iterator[str]:
        files, top = self._files, self._path(f"{HIDDEN}/{NOTES}")
        try:
            if is_s3(files):
                yield from (path for path, *_ in s3_objects(files, top))
            else:
                yield from retry(lambda: files.find(top))
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._error(error) from None

    def _row(self, path: str) -> list[Row]:
        try:
            row = parsed(self._ask(lambda: self._files.cat_file(path)))
        except FileNotFoundError:
            return []
        return [row] if row else []

    def begin(self, home: Path) -> None:
        """Download the reports that are not those which this machine has seen there.

        They take the place of ours: what we did since, but did not upload, is in notes.
        """
        kept = home / HIDDEN
        kept.mkdir(parents=True, exist_ok=True)
        seen = _read_seen(kept / SEEN_REPORTS)
        with suppress(FileNotFoundError):
            for path in self._ask(lambda: self._files.ls(self._path(HIDDEN), detail=False)):
                name = path.rstrip("/").rpartition("/")[2]
                if not REPORT.fullmatch(name):
                    continue
                key = self._ask(lambda path=path: self._key(path))
                if seen.get(name) == key and (kept / name).exists():
                    continue
                with replacing(kept / name) as place:
                    self._ask(lambda path=path, place=place: self._files.get_file(path, str(place)))
                (home / name).unlink(missing_ok=True)  # an older state of the same report
                seen[name] = key
                write_text(kept / SEEN_REPORTS, json.dumps(seen))

    def end(self, home: Path, ending: str = "") -> None:
        """Upload the reports of this run beside the results; those of others are not ours."""
        kept, report = home / HIDDEN, f"report{ending}.jsonl"
        names = [f"report{ending}{suffix}" for suffix in (".jsonl", ".html", ".parquet")]
        for path in [*map(home.joinpath, names), home / f"summary{ending}.json", kept / report]:
            if path.exists():
                self._upload(path, path.relative_to(home).as_posix())
        if (kept / report).exists():
            key = self._ask(lambda: self._key(self._path(f"{HIDDEN}/{report}")))
            seen = {**_read_seen(kept / SEEN_REPORTS), report: key}
            write_text(kept / SEEN_REPORTS, json.dumps(seen))

    def _upload(self, path: Path, name: str) -> None:
        more = {"chunksize": PART, "max_concurrency": 2} if is_s3(self._files) else {}
        self._ask(lambda: self._files.put_file(str(path), self._path(name), **more))

    def _key(self, path: str) -> str:
        """What changes when an object does: its ETag, or its size and time."""
        return self._files.ukey(path)

    def _ask(self, what: Callable[[], Made]) -> Made:
        """Call `what` as `retry` does; turn an error that concerns all files into OutputError."""
        try:
            return retry(what)
        except (FileNotFoundError, FileExistsError):
            raise
        except OSError as error:
            raise self._error(error) from None

    def _error(self, error: OSError) -> OutputError:
        mend = "check the URL and who may write there"
        return OutputError(f"{redact_url(self.url)}: {redact_error(error)}; {mend}")


def _read_seen(path: Path) -> dict[str, str]:
    """The keys of the reports that are here as they were in the store; empty if that is lost."""
    with suppress(OSError, ValueError):
        seen = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(seen, dict):
            return seen
    return {}


def _pages(paths: Iterable[str]) -> Iterator[list[str]]:
    paths = iter(paths)
    while page := list(islice(paths, PAGE)):
        yield page


def _hashed(files: "AbstractFileSystem", path: str) -> str:
    with files.open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
