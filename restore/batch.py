"""Many files: one broken photo stays one broken photo, and what is finished is not done again.

Knows no tensors: `work(job, path)` makes the picture at `path` and returns the facts for its row.
"""

import errno
import hashlib
import json
import os
import time
import traceback
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from restore.errors import (
    ConfigError,
    ImageError,
    ModelError,
    OutputError,
    RestoreError,
    UsageError,
)
from restore.files import KNOWN, TEMPORARY, Found, replacing, sha256, write_text

Exists = Literal["skip", "overwrite", "rename", "error"]
Row = dict[str, Any]
SKIPPED = {
    "JUNK": "a file of the system, no picture",
    "NOT_A_PICTURE": "its name is not a picture's; name the file itself to have it tried",
    "NOT_A_FILE": "a pipe, socket or device",
    "LINK": "a link that is broken or leads out of the folder; name its target itself",
}


@dataclass(frozen=True)
class Job:
    """One file to work on."""

    source: Path | None  # None: a picture made from words, its seed in the key
    key: str  # path relative to the input folder, with /
    target: Path
    skip: str = ""  # why it is left alone: a key of SKIPPED
    beside: tuple[str, ...] = ()  # stems' endings of what is kept beside the target: _001, ...
    others: tuple[Path, ...] = ()  # files that the result depends on as well, such as a mask

    @property
    def frames(self) -> list[Path]:
        """NAME_001.png and so on, in order."""
        return [self.target.with_stem(self.target.stem + ending) for ending in self.beside]


Work = Callable[..., Row]
"""(job, path, *paths of its frames) -> facts for the report's row"""


@dataclass(frozen=True)
class Summary:
    """How a run ended: each input is in one of the four counts."""

    done: int
    finished: int  # by an earlier run
    failed: int
    skipped: int
    seconds: float


def file_seed(seed: int, key: str) -> int:
    """A file's own seed, 0 to 2^63 - 1: a function of its key, not of its place in the queue."""
    text = f"{seed}/{key}".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def plan(
    found: Sequence[Found],
    out: Path,
    suffix: Callable[[Path], str],
    beside: tuple[str, ...] = (),
) -> list[Job]:
    """A job for each file, the tree of the inputs mirrored in `out`.

    suffix  the target's suffix for a source, such as ".png".
    beside  what each job keeps beside its target.
    Raises UsageError if two files want one target (on any disk: case and Unicode form aside), or if
    a target is an input.
    """
    jobs = []
    for file in found:
        name = file.key
        if Path(name).suffix.casefold() in KNOWN:  # not the .2 of scan.2
            name = name[: -len(Path(name).suffix)]
        target = out / (name + suffix(file.path))
        jobs.append(Job(file.path, file.key, target, file.skip, beside))
    wanted: dict[str, Job] = {}
    clashes = []
    sources = {os.path.realpath(file.path) for file in found}
    for job in jobs:
        for path in [] if job.skip else [job.target, *job.frames]:
            first = wanted.setdefault(_folded(path), job)
            if first is not job:
                clashes.append(f"{first.source} and {job.source} would both become {path}")
            if os.path.realpath(path) in sources:
                raise UsageError(f"{path}: a result would replace it; give another -o")
    if clashes:
        more = f"\nand {len(clashes) - 5} more" if len(clashes) > 5 else ""
        mend = "rename one of each pair, or give them -o folders of their own"
        raise UsageError("\n".join(clashes[:5]) + more + f"\n{mend}")
    return jobs


def _folded(path: Path) -> str:
    return unicodedata.normalize("NFC", str(path)).casefold()


class Journal:
    """report.jsonl in the output folder: appended to while running, one row an input at the end.

    A row is believed only as far as hashes bear it out: source, options, weights and output must be
    what they were.

    options, weights  digests of what decides the pixels.
    """

    def __init__(self, out: Path, options: str, weights: str):
        self.out, self.options, self.weights = out, options, weights
        self.path = out / "report.jsonl"
        self.rows: dict[str, Row] = {}  # the last word on each key
        self.written: dict[str, set[str]] = {}  # key -> hashes of every output we ever made for it
        for row in self._read():
            self._take(row)

    def _read(self) -> Iterator[Row]:
        try:
            lines = self.path.read_bytes().splitlines()
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be read: {error.strerror}") from error
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:  # torn by a crash; its file is done again
                continue
            if isinstance(row, dict) and isinstance(row.get("key"), str):
                yield row

    def _take(self, row: Row) -> None:
        self.rows[row["key"]] = row
        hashes = self.written.setdefault(row["key"], set())
        hashes.update(filter(None, (row.get("output_sha256"), row.get("earlier_sha256"))))
        hashes.update(row.get("frames", {}).values())

    @contextmanager
    def open(self) -> Iterator[None]:
        """Hold the output folder for one run. Raises OutputError if it is read-only, or held."""
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab+")
        except OSError as error:
            raise OutputError(f"{self.out}: cannot be written: {error.strerror}") from error
        with self._file:
            _lock(self._file.fileno(), self.out)
            size = self._file.seek(0, os.SEEK_END)
            if size:
                self._file.seek(size - 1)
                if self._file.read(1) != b"\n":  # a torn line must not swallow the next one
                    self._file.write(b"\n")
            yield

    def add(self, row: Row) -> Row:
        """Append a row; it survives a crash of the process and of the machine."""
        self._take(row)
        self._file.write(json.dumps(row).encode() + b"\n")  # ASCII: any file name survives
        self._file.flush()
        os.fsync(self._file.fileno())
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
        if row.get("status") != "done" or not same:
            return False
        try:
            wanted = {row["output"]: row["output_sha256"], **row.get("frames", {})}
            return all(sha256(self.out / name) == digest for name, digest in wanted.items())
        except (OSError, KeyError, TypeError):
            return False

    def is_ours(self, job: Job, path: Path) -> bool:
        """Whether the file at `path` is what a run of ours wrote for this job, unchanged since."""
        hashes = self.written.get(job.key)
        return bool(hashes) and path.is_file() and sha256(path) in hashes

    def finish(self, keys: Sequence[str], summary: Row) -> None:
        """Rewrite the report: a row for each key of this run, in order, then the others it held."""
        order = dict.fromkeys([*keys, *self.rows])
        text = "".join(json.dumps(self.rows[key]) + "\n" for key in order)
        write_text(self.path, text)
        write_text(self.out / "summary.json", json.dumps(summary, indent=2) + "\n")


def _lock(handle: int, out: Path) -> None:
    try:
        import fcntl  # not on Windows, where two runs on one folder go unnoticed
    except ImportError:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OutputError(f"{out}: another run writes here; wait, or give another -o") from error


def run_all(
    jobs: Sequence[Job],
    work: Work,
    journal: Journal,
    exists: Exists = "skip",
    progress: Callable[[Row], None] = lambda row: None,
) -> Summary:
    """Do what is not finished, and write the report: one row an input, whatever happens to it.

    exists    what becomes of an output that is there already. skip: a finished one is left, an
              outdated one of ours replaced, a foreign one never. overwrite: all is done again.
              rename: what is there stays, the new one gets a free name. error: nothing is begun.
    progress  called with each row; a finished one carries "finished": true, which is not stored.
    Raises OutputError if the output folder cannot be used, UsageError for exists="error".
    """
    began = time.monotonic()
    if exists == "error":
        refuse_existing(jobs)
    counts: Counter[str] = Counter()
    with journal.open():
        _sweep(jobs, journal.out)
        for job in jobs:
            started = time.monotonic()
            try:
                row = _one(job, work, journal, exists)
            except (ConfigError, ModelError, OutputError):  # of the run, not of this file
                raise
            except Exception as error:  # the one broad one: a bad file costs no other
                row = journal.add(_failed(job, error, journal, time.monotonic() - started))
            counts["finished" if "finished" in row else row["status"]] += 1
            progress(row)
        summary = Summary(
            counts["done"],
            counts["finished"],
            counts["failed"],
            counts["skipped"],
            seconds=round(time.monotonic() - began, 3),
        )
        told = {"options": journal.options, "weights": journal.weights}
        journal.finish([job.key for job in jobs], {**vars(summary), **told})
    return summary


def refuse_existing(jobs: Iterable[Job]) -> None:
    """Raise UsageError if any output is there already."""
    paths = (path for job in jobs if not job.skip for path in (job.target, *job.frames))
    there = [str(path) for path in paths if os.path.lexists(path)]
    if there:
        more = f" and {len(there) - 5} more" if len(there) > 5 else ""
        raise UsageError(f"{', '.join(there[:5])}{more}: there already, and --exists is error")


def _one(job: Job, work: Work, journal: Journal, exists: Exists) -> Row:
    if job.skip:
        return journal.add({**_head(job, "skipped"), "code": job.skip, "error": SKIPPED[job.skip]})
    source = _source(job)
    if exists != "overwrite" and journal.is_done(job, source):
        return {**journal.rows[job.key], "finished": True}
    started = time.monotonic()
    job = _placed(job, journal, exists)
    job.target.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as making:
        targets = (job.target, *job.frames)
        path, *frames = (making.enter_context(replacing(target)) for target in targets)
        facts = work(job, path, *frames)
        if _source(job) != source:
            raise ImageError("CHANGED", "the file changed while it was read; run again")
        # The row comes before the name: killed in between, the next run finds no such output and
        # does it again; the other way round it would find a file that it does not know.
        row = {
            **_head(job, "done"),
            "output": job.target.relative_to(journal.out).as_posix(),
            "seconds": round(time.monotonic() - started, 3),
            **facts,
            "source_sha256": source,
            "options": journal.options,
            "weights": journal.weights,
            "output_sha256": sha256(path),
        }
        if frames:
            names = (frame.relative_to(journal.out).as_posix() for frame in job.frames)
            row["frames"] = dict(zip(names, map(sha256, frames), strict=True))
        journal.add(row)
    return row


def _head(job: Job, status: str) -> Row:
    return {"key": job.key, "status": status, "source": str(job.source or "")}


def _source(job: Job) -> str:
    """The sha256 of the source; of that and the others' where there are others."""
    try:
        own = sha256(job.source) if job.source else ""
        if not job.others:
            return own
        return hashlib.sha256(" ".join([own, *map(sha256, job.others)]).encode()).hexdigest()
    except OSError as error:
        mend = "check the file and its permissions"
        raise ImageError("UNREADABLE", f"{error.strerror or error}; {mend}") from error


def _placed(job: Job, journal: Journal, exists: Exists) -> Job:
    """The job with a target that may be written."""

    def taken(job: Job) -> list[Path]:
        return [path for path in (job.target, *job.frames) if os.path.lexists(path)]

    if exists == "overwrite" or not taken(job):
        return job
    if exists == "rename":
        stem = job.target.stem
        names = (job.target.with_stem(f"{stem}_{count}") for count in range(1, 10_000))
        free = next((name for name in names if not taken(replace(job, target=name))), None)
        if free:
            return replace(job, target=free)
    for path in taken(job):
        if not journal.is_ours(job, path):
            mend = "--exists overwrite replaces it, --exists rename keeps both"
            raise ImageError("EXISTS", f"{path} was there before, or changed since; {mend}")
    return job


def _failed(job: Job, error: Exception, journal: Journal, seconds: float) -> Row:
    code, text = "INTERNAL", f"{type(error).__name__}: {error}"
    if isinstance(error, RestoreError):
        code, text = error.code, str(error).removeprefix(f"{job.source}: ")
    elif isinstance(error, MemoryError):
        code, text = "OOM", "not enough memory; use fewer windows at a time or a smaller scale"
    elif isinstance(error, OSError) and error.errno:
        code = errno.errorcode.get(error.errno, "OS")
    row = {**_head(job, "failed"), "code": code, "error": text, "seconds": round(seconds, 3)}
    if code == "INTERNAL":  # a mistake of ours: who reports it needs the lines
        row["trace"] = "".join(traceback.format_exception(error))
    earlier = journal.rows.get(job.key, {})
    output = earlier.get("output_sha256") or earlier.get("earlier_sha256")
    if output:  # so that the old output is still known as ours
        row["earlier_sha256"] = output
    if "frames" in earlier:
        row["frames"] = earlier["frames"]
    return row


def _sweep(jobs: Iterable[Job], out: Path) -> None:
    """Remove what a killed run left in the making; by the lock, nobody is writing here now."""
    for folder in {out, *(job.target.parent for job in jobs)}:
        for left in folder.glob(f"{TEMPORARY}*"):
            left.unlink(missing_ok=True)
