"""A run that makes pictures from a prompt, in one call; else as a run over files."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from restore.batch import jobs, views
from restore.batch.destination import Destination
from restore.batch.folder import QUIET, PreparedRun
from restore.batch.journal import Journal
from restore.batch.models import OpenedModel
from restore.batch.provenance import describe_maker, format_settings
from restore.batch.rows import Row
from restore.batch.runner import Summary, refuse_existing
from restore.batch.step import Exists, Work
from restore.batch.work import Progress, looks_of, split_alpha
from restore.errors import UsageError, counted
from restore.options import Text2imgOptions

LARGEST_SEED = 2**63 - 1


def prepare_words(
    options: Text2imgOptions,
    destination: Destination,
    open_model: Callable[[], OpenedModel],
    *,
    form: str = "png",
    seed: int = 0,
    count: int = 1,
    exists: Exists = "skip",
) -> PreparedRun:
    """Prepare a run that makes `count` pictures from a prompt, with the seeds from `seed` on.

    Args:
        form: The format of the results.

    The other arguments are those of `prepare`.
    """
    if seed + count - 1 > LARGEST_SEED:
        raise UsageError(
            f"--seed {seed}: {counted(count, 'seed')} from there on do not fit 63 bits"
        )
    seeds = {f"{picture_seed:010}.png": picture_seed for picture_seed in range(seed, seed + count)}
    planned = [jobs.Job(None, name, destination.out / (destination.file or name)) for name in seeds]
    if exists == "error":
        refuse_existing(planned)
    model = open_model()

    @contextmanager
    def work(show: Progress) -> Iterator[Work]:
        @cache
        def warn() -> None:
            from restore.tasks.run import beyond

            for note in beyond(options, None, model.stack()):
                show.note(note)

        def make(job: jobs.Job, path: Path) -> Row:
            from restore.diffusion import watch
            from restore.images import encode, memmap
            from restore.tasks.run import restore

            warn()  # before the first picture, not after the last
            picture_seed, stack = seeds[job.key], model.stack()
            watching = watch.watching(show.part, *stack.parts, on_look=looks_of(show))
            with memmap.use_folder(destination.out), watching:
                result = restore(None, options, stack, picture_seed)
            encode.encode(
                result, path, form, about=format_settings(options, picture_seed, model.made_by)
            )
            views.keep(destination.home, job.key, split_alpha(result))
            facts = {"seed": picture_seed, "size_out": result.size, **describe_maker(model.made_by)}
            return {**facts, "warnings": list(result.warnings)}

        yield make

    pixels = options.digest(**model.precision)  # a picture's seed is in its key
    destination.store.begin(destination.home)
    said = "", options.words, options.task, destination.home
    journal = Journal(destination.out, pixels, model.weights, *said, store=destination.store)
    return PreparedRun(planned, options, model, journal, exists, work)


def run_words(
    options: Text2imgOptions,
    out: Path,
    model: OpenedModel,
    *,
    seed: int = 0,
    count: int = 1,
    exists: Exists = "skip",
    show: Progress = QUIET,
    stop: Callable[[], str] = lambda: "",
) -> Summary:
    """Make `count` pictures from a prompt, with the seeds from `seed` on; else as in `run`."""
    destination = Destination(out)
    prepared = prepare_words(
        options, destination, lambda: model, seed=seed, count=count, exists=exists
    )
    return prepared.run(show, stop)
