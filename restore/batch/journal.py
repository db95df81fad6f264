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
from typing import BinaryIO

from restore.batch import ours
from restore.batch.jobs import Job
from restore.batch.known import Known
from restore.batch.rows import Name, Row, name_of, read_rows
from restore.batch.store import HIDDEN, Folder, Store
from restore.errors import DiskFullError, OutputError
from restore.files import write_text

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # EFBIG: `ulimit -f`
PATIENCE_S = 30  # that a shard waits for another one that tidies up


class Journal(Known):
    """The rows of one run and of those before it, on disk.

    ending  of a shard's own report, such as ".2-of-3"; it reads those of all others.
    home    the reports' folder, where it is not that of the results.
    store   where the results are; the folder `out` by default.
    """

    def __init__(
        self,
        out: Path,
        options: str,
        weights: str,
        ending: str = "",
        words: Mapping[str, str] = MappingProxyType({}),
        task: str = "",
        home: Path | None = None,
        *,
        store: Store | None = None,
    ):
        super().__init__(store or Folder(out), options, weights, words, task)
        self.out, self.ending, self.home = out, ending, home or out
        self.path = self.home / f"report{ending}.jsonl"
        self.copy = self.home / HIDDEN / f"report{ending}.jsonl"
        self.read()

    def read(self) -> None:
        """Read what earlier runs wrote. Raises OutputError."""
        self.forget()
        own = [self.copy, self.path]
        others = [path for folder in (self.home / HIDDEN, self.home) for path in reports(folder)]
        for path in sorted(set(others) - set(own)):
            self.take_all(read_rows(path))
        self.take_all(self.store.notes())
        # what only other shards speak of
        self.foreign = {} if not self.ending else dict(self.rows)
        self._theirs = [row for rows in self.done.values() for row in rows if self.ending]
        for path in own:
            self.take_all(read_rows(path))

    @contextmanager
    def open(self, tidy: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold the output folder for one run.

        tidy  called when nobody else writes there.
        Raises OutputError if the folder is read-only, or held by another run; UsageError if a
        report there is none of ours.
        """
        for ending in {"", self.ending}:
            ours.refuse_reports(self.home, ending)
        with ExitStack() as held:
            with as_output_error(self.out):
                self.out.mkdir(parents=True, exist_ok=True)
                for folder in (self.out / HIDDEN, self.home, self.home / HIDDEN):
                    folder.mkdir(exist_ok=True)
                    if folder != self.out and folder.is_symlink():
                        raise OSError(errno.ELOOP, f"its {folder.relative_to(self.out)} is a link")
                locks = self.home / HIDDEN / f"lock{self.ending}", self.out / HIDDEN / "lock"
                held.enter_context(holding(self.out, *locks, tidy))
                paths = (self.path, self.copy)
                self._files = [held.enter_context(appending(path)) for path in paths]
                self._place = self._identity()
            self.read()  # now that nobody adds to it
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

    def add(self, row: Row, is_lasting: bool = True) -> Row:
        """Append a row; it survives a crash of the process.

        is_lasting  and of the machine: the next run would not find the same by itself.
        """
        data = json.dumps(row).encode() + b"\n"  # ASCII: any file name survives
        with as_output_error(self.path):
            for file in self._files:
                file.write(data)
                file.flush()
            if is_lasting:
                os.fsync(self._files[0].fileno())
        self.take(row)
        return row

    def note(self, row: Row) -> Row:
        """As `add`, for a result that gets its name next."""
        self.store.remember(row)
        return self.add(row)

    def latest(self, row: Row) -> Row:
        """A row that came back from elsewhere, as it is known here."""
        known = self.rows.get(name_of(row), row)
        return known if known == row else row

    def output(self, row: Row) -> Path:
        """The file that a row speaks of."""
        return self.out / row["output"]

    def row(self, job: Job) -> Row:
        """The last word on a job's input. Raises KeyError if there is none."""
        return self.rows[job.key, job.origin]

    def finish(self, jobs: Sequence[Job], summary: Row) -> list[Row]:
        """Rewrite the report: a row for each job of this run, in order, then the others it held.

        A job that the run did not come to gets a row that says so. Its copy also keeps how results
        were made that are still there, of which the report says something newer. Returns the rows.
        """
        names = [(job.key, job.origin) for job in jobs]
        for key, source in names:
            if (key, source) not in self.rows:
                why = "the run stopped before it; run the same command again"
                self.take({"key": key, "status": "left", "source": source, "error": why})
        keys = {key for key, _ in names}
        order = dict.fromkeys([*names, *(self.rows.keys() - self.foreign)])
        gone = [name for name in order.keys() - set(names) if name[0] in keys and self._gone(name)]
        for name in gone:  # its folder was moved: what became of it is told under its new place
            del order[name], self.rows[name]
        rows = [self.rows[name] for name in order]
        said = {*map(id, rows), *map(id, self._theirs)}
        kept = [row for made in self.made.values() for row in made.values() if id(row) not in said]
        with as_output_error(self.out):
            write_text(self.path, _lines(rows))
            write_text(self.copy, _lines([*{id(row): row for row in kept}.values(), *rows]))
            write_text(
                self.home / f"summary{self.ending}.json", json.dumps(summary, indent=2) + "\n"
            )
        return rows

    def _gone(self, name: Name) -> bool:
        return self.rows[name]["status"] != "done" and not os.path.exists(name[1])


def reports(folder: Path) -> list[Path]:
    """The reports in a folder, by name: its own and those of shards."""
    return [path for path in folder.glob("report*.jsonl") if ours.REPORT.fullmatch(path.name)]


def _lines(rows: Iterable[Row]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


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
        if os.fstat(file.fileno()).st_nlink > 1:
            raise OSError(errno.EMLINK, "it has a second name, whose file would be written too")
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
            if file.read(1) != b"\n":  # a torn line must not swallow the next one
                file.write(b"\n")
        yield file


@contextmanager
def holding(out: Path, own: Path, whole: Path, tidy: Callable[[], None]) -> Iterator[None]:
    """Hold a folder: alone, or as one of several shards or files, each of which runs once.

    own, whole  the locks of this run and of the folder; one and the same where it runs alone.

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
