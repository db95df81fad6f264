"""What a worker gets before its first job: the options, and where the model is; no weights."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from restore.batch.holes import Holes
from restore.batch.jobs import Job
from restore.batch.models import PinnedModel
from restore.batch.picture_options import PictureOptions
from restore.batch.planning import choose_format
from restore.batch.rates import Rate
from restore.batch.result_index import ResultIndex
from restore.batch.rows import Row
from restore.batch.step import attempt
from restore.batch.work import FileOptions, FileWork, Progress, Settings

if TYPE_CHECKING:
    from restore.batch.mask_files import Masks
    from restore.checkpoints.arguments import Model


@dataclass(frozen=True)
class RunSpec:
    """A run over files, for whichever process does it. All of it can be pickled.

    Attributes:
        count: Candidates for each picture.
        digest: Of all that decides the pixels, except the weights.
        weights: Digest of the weights.
    """

    options: FileOptions
    settings: Settings
    pictures: PictureOptions
    holes: Holes
    masks: "Masks | None"
    count: int
    digest: str
    weights: str

    def new_index(self) -> ResultIndex:
        """An index of earlier results without any rows yet."""
        store, options = self.settings.destination.store, self.options
        return ResultIndex(store, self.digest, self.weights, options.words, options.task)

    def open_work(
        self, stack: "Callable[[], Model]", show: Progress, planned: Iterable[Job] = ()
    ) -> FileWork:
        """The function that does the jobs.

        Args:
            stack: Returns the model.
            show: Receives the progress.
            planned: The jobs in their order; if it is empty, `FileWork.follow` sets the order.
        """
        made_by = self.settings.made_by
        return FileWork(
            *(planned, self.options, self.settings),
            holes=self.holes,
            masks=self.masks,
            kind=choose_format(
                self.options, self.pictures.format, self.pictures.lossless, self.count
            ),
            rate=Rate(self.options, stack, made_by, self.count, show.note),
            show=show,
        )


class Worker:
    """Does the jobs of a run in a process that has no journal.

    Args:
        spec: What the run does.
        pinned: How it opens the model.
        show: Receives the progress.
        on_load: Called once, when the model is loaded.
    """

    def __init__(
        self,
        spec: RunSpec,
        pinned: PinnedModel,
        show: Progress,
        on_load: Callable[[], None] = lambda: None,
    ):
        self.spec, self.index = spec, spec.new_index()
        spec.settings.destination.out.mkdir(parents=True, exist_ok=True)  # local, also for a URL

        @cache
        def stack() -> "Model":
            model = pinned.open(spec.options).stack()
            on_load()
            return model

        self.work = spec.open_work(stack, show)

    def __call__(
        self,
        job: Job,
        rows: Sequence[Row],
        following: Job | None,
        note: Callable[[Row], object],
    ) -> Row:
        """Do a job, as `step.attempt` does; return its row.

        Args:
            rows: The earlier rows of its source and of its results.
            following: The job that comes next, which may be read ahead.
            note: Records the row of a new result, before the result gets its name.
        """
        self.index.forget()
        self.index.take_all(rows)
        self.work.follow(job, following)
        return attempt(
            *(job, self.work, self.index, self.spec.settings.exists),
            note,
        )
