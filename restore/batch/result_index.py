"""The index of earlier results: what each was made of, and whether it is still there."""

import json
from collections.abc import Iterable, Iterator, Mapping

from restore.batch.jobs import Job
from restore.batch.rows import Name, Row, name_of, results
from restore.batch.store import Store
from restore.storage.database import TemporaryDatabase, to_bytes

# row     every row, as JSON; is_done: its results may still be there; is_theirs: another shard's
# latest  the latest row of each input, in the order in which the inputs came
# made    the files that are results: a file may have been any of these digests
# lined   the inputs in the order of the report
SCHEMA = """
CREATE TABLE row(id INTEGER PRIMARY KEY, key BLOB, source BLOB, status TEXT, output BLOB,
                 is_done INTEGER, is_theirs INTEGER DEFAULT 0, data TEXT);
CREATE INDEX row_of_key ON row(key) WHERE is_done;
CREATE TABLE latest(nth INTEGER PRIMARY KEY, key BLOB, source BLOB, id INTEGER,
                    is_foreign INTEGER DEFAULT 0, UNIQUE(key, source));
CREATE TABLE made(result BLOB, digest BLOB, id INTEGER, PRIMARY KEY(result, digest)) WITHOUT ROWID;
CREATE TABLE lined(place INTEGER PRIMARY KEY, nth INTEGER UNIQUE);
"""


class ResultIndex:
    """The rows of earlier runs, trusted only if hashes confirm them.

    Source, options, weights and output must be unchanged. What a result was made of identifies it,
    never its path alone. The rows are in a temporary file: millions of them take no memory.

    Args:
        store: Where the results are.
        options: Digest of the options that decide the pixels.
        weights: Digest of the model's weights.
        words: The options that say what the pictures show, such as the prompt, in full.
        task: What the run does; it may not replace the results of another task.
    """

    def __init__(
        self, store: Store, options: str, weights: str, words: Mapping[str, str], task: str
    ):
        self.store, self.options, self.weights = store, options, weights
        self.words, self.task = dict(words), task
        self.kept = TemporaryDatabase(SCHEMA)

    def forget(self) -> None:
        for table in ("row", "latest", "made", "lined"):
            self.kept.run(f"DELETE FROM {table}")

    def take_all(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self.take(row)

    def take(self, row: Row) -> None:
        """Add a row as the latest one of its input; a `left` row replaces no other row."""
        name, outputs = _bytes(name_of(row)), results(row)
        if row["status"] == "left" and self._id(name):
            return
        number = self.kept.add(
            "INSERT INTO row(key, source, status, output, is_done, data) VALUES (?, ?, ?, ?, ?, ?)",
            *(*name, row["status"], to_bytes(row.get("output", ""))),
            *(bool(outputs), json.dumps(row)),
        )
        for result, digest in outputs.items():
            self._take_result(to_bytes(result), to_bytes(digest), number, name)
        self.kept.run(
            "INSERT INTO latest(key, source, id) VALUES (?, ?, ?)"
            " ON CONFLICT(key, source) DO UPDATE SET id = excluded.id",
            *(*name, number),
        )

    def _take_result(
        self, result: bytes, digest: bytes, number: int, name: tuple[bytes, bytes]
    ) -> None:
        """Note a row's result. If it was another input's, the row of that one is out of date."""
        makers = "SELECT DISTINCT key, source FROM made JOIN row USING (id) WHERE result = ?"
        for other in self.kept.all(makers, result):
            if other != name:
                self.kept.run(
                    "DELETE FROM latest WHERE key = ? AND source = ?"
                    " AND ? = (SELECT output FROM row WHERE row.id = latest.id)",
                    *(*other, result),
                )
        self.kept.run("INSERT OR REPLACE INTO made VALUES (?, ?, ?)", result, digest, number)

    def settle(self, row: Row) -> None:
        """Forget the earlier results that a row's results replaced, now that they are in place.

        Args:
            row: The latest one of its input.
        """
        outputs, number = results(row), self._id(_bytes(name_of(row)))
        for result, digest in outputs.items():
            name = to_bytes(result)
            self.kept.run("DELETE FROM made WHERE result = ?", name)
            self.kept.run("INSERT INTO made VALUES (?, ?, ?)", name, to_bytes(digest), number)
        for other, known in self._done(row["key"]):
            if other != number and results(known).keys() & outputs.keys():
                self.kept.run("UPDATE row SET is_done = 0 WHERE id = ?", other)

    def _id(self, name: tuple[bytes, bytes]) -> int:
        """The number of the latest row of an input; 0 if there is none."""
        found = self.kept.one("SELECT id FROM latest WHERE key = ? AND source = ?", *name)
        return found[0] if found else 0

    def _row(self, number: int) -> Row:
        found = self.kept.one("SELECT data FROM row WHERE id = ?", number)
        assert found
        return json.loads(found[0])

    def _done(self, key: str) -> list[tuple[int, Row]]:
        """The rows of a key whose results may still be there, with their numbers."""
        rows = self.kept.all(
            "SELECT id, data FROM row WHERE key = ? AND is_done ORDER BY id", to_bytes(key)
        )
        return [(number, json.loads(data)) for number, data in rows]

    def _latest(self, name: Name) -> Row | None:
        number = self._id(_bytes(name))
        return self._row(number) if number else None

    def latest_row(self, job: Job) -> Row | None:
        """The latest row of a job's input; None if there is none."""
        return self._latest((job.key, job.origin))

    def latest_rows(self) -> Iterator[Row]:
        """The latest row of each input."""
        query = "SELECT nth, data FROM latest JOIN row USING (id) WHERE nth > ? ORDER BY nth"
        return (json.loads(data) for _, data in self.kept.pages(query))

    def standing(self) -> Iterator[tuple[Row, dict[str, str]]]:
        """The rows whose results no later row replaced, each with these results and their digests.

        More than the latest rows have: an input may have results under several names.
        """
        query = "SELECT id, data FROM row WHERE id > ? AND is_done ORDER BY id"
        for number, data in self.kept.pages(query):
            row = json.loads(data)
            newest = "SELECT max(id) FROM made WHERE result = ?"
            made = {
                name: digest
                for name, digest in results(row).items()
                if self.kept.one(newest, to_bytes(name)) == (number,)
            }
            if made:
                yield row, made

    def about(self, job: Job) -> list[Row]:
        """All rows that matter to one job, for a worker without a journal."""
        rows = dict(self._done(job.key))
        for path in (job.target, *job.frames):
            query = "SELECT id FROM made WHERE result = ? ORDER BY id"
            for (number,) in self.kept.all(query, to_bytes(self.store.name(path))):
                rows.setdefault(number, self._row(number))
        return list(rows.values())

    def finished_unread(self, job: Job) -> Row | None:
        """As `finished`, by the MD5 that the store lists: the source is not downloaded."""
        return self._intact(job, self._unread(job))

    def is_listed(self, job: Job) -> bool:
        """Whether `finished_unread` finds a row, if its result is intact. Asks no store."""
        return any(self._unread(job))

    def _unread(self, job: Job) -> Iterator[Row]:
        return self._same(job, "source_md5", job.md5) if job.md5 and not job.others else iter(())

    def _same(self, job: Job, name: str, source: str) -> Iterator[Row]:
        """The rows of the same source, options, weights and task, the latest first."""
        wanted = source, self.options, self.weights
        for _, row in reversed(self._done(job.key)):
            found = tuple(row.get(each) for each in (name, "options", "weights"))
            if found == wanted and row.get("task", self.task) == self.task:
                yield row

    def finished(self, job: Job, source: str) -> Row | None:
        """Find an earlier run's row with the same source, options, weights and an intact result.

        The row becomes the latest one of the job, wherever its source was then.

        Args:
            source: sha256 of the source, and of the other files that the job depends on.

        Returns:
            The row, or None if there is none.
        """
        return self._intact(job, self._same(job, "source_sha256", source))

    def _intact(self, job: Job, rows: Iterator[Row]) -> Row | None:
        row = next(filter(self.is_intact, rows), None)
        return row and self.keep({**row, "source": job.origin})

    def keep(self, row: Row) -> Row:
        """Make the row of a finished result the latest one of its input; return it."""
        if self._latest(name_of(row)) != row:
            self.take(row)
            self.settle(row)
        return row

    def is_intact(self, row: Row) -> bool:
        """Whether all files that a row lists are there, unchanged."""
        made = results(row)
        return bool(made) and all(self.store.digest(name) == made[name] for name in made)

    def maker(self, name: str) -> Row | None:
        """The row of the file at `name`, if one of our runs wrote it and it is unchanged."""
        if not self.kept.one("SELECT 1 FROM made WHERE result = ?", to_bytes(name)):
            return None
        query = "SELECT id FROM made WHERE result = ? AND digest = ?"
        found = self.kept.one(query, to_bytes(name), to_bytes(self.store.digest(name) or ""))
        return self._row(found[0]) if found else None


def _bytes(name: Name) -> tuple[bytes, bytes]:
    return to_bytes(name[0]), to_bytes(name[1])
