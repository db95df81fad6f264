"""A run over files or prompts in one call, for the command line, the page and programs.

files = file_search.find([Path("scans")], Path("out"))
summary = batch.run(files, UpscaleOptions(scale=2), Path("out"), batch.open_model("nano"))

The run is the same for every caller: each continues where another stopped.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from restore.batch import jobs, report, views
from restore.batch.choices import PictureOptions
from restore.batch.dry_run import foretell
from restore.batch.holes import Holes
from restore.batch.jobs import OnCollision, Shard
from restore.batch.journal import Journal
from restore.batch.models import OpenedModel
from restore.batch.orders import Orders
from restore.batch.place import Place
from restore.batch.placing import named, placed
from restore.batch.planning import plan_files
from restore.batch.rates import Rate
from restore.batch.rows import Row
from restore.batch.runner import Limits, Summary, Team, refuse_existing, run_all, run_by
from restore.batch.step import Exists, Work
from restore.batch.work import (
    FileOptions,
    Progress,
    Settings,
    made_with,
    shown,
    told,
)
from restore.errors import UsageError, counted
from restore.file_search import Found
from restore.options import Text2imgOptions
from restore.urls import is_url

if TYPE_CHECKING:
    from restore.batch.mask_files import Masks
    from restore.batch.rays import Cluster

LARGEST_SEED = 2**63 - 1


class Quiet:
    """A `Progress` that shows nothing."""

    def row(self, row: Row) -> None: ...

    def note(self, text: str) -> None: ...

    def part(self, done: int, of: int, what: str) -> None: ...


QUIET = Quiet()
PICTURES = PictureOptions()
ALL = Shard()


@dataclass(frozen=True)
class PreparedRun:
    """A run that is planned and checked, but not begun.

    Attributes:
        jobs: One for each input of this shard.
        work: Opens the function that makes a job's picture; open as long as the run lasts.
        team: Does the jobs, `hands` of them at a time; None: this process does them.
    """

    jobs: Sequence[jobs.Job]
    options: FileOptions | Text2imgOptions
    model: OpenedModel
    journal: Journal
    exists: Exists
    work: Callable[[Progress], AbstractContextManager[Work]]
    team: Callable[[Progress], Team] | None = field(default=None, kw_only=True)
    hands: int = field(default=1, kw_only=True)

    def run(
        self,
        show: Progress = QUIET,
        stop: Callable[[], str] = lambda: "",
        max_failures: int = 0,
    ) -> Summary:
        """Do every job and write the report.

        Args:
            show: Receives every row, and the progress of the current picture. A CancelledError
                from its `part` ends the run; the picture is left for the next one.
            stop: Called between files; returns why the run must end, or an empty string.
            max_failures: This many failed files end the run; 0 is no limit.

        Raises:
            OutputError: The output folder cannot be used.
        """
        publish = report.publisher(self.journal.home, self.journal.ending)
        limits = Limits(max_failures, stop)
        if self.team:
            return run_by(
                *(self.team(show), self.jobs, self.journal),
                exists=self.exists,
                progress=show.row,
                limits=limits,
                publish=publish,
                hands=self.hands,
            )
        with self.work(show) as work:
            return run_all(
                self.jobs,
                work,
                self.journal,
                self.exists,
                show.row,
                limits,
                publish,
            )


@dataclass(frozen=True)
class PreparedFiles(PreparedRun):
    """A prepared run over files; `foretell` is its dry run."""

    settings: Settings
    masks: "Masks | None"
    unpaired: list[Path]  # masks without a picture
    count: int

    def foretell(
        self, say: Callable[[str], None] = print, note: Callable[[str], None] = QUIET.note
    ) -> Iterator[Row]:
        """Say what the run would do and need; yield a row for each file."""
        assert not isinstance(self.options, Text2imgOptions)
        return foretell(
            self.jobs,
            self.options,
            self.masks,
            self.unpaired,
            self.journal,
            self.settings.reading,
            rate=Rate(self.options, self.model.stack, self.model.made_by, self.count, note),
            model=self.model.stack() if self.model.is_pixel else None,
            say=say,
        )


def prepare(
    files: Sequence[Found],
    options: FileOptions,
    place: Place,
    open_model: Callable[[], OpenedModel],
    *,
    pictures: PictureOptions = PICTURES,
    holes: Holes = Holes(),
    seed: int = 0,
    count: int = 1,
    exists: Exists = "skip",
    share: Shard = ALL,
    on_collision: OnCollision = "error",
    devices: Sequence[str] = (),
    cluster: "Cluster | None" = None,
) -> PreparedFiles:
    """Prepare a run over files: plan it, then open the model and the journal.

    Args:
        files: What `file_search.find` found.
        options: The task and its options.
        place: Where the results go.
        open_model: Returns the model; called after the files are checked, since it may download.
        pictures: How pictures are read and written.
        holes: Where the pictures have holes.
        seed: Of the run, from 0; each file's own seed comes from it and the file's key.
        count: Candidates for each picture, saved beside a contact sheet of them.
        exists: What to do with results that are there already; `runner.run_by` explains it.
        share: The share of the files that this run does.
        on_collision: What to do where two files want one result.
        devices: One process on each does the work: 0, 1, ... or cpu. Empty: this process does it.
        cluster: Where Ray does the work; None: Ray is not used.

    Raises:
        UsageError: The options, files and masks do not fit together.
        ConfigError, ModelError: The model is missing, or cannot do what the options ask.
        OutputError: The output folder cannot be used.
    """
    choices = {"exists": exists, "share": share, "on_collision": on_collision}
    plan = plan_files(files, options, place, pictures, holes, count, **choices)
    model = open_model()
    if devices:
        model = placed(model, devices)
    options = _settled(options, model)
    candidates = {"count": count} if count > 1 else {}
    more = {**pictures.told, **model.precision, **candidates, **holes.told}
    pixels = options.digest(seed=seed, **more)
    told = place.out, pixels, model.weights, share.ending, options.words, options.task
    place.store.begin(place.home)
    journal = Journal(*told, place.home, store=place.store)
    settings = Settings(place, seed, exists, plan.reading, pictures.writing, model.made_by)
    orders = Orders(options, settings, pictures, holes, plan.masks, count, pixels, model.weights)
    team, hands = gathered(orders, model, devices, cluster)
    return PreparedFiles(
        *(plan.jobs, options, model, journal, exists),
        lambda show: orders.work(model.stack, show, plan.jobs),
        *(settings, plan.masks, plan.unpaired, count),
        team=team,
        hands=hands,
    )


def _settled(options: FileOptions, model: OpenedModel) -> FileOptions:
    """The options as a pixel upscaler takes them; those of other models as they are."""
    if not model.is_pixel:
        return options
    from restore.tasks.pixel_upscale import settled

    return settled(options, model.stack())


def gathered(
    orders: Orders, model: OpenedModel, devices: Sequence[str], cluster: "Cluster | None"
) -> tuple[Callable[[Progress], Team] | None, int]:
    """The team that does the work, and its number of workers; None if this process does it.

    Raises UsageError if both are given, or if only this process has the model.
    """
    if devices and cluster:
        raise UsageError("--devices is of one machine, and --runner ray places its own workers")
    if not devices and not cluster:
        return None, 1
    loading = model.loading
    if loading is None:
        raise UsageError(f"{model.name} was loaded by its caller, and is in this process alone")
    if cluster:
        from restore.batch.rays import Rays, require

        require()
        rays = Rays(orders, loading, cluster)
        return lambda show: rays, cluster.workers
    from restore.batch.crew import Crew

    names = named(devices)
    return lambda show: Crew(orders, loading, names, show), len(names)


def prepare_words(
    options: Text2imgOptions,
    place: Place,
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
    seeds = {f"{own:010}.png": own for own in range(seed, seed + count)}
    planned = [jobs.Job(None, name, place.out / (place.file or name)) for name in seeds]
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
            own, stack = seeds[job.key], model.stack()
            with memmap.use_folder(place.out), watch.watching(show.part, *stack.parts):
                result = restore(None, options, stack, own)
            encode.encode(result, path, form, about=told(options, own, model.made_by))
            views.keep(place.home, job.key, shown(result))
            facts = {"seed": own, "size_out": result.size, **made_with(model.made_by)}
            return {**facts, "warnings": list(result.warnings)}

        yield make

    pixels = options.digest(**model.precision)  # a picture's seed is in its key
    place.store.begin(place.home)
    said = "", options.words, options.task, place.home
    journal = Journal(place.out, pixels, model.weights, *said, store=place.store)
    return PreparedRun(planned, options, model, journal, exists, work)


def run(
    files: Sequence[Found],
    options: FileOptions,
    out: Path | str,
    model: OpenedModel,
    *,
    pictures: PictureOptions = PICTURES,
    holes: Holes = Holes(),
    seed: int = 0,
    count: int = 1,
    exists: Exists = "skip",
    devices: Sequence[str] = (),
    cluster: "Cluster | None" = None,
    show: Progress = QUIET,
    stop: Callable[[], str] = lambda: "",
) -> Summary:
    """Do the task of the options with every file; write the results and their report into `out`.

    The arguments and errors are those of `prepare` and `PreparedRun.run`.
    """
    prepared = prepare(
        files,
        options,
        Place.of(out) if is_url(out) else Place(Path(out)),
        lambda: model,
        pictures=pictures,
        holes=holes,
        seed=seed,
        count=count,
        exists=exists,
        devices=devices,
        cluster=cluster,
    )
    return prepared.run(show, stop)


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
    place = Place(out)
    prepared = prepare_words(options, place, lambda: model, seed=seed, count=count, exists=exists)
    return prepared.run(show, stop)
