"""What a worker is told once, before its first job: options, and where the model is; no weights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from restore.batch.choices import PictureOptions
from restore.batch.holes import Holes
from restore.batch.jobs import Job
from restore.batch.known import Known
from restore.batch.loading import Loading
from restore.batch.place import Place
from restore.batch.rates import Rate
from restore.batch.rows import Row
from restore.batch.step import Exists, attempt
from restore.batch.work import FileOptions, FileWork, Progress, Settings, formats, reading_for

if TYPE_CHECKING:
    from restore.batch.mask_files import Masks
    from restore.tasks.run import Model


@dataclass(frozen=True)
class Orders:
    """A run over files, whoever does it. All of it can be pickled.

    digest   of all that decides the pixels, beside the weights.
    count    candidates of each picture.
    made_by  what makes the pictures, as each keeps it.
    """

    options: FileOptions
    place: Place
    exists: Exists
    seed: int
    pictures: PictureOptions
    holes: Holes
    masks: "Masks | None"
    count: int
    made_by: dict[str, object]
    digest: str
    weights: str

    def known(self) -> Known:
        """Nothing yet, of earlier results."""
        said = self.options.words, self.options.task
        return Known(self.place.store, self.digest, self.weights, *said)

    def work(
        self,
        stack: "Callable[[], Model]",
        planned: Sequence[Job] = (),
        note: Callable[[str], None] = lambda text: None,
    ) -> FileWork:
        """What does the jobs.

        planned  they are known, in their order; else `follow` tells it.
        """
        how = reading_for(self.options, self.holes, self.pictures.reading)
        writing = self.pictures.writing
        settings = Settings(self.place, self.seed, self.exists, how, writing, self.made_by)
        return FileWork(
            *(planned, self.options, settings),
            holes=self.holes,
            masks=self.masks,
            kind=formats(self.options, self.pictures.format, self.pictures.lossless, self.count),
            rate=Rate(self.options, stack, self.made_by, self.count, note),
        )


class Worker:
    """Does the jobs of a run in a process that has no journal."""

    def __init__(self, orders: Orders, loading: Loading, show: Progress):
        from functools import cache

        self.orders, self.show = orders, show
        self.known = orders.known()
        self.work = orders.work(cache(loading), note=show.note)

    def __call__(
        self,
        job: Job,
        rows: Sequence[Row],
        following: Job | None,
        note: Callable[[Row], object],
    ) -> Row:
        """The job's row, as `attempt`.

        rows  of earlier runs, that speak of its source or of its results.
        """
        self.known.forget()
        self.known.take_all(rows)
        self.work.follow(job, following)
        return attempt(
            job,
            lambda job, *paths: self.work(job, self.show, *paths),
            self.known,
            self.orders.exists,
            note,
        )
