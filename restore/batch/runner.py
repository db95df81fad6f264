"""Run many files: a broken file costs no other one, and a finished file is not done again.

No tensors here: `work(job, path)` makes the picture at `path` and returns the facts for its row.
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from restore.batch import downloads
from restore.batch.jobs import Job
from restore.batch.journal import Journal
from restore.batch.rows import Row
from restore.batch.step import Exists, Work, begin, head
from restore.batch.store import HIDDEN
from restore.batch.time_left import TimeLeft
from restore.batch.uploads import Uploads
from restore.errors import CancelledError, DiskFullError, OutputError, UsageError, first_few
from restore.file_search import SKIPPED
from restore.files import TEMPORARY, is_temporary


@dataclass(frozen=True)
class Summary:
    """How a run ended: each input is in one of the five counts.

    Attributes:
        done: Made by this run.
        finished: Made by an earlier run.
        failed: Could not be made.
        skipped: Not pictures, or links that are not followed.
        left: Not reached.
        seconds: The time of the run.
        expected_seconds: The estimate after the first files; None: there was none.
        stopped: Why it ended early: SIGINT, SIGTERM, SIGHUP, MAX_FAILURES, or an error's code;
            else empty.
    """

    done: int
    finished: int
    failed: int
    skipped: int
    left: int
    seconds: float
    expected_seconds: float | None
    stopped: str = ""


@dataclass(frozen=True)
class Limits:
    """What ends a run early, between two files.

    Attributes:
        max_failures: This many failed files end it; 0 is no limit.
        stop: Returns why the run must end, or an empty string.
    """

    max_failures: int = 0
    stop: Callable[[], str] = lambda: ""

    def reached(self, failed: int) -> str:
        """Why the run must end after so many failed files; an empty string if it need not."""
        if self.max_failures and failed >= self.max_failures:
            return "MAX_FAILURES"
        return self.stop()


@dataclass
class Tally:
    """The counts of a run in progress, and the time that is left."""

    jobs: Collection[Job]
    time_left: TimeLeft
    counts: Counter[str] = field(default_factory=Counter)
    began: float = field(default_factory=time.monotonic)

    def summary(self, stopped: str) -> Summary:
        named = {name: self.counts[name] for name in ("done", "finished", "failed", "skipped")}
        return Summary(
            **named,
            left=len(self.jobs) - sum(named.values()),
            seconds=round(time.monotonic() - self.began, 3),
            expected_seconds=self.time_left.expected,
            stopped=stopped,
        )


class Offered(Iterator[Job]):
    """The jobs to do, one by one, until the run must end."""

    def __init__(self, jobs: Iterator[Job], is_over: Callable[[], bool]):
        self._jobs = jobs
        self.is_over = is_over  # then jobs that were taken but not begun are left

    def __next__(self) -> Job:
        return next(self._jobs)


Executor = Callable[[Offered, Journal], Iterator[tuple[Job, Row]]]
"""Does jobs, in any order, and yields each with its row.

The row of a new result must be in the journal, or safe from a kill in another way, before the
result gets its name. The row of a failed file must not be in the journal yet.
"""


def run_all(
    jobs: Collection[Job],
    work: Work,
    journal: Journal,
    exists: Exists = "skip",
    progress: Callable[[Row], None] = lambda row: None,
    limits: Limits = Limits(),
    publish: Callable[[Collection[Row], Row], None] = lambda rows, summary: None,
) -> Summary:
    """The same as `run_by`, with this process as the executor: it does one job after the other."""

    def alone(offered: Offered, journal: Journal) -> Iterator[tuple[Job, Row]]:
        coming = offered if is_near else downloads.ahead(offered, prepare, offered.is_over)
        with Uploads(journal.store.at_once) as uploads:
            for job in coming:
                yield from uploads.add(job, begin(job, work, journal, exists, journal.note))
            yield from uploads.rest()

    def prepare(job: Job) -> None:
        if exists == "overwrite" or not journal.is_listed(job):
            downloads.fetch(job)
        journal.store.has(journal.store.name(job.target))

    first = next(iter(jobs), None)
    is_near = journal.store.at_once == 1 and not (first and first.url)

    return run_by(
        *(alone, jobs, journal),
        exists=exists,
        progress=progress,
        limits=limits,
        publish=publish,
    )


def run_by(
    executor: Executor,
    jobs: Collection[Job],
    journal: Journal,
    *,
    exists: Exists = "skip",
    progress: Callable[[Row], None] = lambda row: None,
    limits: Limits = Limits(),
    publish: Callable[[Collection[Row], Row], None] = lambda rows, summary: None,
    workers: int = 1,
) -> Summary:
    """Do what is not finished, and write the report, with one row for each input.

    The report is written even if the run raises, as far as the disk allows.

    Args:
        executor: Does the jobs, `workers` at a time.
        exists: What to do with an output that is there already. skip: a finished one stays; one
            that we made with other options or weights is replaced, and its row says so; any other
            file, and one of another picture or other words, is never replaced. overwrite: all
            files are done again. rename: the old file stays, and the new one gets a free name.
            error: nothing is begun.
        progress: Called with each row. The row of a finished result also has "finished": true, and
            each row "left_s", the seconds left if known; neither is stored.
        limits: What ends the run early.
        publish: Called at the end with the rows of the report and the summary.

    Raises:
        OutputError: The output folder cannot be used.
        DiskFullError: The disk of the output folder is full.
        UsageError: `exists` is error, and an output is there.
    """
    if exists == "error":
        refuse_existing(jobs, lambda path: journal.store.has(journal.store.name(path)))
    tally = Tally(jobs, TimeLeft(jobs, workers))
    publish = _also(publish, journal)
    with journal.open(lambda: _sweep(jobs, journal.out)):
        try:
            stopped = _loop(tally, executor, journal, progress, limits)
        except BaseException as error:
            why = limits.stop() or getattr(error, "code", type(error).__name__)
            summary_row = _make_summary_row(tally.summary(why), journal)
            with suppress(OutputError):
                publish(journal.finish(jobs, summary_row), summary_row)
            raise
        if workers > 1 and not journal.ending:  # what dead workers left; no other shard works here
            _sweep(jobs, journal.out)
        summary = tally.summary(stopped)
        summary_row = _make_summary_row(summary, journal)
        publish(journal.finish(jobs, summary_row), summary_row)
    return summary


def _also(
    publish: Callable[[Collection[Row], Row], None], journal: Journal
) -> Callable[[Collection[Row], Row], None]:
    def published(rows: Collection[Row], summary: Row) -> None:
        publish(rows, summary)
        journal.store.end(journal.home, journal.ending)
        journal.store.drop_notes(row["key"] for row in rows)  # the report there has them

    return published


def _loop(
    tally: Tally,
    executor: Executor,
    journal: Journal,
    progress: Callable[[Row], None],
    limits: Limits,
) -> str:
    """Do the jobs; return why the run ended early, or an empty string."""

    def put_down(job: Job, row: Row) -> None:
        status = "finished" if "finished" in row else row["status"]
        tally.counts[status] += 1
        tally.time_left.add(job, row["seconds"] - row.get("load_s", 0) if status == "done" else 0)
        progress({**row, "left_s": tally.time_left.left})

    def stopped() -> str:
        return limits.reached(tally.counts["failed"])

    def wanted() -> Iterator[Job]:
        for job in tally.jobs:
            if stopped():
                return
            journal.check_folder()
            if job.skip:
                put_down(job, _skipped(job, journal))
            else:
                yield job

    try:
        for job, row in executor(Offered(wanted(), lambda: bool(stopped())), journal):
            recorded = _kept(row, journal)
            if recorded.get("code") == DiskFullError.code:  # no other file would fit either
                tally.counts["failed"] += 1
                raise DiskFullError(recorded["error"])
            put_down(job, recorded)
    except CancelledError as error:
        return limits.stop() or error.code
    return stopped() if tally.counts.total() < len(tally.jobs) else ""


def _skipped(job: Job, journal: Journal) -> Row:
    row = {**head(job, "skipped"), "code": job.skip, "error": SKIPPED[job.skip]}
    return row if journal.latest_row(job) == row else journal.add(row, is_lasting=False)


def _kept(row: Row, journal: Journal) -> Row:
    """Put a row into the journal; return it."""
    if row.get("finished"):
        journal.keep({name: value for name, value in row.items() if name != "finished"})
    elif row["status"] == "done":
        journal.settle(row)
    else:
        journal.add(row)
    return row


def _make_summary_row(summary: Summary, journal: Journal) -> Row:
    return {**vars(summary), "options": journal.options, "weights": journal.weights}


def refuse_existing(
    jobs: Iterable[Job], is_there: Callable[[Path], bool] = os.path.lexists
) -> None:
    """Raise UsageError if any output is there already."""
    paths = (path for job in jobs if not job.skip for path in (job.target, *job.frames))
    if there := first_few(str(path) for path in paths if is_there(path)):
        raise UsageError(f"{there}: there already, and --exists is error")


def _sweep(jobs: Iterable[Job], out: Path) -> None:
    """Remove temporary files of a killed run; the lock proves that nobody writes here now."""

    def tidy(paths: Iterator[Path]) -> None:
        with suppress(OSError):  # a folder that cannot be: its results fail by themselves
            for path in paths:
                with suppress(OSError):  # in a folder that takes no files: as above
                    if is_temporary(path):
                        path.unlink(missing_ok=True)

    for folder in {out, *(job.target.parent for job in jobs)}:
        tidy(folder.glob(f"{TEMPORARY}*"))
    tidy((out / HIDDEN).rglob(f"{TEMPORARY}*"))
