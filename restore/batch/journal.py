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
from restore.batch.rows import Name, Row, name_of, read_rows, results
from restore.errors import DiskFullError, OutputError
from restore.files import sha256, write_text

HIDDEN = ".restore"  # the folder, in the output folder, of what is not for its reader
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # EFBIG: `ulimit -f`
PATIENCE_S = 30  # that a shard waits for another one that tidies up


class Journal:
    """The rows of one run and of those before it.

    A row is believed only as far as hashes bear it out: source, options, weights and output must be
    what they were. A result is known by what it was made of, never by its path alone.

    options, weights  digests of what decides the pixels.
    words             of the options, what the pictures are to show, as they are.
    ending            of a shard's own report, such as ".2-of-3"; it reads those of all others.
    task              what is done: another task's results are not this one's to replace.
    home              the reports' folder, where it is not that of the results.
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
    ):
        self.out, self.options, self.weights, self.ending = out, options, weights, ending
        self.words, self.task, self.home = dict(words), task, home or out
        self.path = self.home / f"report{ending}.jsonl"
        self.copy = self.home / HIDDEN / f"report{ending}.jsonl"
        self.read()

    def read(self) -> None:
        """Read what earlier runs wrote. Raises OutputError."""
        self.rows: dict[Name, Row] = {}  # the last word on each input
        self.done: dict[str, list[Row]] = {}  # key -> all that may be there of what it was made to
        self.made: dict[str, dict[str, Row]] = {}  # name of a result -> hash -> how it was made
        own = [self.copy, self.path]
        others = [path for folder in (self.home / HIDDEN, self.home) for path in reports(folder)]
        for path in sorted(set(others) - set(own)):
            self._take_all(read_rows(path))
        # what only other shards speak of
        self.foreign = {} if not self.ending else dict(self.rows)
        self._theirs = [row for rows in self.done.values() for row in rows if self.ending]
        for path in own:
            self._take_all(read_rows(path))

    def _take_all(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self._take(row)

    def _take(self, row: Row) -> None:
        name = name_of(row)
        if row["status"] == "left" and name in self.rows:
            return  # says nothing that was not known
        made = results(row)
        for result, digest in made.items():
            for earlier in self.made.setdefault(result, {}).values():
                other = name_of(earlier)  # whose result this was: its row would speak of this one
                if other != name and self.rows.get(other, {}).get("output") == result:
                    del self.rows[other]
            self.made[result][digest] = row
        if made:
            self.done.setdefault(row["key"], []).append(row)
        self.rows[name] = row

    def settle(self, row: Row) -> None:
        """Forget what the results of a row that is done have replaced, for they are in place."""
        made = results(row)
        for result, digest in made.items():
            self.made[result] = {digest: row}
        self.done[row["key"]] = [
            other
            for other in self.done[row["key"]]
            if other is row or not results(other).keys() & made.keys()
        ]

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

    def row(self, job: Job) -> Row:
        """The last word on a job's input. Raises KeyError if there is none."""
        return self.rows[job.key, job.origin]

    def finished(self, job: Job, source: str) -> Row | None:
        """The row of an earlier run that made this very output from this very source (its sha256).

        It becomes the last word on the job, wherever its source lay then.
        """
        wanted = source, self.options, self.weights
        for row in reversed(self.done.get(job.key, [])):
            found = tuple(row.get(name) for name in ("source_sha256", "options", "weights"))
            is_same = found == wanted and row.get("task", self.task) == self.task
            if is_same and self.is_intact(row):
                name = job.key, job.origin
                if self.rows.get(name) is row:
                    return row
                moved = {**row, "source": job.origin}
                self._take(moved)
                self.settle(moved)
                return moved
        return None

    def is_intact(self, row: Row) -> bool:
        """Whether all that a row says was written is there, unchanged."""
        made = results(row)
        try:
            return bool(made) and all(sha256(self.out / name) == made[name] for name in made)
        except OSError:
            return False

    def maker(self, path: Path) -> Row | None:
        """The row of what lies at `path`, if a run of ours wrote it and it is unchanged."""
        known = self.made.get(path.relative_to(self.out).as_posix())
        if not known or path.is_symlink() or not path.is_file():
            return None
        return known.get(sha256(path))

    def finish(self, jobs: Sequence[Job], summary: Row) -> list[Row]:
        """Rewrite the report: a row for each job of this run, in order, then the others it held.

        A job that the run did not come to gets a row that says so. Its copy also keeps how results
        were made that are still there, of which the report says something newer. Returns the rows.
        """
        names = [(job.key, job.origin) for job in jobs]
        for key, source in names:
            if (key, source) not in self.rows:
                why = "the run stopped before it; run the same command again"
                self._take({"key": key, "status": "left", "source": source, "error": why})
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
