"""The index of earlier results: what each was made of, and whether it is still there."""

from collections.abc import Iterable, Mapping

from restore.batch.jobs import Job
from restore.batch.rows import Name, Row, name_of, results
from restore.batch.store import Store


class ResultIndex:
    """The rows of earlier runs, trusted only if hashes confirm them.

    Source, options, weights and output must be unchanged. What a result was made of identifies it,
    never its path alone.

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
        self.forget()

    def forget(self) -> None:
        self.rows: dict[Name, Row] = {}  # the latest row of each input
        self.done: dict[str, list[Row]] = {}  # key -> rows whose results may still be there
        self.made: dict[str, dict[str, Row]] = {}  # name of a result -> sha256 -> its row

    def take_all(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self.take(row)

    def take(self, row: Row) -> None:
        """Add a row as the latest one of its input; a `left` row replaces no other row."""
        name = name_of(row)
        if row["status"] == "left" and name in self.rows:
            return
        made = results(row)
        for result, digest in made.items():
            for earlier in self.made.setdefault(result, {}).values():
                other = name_of(earlier)  # this was its result: its row is out of date
                if other != name and self.rows.get(other, {}).get("output") == result:
                    del self.rows[other]
            self.made[result][digest] = row
        if made:
            self.done.setdefault(row["key"], []).append(row)
        self.rows[name] = row

    def settle(self, row: Row) -> None:
        """Forget the earlier results that a row's results replaced, now that they are in place."""
        made = results(row)
        for result, digest in made.items():
            self.made[result] = {digest: row}
        self.done[row["key"]] = [
            other
            for other in self.done[row["key"]]
            if other is row or not results(other).keys() & made.keys()
        ]

    def about(self, job: Job) -> list[Row]:
        """All rows that matter to one job, for a worker without a journal."""
        names = [self.store.name(path) for path in (job.target, *job.frames)]
        rows = [*self.done.get(job.key, [])]
        rows += [row for name in names for row in self.made.get(name, {}).values()]
        return list({id(row): row for row in rows}.values())

    def finished(self, job: Job, source: str) -> Row | None:
        """Find an earlier run's row with the same source, options, weights and an intact result.

        The row becomes the latest one of the job, wherever its source was then.

        Args:
            source: sha256 of the source, and of the other files that the job depends on.

        Returns:
            The row, or None if there is none.
        """
        wanted = source, self.options, self.weights
        for row in reversed(self.done.get(job.key, [])):
            found = tuple(row.get(name) for name in ("source_sha256", "options", "weights"))
            is_same = found == wanted and row.get("task", self.task) == self.task
            if is_same and self.is_intact(row):
                return self.keep({**row, "source": job.origin})
        return None

    def keep(self, row: Row) -> Row:
        """Make the row of a finished result the latest one of its input; return it."""
        if self.rows.get(name_of(row)) == row:
            return self.rows[name_of(row)]
        self.take(row)
        self.settle(row)
        return row

    def is_intact(self, row: Row) -> bool:
        """Whether all files that a row lists are there, unchanged."""
        made = results(row)
        return bool(made) and all(self.store.digest(name) == made[name] for name in made)

    def maker(self, name: str) -> Row | None:
        """The row of the file at `name`, if one of our runs wrote it and it is unchanged."""
        rows = self.made.get(name)
        return rows.get(self.store.digest(name) or "") if rows else None
