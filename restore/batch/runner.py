"""Many files: one broken photo stays one broken photo, and what is finished is not done again.

Knows no tensors: `work(job, path)` makes the picture at `path` and returns the facts for its row.
"""

import errno
import hashlib
import os
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Literal

from restore.batch.jobs import Job, digest_of
from restore.batch.journal import HIDDEN, Journal, full, is_full
from restore.batch.pace import Pace
from restore.batch.rows import Row
from restore.errors import (
    CancelledError,
    ConfigError,
    DiskFullError,
    ImageError,
    ModelError,
    OutputError,
    RestoreError,
    UsageError,
)
from restore.files import TEMPORARY, is_temporary, replacing, sha256

Exists = Literal["skip", "overwrite", "rename", "error"]
SKIPPED = {
    "JUNK": "of the system or hidden, no picture",
    "NOT_A_PICTURE": "its name is not a picture's; name the file itself to have it tried",
    "NOT_A_FILE": "no file: a pipe, a socket, a device, or a folder in a list",
    "LINK": "a link that is broken, or not followed; see --links, or name its target itself",
}
Work = Callable[..., Row]
"""(job, path, *paths of its frames) -> facts for the report's row"""


@dataclass(frozen=True)
class Summary:
    """How a run ended: each input is in one of the five counts."""

    done: int
    finished: int  # by an earlier run
    failed: int
    skipped: int
    left: int  # not come to
    seconds: float
    expected_seconds: float | None  # as told by the first files
    stopped: str = ""  # why it ended early: SIGINT, SIGTERM, MAX_FAILURES, or an error's code


@dataclass(frozen=True)
class Limits:
    """What ends a run early, between two files.

    max_failures  so many failed files are enough; 0 is no limit.
    stop          says why, once somebody asked for it.
    """

    max_failures: int = 0
    stop: Callable[[], str] = lambda: ""

    def reached(self, failed: int) -> str:
        if self.max_failures and failed >= self.max_failures:
            return "MAX_FAILURES"
        return self.stop()


@dataclass
class Tally:
    """A run in numbers, while it goes on."""

    jobs: Sequence[Job]
    pace: Pace
    counts: Counter[str] = field(default_factory=Counter)
    began: float = field(default_factory=time.monotonic)

    def summary(self, stopped: str) -> Summary:
        named = {name: self.counts[name] for name in ("done", "finished", "failed", "skipped")}
        return Summary(
            **named,
            left=len(self.jobs) - sum(named.values()),
            seconds=round(time.monotonic() - self.began, 3),
            expected_seconds=self.pace.expected,
            stopped=stopped,
        )


def run_all(
    jobs: Sequence[Job],
    work: Work,
    journal: Journal,
    exists: Exists = "skip",
    progress: Callable[[Row], None] = lambda row: None,
    limits: Limits = Limits(),
    publish: Callable[[Sequence[Row], Row], None] = lambda rows, summary: None,
) -> Summary:
    """Do what is not finished, and write the report: one row an input, whatever happens to it.

    exists    what becomes of an output that is there already. skip: a finished one is left, one of
              ours that other options or weights made is replaced, and its row says so; a foreign
              one, or one of another picture or other words, never. overwrite: all is done again.
              rename: what is there stays, the new one gets a free name. error: nothing is begun.
    progress  called with each row; a finished one carries "finished": true, and each the seconds
              left, "left_s", as far as known: neither is stored.
    publish   called at the end with the rows of the report and the summary.
    Raises OutputError if the output folder cannot be used, DiskFullError if it is full, UsageError
    for exists="error". The report is written even then, as far as the disk lets it.
    """
    if exists == "error":
        refuse_existing(jobs)
    tally = Tally(jobs, Pace(jobs))
    with journal.open(lambda: _sweep(jobs, journal.out)):
        try:
            stopped = _loop(tally, work, journal, exists, progress, limits)
        except BaseException as error:
            why = limits.stop() or getattr(error, "code", type(error).__name__)
            told = _told(tally.summary(why), journal)
            with suppress(OutputError):
                publish(journal.finish(jobs, told), told)
            raise
        summary = tally.summary(stopped)
        told = _told(summary, journal)
        publish(journal.finish(jobs, told), told)
    return summary


def _loop(
    tally: Tally,
    work: Work,
    journal: Journal,
    exists: Exists,
    progress: Callable[[Row], None],
    limits: Limits,
) -> str:
    """Why it ended early, or nothing."""
    for job in tally.jobs:
        stopped = limits.reached(tally.counts["failed"])
        if stopped:
            return stopped
        journal.check_place()
        started = time.monotonic()
        try:
            row = _one(job, work, journal, exists)
        except (ConfigError, ModelError, OutputError):  # of the run, not of this file
            raise
        except CancelledError as error:  # nor is this the file's fault: it is left for the next run
            return limits.stop() or error.code
        except Exception as error:  # the one broad one: a bad file costs no other
            taken = time.monotonic() - started
            if is_full(error):
                error = DiskFullError(full(journal.out))
            row = journal.add(_failed(job, error, journal, taken))
            if isinstance(error, DiskFullError):  # so will be every other file's place
                tally.counts["failed"] += 1
                raise error from None
        status = "finished" if "finished" in row else row["status"]
        tally.counts[status] += 1
        taken = row["seconds"] - row.get("load_s", 0) if status == "done" else 0
        tally.pace.add(job, taken)
        progress({**row, "left_s": tally.pace.left})
    return ""


def _told(summary: Summary, journal: Journal) -> Row:
    return {**vars(summary), "options": journal.options, "weights": journal.weights}


def refuse_existing(jobs: Iterable[Job]) -> None:
    """Raise UsageError if any output is there already."""
    paths = (path for job in jobs if not job.skip for path in (job.target, *job.frames))
    there = [str(path) for path in paths if os.path.lexists(path)]
    if there:
        more = f" and {len(there) - 5} more" if len(there) > 5 else ""
        raise UsageError(f"{', '.join(there[:5])}{more}: there already, and --exists is error")


def _one(job: Job, work: Work, journal: Journal, exists: Exists) -> Row:
    if job.skip:
        row = {**_head(job, "skipped"), "code": job.skip, "error": SKIPPED[job.skip]}
        is_known = journal.rows.get((job.key, job.origin)) == row
        return row if is_known else journal.add(row, is_lasting=False)
    source = _source(job)
    if exists != "overwrite" and (finished := journal.finished(job, source.whole)):
        return {**finished, "finished": True}
    started = time.monotonic()
    job = _placed(job, journal, exists, source.own)
    outdated = _outdated(job, journal) if exists == "skip" else []
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
            "warnings": [*facts.get("warnings", []), *outdated],
            "task": journal.task,
            "source_sha256": source.whole,
            "picture_sha256": source.own,
            "options": journal.options,
            "weights": journal.weights,
            "words": journal.words,
            "output_sha256": sha256(path),
        }
        if frames:
            names = (frame.relative_to(journal.out).as_posix() for frame in job.frames)
            row["frames"] = dict(zip(names, map(sha256, frames), strict=True))
        journal.add(row)
    journal.settle(row)
    return row


@dataclass(frozen=True)
class Source:
    """What a picture is made of, by its bytes."""

    own: str  # sha256 of the file; empty where there is none
    whole: str  # of that and of the others', such as a mask


def _head(job: Job, status: str) -> Row:
    return {"key": job.key, "status": status, "source": job.origin}


def _source(job: Job) -> Source:
    try:
        own = digest_of(job.source) if job.source else ""
        if not job.others:
            return Source(own, own)
        whole = hashlib.sha256(" ".join([own, *map(digest_of, job.others)]).encode()).hexdigest()
        return Source(own, whole)
    except OSError as error:
        mend = "check the file and its permissions"
        raise ImageError("UNREADABLE", f"{error.strerror or error}; {mend}") from error


def _placed(job: Job, journal: Journal, exists: Exists, source: str) -> Job:
    """The job with a target that may be written, its folder made.

    source  sha256 of its picture.
    """

    def taken(job: Job) -> list[Path]:
        return [path for path in (job.target, *job.frames) if os.path.lexists(path)]

    folder = job.target.parent
    if not folder.resolve().is_relative_to(journal.out.resolve()):
        raise ImageError("LINK", f"{folder} is a link that leads out of {journal.out}; remove it")
    folder.mkdir(parents=True, exist_ok=True)
    if exists == "rename" and taken(job):
        stem = job.target.stem
        names = (job.target.with_stem(f"{stem}_{count}") for count in range(1, 10_000))
        free = next((name for name in names if not taken(replace(job, target=name))), None)
        if free:
            return replace(job, target=free)
    for path in taken(job):
        if path.is_symlink():
            raise ImageError("LINK", f"{path} is a link, and no result of ours; remove it")
        if exists != "overwrite" and (why := _foreign(job, journal, path, source)):
            mend = "--exists overwrite replaces it, --exists rename keeps both"
            raise ImageError("EXISTS", f"{path} {why}; {mend}")
    return job


def _foreign(job: Job, journal: Journal, path: Path, source: str) -> str:
    """Why what lies at a job's target may not be replaced; nothing if it may.

    It may if a run of ours made it of the same picture, by the same task.
    """
    row = journal.maker(path)
    if row is None:
        return "was there before, or changed since"
    if row.get("task", "") != journal.task:
        return f"was made by {row.get('task') or 'an earlier version'}, not by {journal.task}"
    if row.get("picture_sha256", row.get("source_sha256")) != source:
        return f"was made of {row.get('source') or 'words'}, another picture of that name"
    if job.source is None:  # its key is a seed, whatever the words
        is_same = (row.get("options"), row.get("weights")) == (journal.options, journal.weights)
        return "" if is_same else "was made of other words or options"
    return _other_words(row, journal)


def _other_words(row: Row, journal: Journal) -> str:
    """How the words differ of which a result of ours was made; nothing if they do not."""
    words = row.get("words")
    if words == journal.words or row.get("options") == journal.options:
        return ""
    if words is None:  # by a release that did not note them
        return "was made of other options, perhaps of other words"
    said = " and ".join(f"{name} {what!r}" for name, what in words.items())
    return f"was made of other words: {said}" if said else "was made without words"


def _outdated(job: Job, journal: Journal) -> list[str]:
    """What there is to say where a result of ours gives way to another one."""
    row = journal.maker(job.target)
    if row is None:
        return []
    ways = {
        "other options": ("options", journal.options),
        "another model": ("weights", journal.weights),
    }
    changed = [what for what, (name, now) in ways.items() if row.get(name) != now]
    return [f"it replaces a result of {' and of '.join(changed)}"] if changed else []


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
    return row


def _sweep(jobs: Iterable[Job], out: Path) -> None:
    """Remove what a killed run left in the making; by the lock, nobody is writing here now."""
    found = (f.glob(f"{TEMPORARY}*") for f in {out, *(job.target.parent for job in jobs)})
    for left in chain(*found, (out / HIDDEN).rglob(f"{TEMPORARY}*")):
        if is_temporary(left):
            left.unlink(missing_ok=True)
