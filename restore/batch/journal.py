"""The journal: what was done with each file, safe from crashes and lost reports.

A run appends rows to report.jsonl in the output folder; at the end it has one row for each input.
If it is lost, the copy of its lines in `.restore/` rebuilds it: hashes prove each result.
"""

import errno
import json
import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from pathlib import Path
from types import MappingProxyType

from restore.batch import ownership
from restore.batch.folder_lock import appending, as_output_error, holding
from restore.batch.jobs import Job
from restore.batch.result_index import ResultIndex
from restore.batch.rows import Row, read_rows
from restore.batch.store import HIDDEN, NOTES, Folder, Store
from restore.errors import OutputError
from restore.files import ABSENT, write_lines, write_text
from restore.storage.database import TemporaryDatabase, to_bytes, to_text


class Journal(ResultIndex):
    """The rows of one run and of those before it, on disk.

    Args:
        out: The output folder.
        options: Digest of the options that decide the pixels.
        weights: Digest of the model's weights.
        ending: Of the name of a shard's report, such as ".2-of-3"; all other reports are read too.
        words: As in `ResultIndex`.
        task: As in `ResultIndex`.
        home: The folder of the reports; by default `out`.
        store: Where the results are; by default the folder `out`.
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
        self._adding = threading.Lock()  # results on their way to a store add rows from threads
        self.read()

    def read(self) -> None:
        """Read what earlier runs wrote. Raises OutputError."""
        self.forget()
        self._seen = self._look()
        own_files = [self.copy, self.path]
        others = [path for folder in (self.home / HIDDEN, self.home) for path in reports(folder)]
        for path in sorted(set(others) - set(own_files)):
            self.take_all(read_rows(path))
        self.take_all(self.store.notes())
        if self.ending:  # what is only in the reports of other shards stays there
            self.kept.run("UPDATE latest SET is_foreign = 1")
            self.kept.run("UPDATE row SET is_theirs = is_done")
        for path in own_files:
            self.take_all(read_rows(path))

    def _look(self) -> dict[Path, tuple[int, int, int]] | None:
        """What the disk says of the reports; None where notes may be added elsewhere."""
        if not isinstance(self.store, Folder) or (self.out / HIDDEN / NOTES).exists():
            return None
        seen = {}
        for path in {self.path, self.copy, *reports(self.home), *reports(self.home / HIDDEN)}:
            with suppress(OSError):  # reading it says so
                status = path.stat()
                if status.st_size:
                    seen[path] = status.st_ino, status.st_size, status.st_mtime_ns
        return seen

    @contextmanager
    def open(self, tidy: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold the output folder for one run.

        Args:
            tidy: Called if no other run writes there.

        Raises:
            OutputError: The folder is read-only, or another run holds it.
            UsageError: A report there is not one of ours.
        """
        for ending in {"", self.ending}:
            ownership.refuse_reports(self.home, ending)
        with ExitStack() as stack:
            with as_output_error(self.out):
                self.out.mkdir(parents=True, exist_ok=True)
                for folder in (self.out / HIDDEN, self.home, self.home / HIDDEN):
                    folder.mkdir(exist_ok=True)
                    if folder != self.out and folder.is_symlink():
                        raise OSError(errno.ELOOP, f"its {folder.relative_to(self.out)} is a link")
                locks = self.home / HIDDEN / f"lock{self.ending}", self.out / HIDDEN / "lock"
                stack.enter_context(holding(self.out, *locks, tidy))
                paths = (self.path, self.copy)
                self._files = [stack.enter_context(appending(path)) for path in paths]
                self._opened = self._identity()
            if self._seen is None or self._seen != self._look():
                self.read()  # again, now that no other run adds to it
            yield

    def _identity(self) -> tuple[int, int]:
        status = self.out.stat()
        return status.st_dev, status.st_ino

    def check_folder(self) -> None:
        """Raise OutputError if the output folder is no longer the one that was opened.

        A run must not go on in the empty folder that an unplugged disk leaves.
        """
        with as_output_error(self.out):
            if self._identity() != self._opened:
                raise OSError(errno.ESTALE, "it vanished, and another one has its name")

    def add(self, row: Row, is_lasting: bool = True) -> Row:
        """Append a row; it survives a crash of the process.

        Args:
            is_lasting: The row also survives a crash of the machine; False for a row that the next
                run would make again anyway.
        """
        data = json.dumps(row).encode() + b"\n"  # ASCII: any file name survives
        with self._adding:
            with as_output_error(self.path):
                for file in self._files:
                    rest = data
                    while rest:
                        rest = rest[file.write(rest) :]
                if is_lasting:
                    os.fsync(self._files[0].fileno())
            self.take(row)
        return row

    def note(self, row: Row) -> Row:
        """Add the row of a result before the result gets its name."""
        self.store.remember(row)
        return self.add(row)

    def output(self, row: Row) -> Path:
        """The path of a row's result."""
        return self.out / row["output"]

    def row(self, job: Job) -> Row:
        """The latest row of a job's input. Raises KeyError if there is none."""
        row = self.latest_row(job)
        if row is None:
            raise KeyError(job.key)
        return row

    def finish(self, jobs: Iterable[Job], summary: Row) -> "Reported":
        """Rewrite the report: a row for each job of this run, in order, then the other rows it had.

        A job that the run did not reach gets a row that says so. The copy of the report also keeps
        the rows of earlier results that are still there, though their inputs have newer rows.

        Args:
            summary: The content of summary.json.

        Returns:
            The rows of the report.
        """
        self.kept.run("DELETE FROM lined")
        why = "the run stopped before it; run the same command again"
        for job in jobs:
            self.take({"key": job.key, "status": "left", "source": job.origin, "error": why})
            self.kept.run(
                "INSERT OR IGNORE INTO lined(nth) SELECT nth FROM latest"
                " WHERE key = ? AND source = ?",
                *(to_bytes(job.key), to_bytes(job.origin)),
            )
        self._drop_moved()
        self.kept.run(
            "INSERT INTO lined(nth) SELECT nth FROM latest"
            " WHERE NOT is_foreign AND nth NOT IN (SELECT nth FROM lined) ORDER BY nth"
        )
        rows = Reported(self.kept, "lined JOIN latest USING (nth) JOIN row USING (id)")
        with as_output_error(self.out):
            write_lines(self.path, rows.lines())
            write_lines(self.copy, chain(self._replaced(), rows.lines()))
            write_text(
                self.home / f"summary{self.ending}.json", json.dumps(summary, indent=2) + "\n"
            )
        return rows

    def _drop_moved(self) -> None:
        """Drop rows of which this run knows more.

        Those are the rows of inputs whose folder was moved, since their new place has a row; and
        those of folders that could not be read, but now were.
        """
        others = (
            "SELECT nth, key, source FROM latest JOIN row USING (id, key, source) WHERE nth > ?"
            " AND status != 'done' AND NOT is_foreign AND nth NOT IN (SELECT nth FROM lined)"
            " ORDER BY nth"
        )
        mine = "SELECT 1 FROM latest JOIN lined USING (nth) WHERE"
        for nth, key, source in self.kept.pages(others):
            path = to_text(source)
            if os.path.isdir(path):
                below = source.rstrip(b"/") + b"/"
                query = f"{mine} substr(source, 1, ?) = ?"
                is_known = self.kept.one(query, len(below), below)
            else:
                is_known = not os.path.exists(path) and self.kept.one(f"{mine} key = ?", key)
            if is_known:
                self.kept.run("DELETE FROM latest WHERE nth = ?", nth)

    def _replaced(self) -> Iterator[str]:
        """The rows, as JSON, of results that are still there, though newer rows replaced them."""
        kept = (
            "SELECT id, data FROM row WHERE id > ? AND NOT is_theirs"
            " AND id IN (SELECT id FROM made)"
            " AND id NOT IN (SELECT id FROM latest JOIN lined USING (nth)) ORDER BY id"
        )
        return (data for _, data in self.kept.pages(kept))


class Reported(Collection[Row]):
    """The rows of a report in their order, read anew each time.

    Args:
        kept: It has a table `lined`, of the places in the report.
        tables: That table, joined with those that have the rows.
    """

    def __init__(self, kept: TemporaryDatabase, tables: str):
        self._kept, self._tables = kept, tables

    def lines(self) -> Iterator[str]:
        """The rows as JSON."""
        query = f"SELECT place, data FROM {self._tables} WHERE place > ? ORDER BY place"
        return (data for _, data in self._kept.pages(query))

    def __iter__(self) -> Iterator[Row]:
        return map(json.loads, self.lines())

    def __len__(self) -> int:
        counted = self._kept.one("SELECT count(*) FROM lined")
        assert counted
        return counted[0]

    def __contains__(self, row: object) -> bool:
        return any(row == other for other in self)


def reports(folder: Path) -> list[Path]:
    """The reports in a folder, by name: its own and those of shards. Raises OutputError."""
    try:
        names = os.listdir(folder)
    except OSError as error:
        if error.errno in ABSENT:
            return []
        raise OutputError(f"{folder}: cannot be read: {error.strerror or error}") from error
    return [folder / name for name in sorted(names) if ownership.REPORT.fullmatch(name)]
