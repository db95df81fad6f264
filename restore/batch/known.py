"""What is known of earlier results: what each was made of, and whether it is still there."""

from collections.abc import Iterable, Mapping

from restore.batch.jobs import Job
from restore.batch.rows import Name, Row, name_of, results
from restore.batch.store import Store


class Known:
    """The rows of earlier runs, believed only as far as hashes bear them out.

    Source, options, weights and output must be what they were. A result is known by what it was
    made of, never by its path alone.

    store             where the results are.
    options, weights  digests of what decides the pixels.
    words             of the options, what the pictures are to show, as they are.
    task              what is done: another task's results are not this one's to replace.
    """

    def __init__(
        self, store: Store, options: str, weights: str, words: Mapping[str, str], task: str
    ):
        self.store, self.options, self.weights = store, options, weights
        self.words, self.task = dict(words), task
        self.forget()

    def forget(self) -> None:
        self.rows: dict[Name, Row] = {}  # the last word on each input
        self.done: dict[str, list[Row]] = {}  # key -> all that may be there of what it was made to
        self.made: dict[str, dict[str, Row]] = {}  # name of a result -> hash -> how it was made

    def take_all(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self.take(row)

    def take(self, row: Row) -> None:
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

    def about(self, job: Job) -> list[Row]:
        """All that matters to one job, for a worker that knows nothing else."""
        names = [self.store.name(path) for path in (job.target, *job.frames)]
        rows = [*self.done.get(job.key, [])]
        rows += [row for name in names for row in self.made.get(name, {}).values()]
        return list({id(row): row for row in rows}.values())

    def finished(self, job: Job, source: str) -> Row | None:
        """The row of an earlier run that made this very output from this very source (its sha256).

        It becomes the last word on the job, wherever its source lay then.
        """
        wanted = source, self.options, self.weights
        for row in reversed(self.done.get(job.key, [])):
            found = tuple(row.get(name) for name in ("source_sha256", "options", "weights"))
            is_same = found == wanted and row.get("task", self.task) == self.task
            if is_same and self.is_intact(row):
                return self.keep({**row, "source": job.origin})
        return None

    def keep(self, row: Row) -> Row:
        """Make the row of a finished result the last word on its input."""
        if self.rows.get(name_of(row)) == row:
            return self.rows[name_of(row)]
        self.take(row)
        self.settle(row)
        return row

    def is_intact(self, row: Row) -> bool:
        """Whether all that a row says was written is there, unchanged."""
        made = results(row)
        return bool(made) and all(self.store.digest(name) == made[name] for name in made)

    def maker(self, name: str) -> Row | None:
        """The row of what lies at `name`, if a run of ours wrote it and it is unchanged."""
        known = self.made.get(name)
        return known.get(self.store.digest(name) or "") if known else None
