"""The journal: what was done with each file, kept so that no crash and no lost report forgets it.

report.jsonl in the output folder is appended to while running and has one row an input at the end.
A copy of its lines in `.restore/` rebuilds it, hash by hash, if it is lost.
"""

import errno
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

from restore.batch.jobs import Job
from restore.errors import DiskFullError, OutputError
from restore.files import sha256, write_text

Row = dict[str, Any]
HIDDEN = ".restore"  # the folder, in the output folder, of what is not for its reader
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # EFBIG: `ulimit -f`
PATIENCE_S = 30  # that a shard waits for another one that tidies up


class Journal:
    """The rows of one run and of those before it.

    A row is believed only as far as hashes bear it out: source, options, weights and output must be
    what they were.

    options, weights  digests of what decides the pixels.
    words             of the options, what the pictures are to show, as they are.
    ending            of a shard's own report, such as ".2-of-3"; it reads those of all others.
    """

    def __init__(
        self,
        out: Path,
        options: str,
        weights: str,
        ending: str = "",
        words: Mapping[str, str] = MappingProxyType({}),
    ):
        self.out, self.options, self.weights, self.ending = out, options, weights, ending
        self.words = dict(words)
        self.path = out / f"report{ending}.jsonl"
        self.copy = out / HIDDEN / f"report{ending}.jsonl"
        self.rows: dict[str, Row] = {}  # the last word on each key
        self.written: dict[str, set[str]] = {}  # key -> hashes of every output we ever made for it
        own = [self.copy, self.path]
        others = [path for folder in (out / HIDDEN, out) for path in folder.glob("report*.jsonl")]
        for path in sorted(set(others) - set(own)):
            self._take_all(read_rows(path))
        self.foreign = {} if not ending else dict(self.rows)  # what only other shards speak of
        for path in own:
            self._take_all(read_rows(path))

    def _take_all(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self._take(row)

    def _take(self, row: Row) -> None:
        if row.get("status") == "left" and row["key"] in self.rows:
            return  # says nothing that was not known
        self.rows[row["key"]] = row
        hashes = self.written.setdefault(row["key"], set())
        hashes.update(filter(None, (row.get("output_sha256"), row.get("earlier_sha256"))))
        hashes.update(row.get("frames", {}).values())

    @contextmanager
    def open(self, tidy: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold the output folder for one run.

        tidy  called when nobody else writes there.
        Raises OutputError if the folder is read-only, or held by another run.
        """
        with ExitStack() as held:
            with as_output_error(self.out):
                self.out.mkdir(parents=True, exist_ok=True)
                hidden = self.out / HIDDEN
                hidden.mkdir(exist_ok=True)
                if hidden.is_symlink():
                    raise OSError(errno.ELOOP, "its .restore is a link")
                held.enter_context(holding(self.out, hidden, self.ending, tidy))
                paths = (self.path, self.copy)
                self._files = [held.enter_context(appending(path)) for path in paths]
                self._place = self._identity()
            yield

    def _identity(self) -> tuple[int, int]:
        status = self.out.stat()
        return status.st_dev, status.st_ino

    def check_place(self) -> None:
        """Raise OutputError if the output folder is no longer the one that was opened.

        A disk that was unplugged must not be continued in the empty folder that it leaves.
        """
        with as_output_error(self.out):
            if self._identity() != self._place:
                raise OSError(errno.ESTALE, "it vanished, and another one has its name")

    def add(self, row: Row) -> Row:
        """Append a row; it survives a crash of the process and of the machine."""
        data = json.dumps(row).encode() + b"\n"  # ASCII: any file name survives
        with as_output_error(self.path):
            for file in self._files:
                file.write(data)
                file.flush()
            os.fsync(self._files[0].fileno())
        self._take(row)
        return row

    def output(self, row: Row) -> Path:
        """The file that a row speaks of."""
        return self.out / row["output"]

    def is_done(self, job: Job, source: str) -> bool:
        """Whether an earlier run made this very output from this very source (its sha256)."""
        row = self.rows.get(job.key, {})
        same = (row.get("source_sha256"), row.get("options"), row.get("weights")) == (
            source,
            self.options,
            self.weights,
        )
        return row.get("status") == "done" and same and self.is_intact(row)

    def is_intact(self, row: Row) -> bool:
        """Whether all that a row says was written is there, unchanged."""
        try:
            wanted = {row["output"]: row["output_sha256"], **row.get("frames", {})}
            return all(sha256(self.out / name) == digest for name, digest in wanted.items())
        except (OSError, KeyError, TypeError):
            return False

    def is_ours(self, job: Job, path: Path) -> bool:
        """Whether the file at `path` is what a run of ours wrote for this job, unchanged since."""
        hashes = self.written.get(job.key)
        plain = path.is_file() and not path.is_symlink()
        return bool(hashes) and plain and sha256(path) in hashes

    def finish(self, jobs: Sequence[Job], summary: Row) -> list[Row]:
        """Rewrite the report: a row for each job of this run, in order, then the others it held.

        A job that the run did not come to gets a row that says so. Returns the rows.
        """
        for job in jobs:
            if job.key not in self.rows:
                why = "the run stopped before it; run the same command again"
                self._take({"key": job.key, "status": "left", "source": job.origin, "error": why})
        order = dict.fromkeys([*(job.key for job in jobs), *(self.rows.keys() - self.foreign)])
        rows = [self.rows[key] for key in order]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        with as_output_error(self.out):
            write_text(self.path, text)
            write_text(self.copy, text)
            write_text(
                self.out / f"summary{self.ending}.json", json.dumps(summary, indent=2) + "\n"
            )
        return rows


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a report; a line that a crash tore is left out. Raises OutputError."""
    try:
        lines = path.read_bytes().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise OutputError(f"{path}: cannot be read: {error.strerror}") from error
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("key"), str):
            yield row


@contextmanager
def as_output_error(path: Path) -> Iterator[None]:
    """Turn what the system refuses into an OutputError; a full disk into its own."""
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
def appending(path: Path) -> Iterator[BinaryIO]:
    """A file of lines to append to, never through a link, a torn last line ended."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
    with open(os.open(path, flags, 0o666), "ab+") as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
            if file.read(1) != b"\n":  # a torn line must not swallow the next one
                file.write(b"\n")
        yield file


@contextmanager
def holding(out: Path, hidden: Path, shard: str, tidy: Callable[[], None]) -> Iterator[None]:
    """Hold a folder: alone, or as one of several shards, each of which runs once.

    The system drops these locks with the process, however it dies, so none is ever stale.
    Raises OutputError if another run is in the way.
    """
    try:
        import fcntl  # not on Windows, where two runs on one folder go unnoticed
    except ImportError:
        tidy()
        yield
        return

    def lock(file: BinaryIO, how: int) -> bool:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def shared(file: BinaryIO) -> bool:
        until = time.monotonic() + PATIENCE_S
        while not lock(file, fcntl.LOCK_SH):
            if time.monotonic() > until:
                return False
            time.sleep(0.05)
        return True

    told = OutputError(f"{out}: another run writes here; wait, or give another -o")
    with appending(hidden / f"lock{shard}") as own, ExitStack() as more:
        if not lock(own, fcntl.LOCK_EX):
            raise told
        whole = more.enter_context(appending(hidden / "lock")) if shard else own
        if lock(whole, fcntl.LOCK_EX):  # nobody else is here
            tidy()
        if shard and not shared(whole):
            raise told
        yield
