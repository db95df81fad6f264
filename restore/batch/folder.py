"""A run over files in one call, for the command line, the page and programs.

files = file_search.find([Path("scans")], Path("out"))
summary = batch.run(files, UpscaleOptions(scale=2), Path("out"), batch.open_model("nano"))

The run is the same for every caller: each continues where another stopped.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from restore.batch import jobs, report
from restore.batch.destination import Destination
from restore.batch.devices import open_on, parse_devices
from restore.batch.dry_run import forecast
from restore.batch.holes import Holes
from restore.batch.jobs import OnCollision, Shard
from restore.batch.journal import Journal
from restore.batch.models import OpenedModel
from restore.batch.picture_options import PictureOptions
from restore.batch.planning import plan_files, settled_format
from restore.batch.rates import Rate
from restore.batch.rows import Row
from restore.batch.runner import Executor, Limits, Summary, run_all, run_by
from restore.batch.step import Exists, Work
from restore.batch.work import FileOptions, Progress, Settings
from restore.batch.worker import RunSpec
from restore.errors import UsageError
from restore.file_search import Found
from restore.options import Text2imgOptions
from restore.storage.urls import is_url

if TYPE_CHECKING:
    from restore.batch.mask_files import Masks
    from restore.batch.ray_executor import Cluster


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
        executor: Does the jobs, `workers` of them at a time; None: this process does them.
    """

    jobs: Sequence[jobs.Job]
    options: FileOptions | Text2imgOptions
    model: OpenedModel
    journal: Journal
    exists: Exists
    work: Callable[[Progress], AbstractContextManager[Work]]
    executor: Callable[[Progress], Executor] | None = field(default=None, kw_only=True)
    workers: int = field(default=1, kw_only=True)

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
        if self.executor:
            return run_by(
                *(self.executor(show), self.jobs, self.journal),
                exists=self.exists,
                progress=show.row,
                limits=limits,
                publish=publish,
                workers=self.workers,
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
    """A prepared run over files; `dry_run` says what it would do."""

    settings: Settings
    masks: "Masks | None"
    unpaired: Callable[[], Iterable[Path]]  # finds the masks without a picture
    count: int

    def dry_run(
        self, say: Callable[[str], None] = print, note: Callable[[str], None] = QUIET.note
    ) -> Iterator[Row]:
        """Say what the run would do and need; yield a row for each file."""
        assert not isinstance(self.options, Text2imgOptions)
        return forecast(
            self.jobs,
            self.options,
            self.masks,
            self.unpaired(),
            self.journal,
            self.settings.reading,
            exists=self.exists,
            rate=Rate(self.options, self.model.stack, self.model.made_by, self.count, note),
            model=self.model.stack() if self.model.is_pixel else None,
            engine=str(self.model.precision.get("engine", "torch")),
            say=say,
        )


def prepare(
    files: Sequence[Found],
    options: FileOptions,
    destination: Destination,
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
    most_pixels: int = 0,
) -> PreparedFiles:
    """Prepare a run over files: plan it, then open the model and the journal.

    Args:
        files: What `file_search.find` found.
        options: The task and its options.
        destination: Where the results go.
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
        most_pixels: A picture or frame whose results would have more fails; 0: there is no limit.

    Raises:
        UsageError: The options, files and masks do not fit together.
        ConfigError, ModelError: The model is missing, or cannot do what the options ask.
        OutputError: The output folder cannot be used.
    """
    choices = {"exists": exists, "share": share, "on_collision": on_collision}
    plan = plan_files(files, options, destination, pictures, holes, count, **choices)
    model = _computed_on(open_model(), devices, cluster, options)
    options = _settled(options, model)
    model = model.for_options(options)
    pixels = _digest_of_pixels(options, model, pictures, holes, seed, count)
    identity = destination.out, pixels, model.weights, share.ending, options.words, options.task
    destination.store.begin(destination.home)
    journal = Journal(*identity, destination.home, store=destination.store)
    how = plan.reading, pictures.writing, model.made_by, most_pixels
    settings = Settings(destination, seed, exists, *how)
    spec = RunSpec(options, settings, pictures, holes, plan.masks, count, pixels, model.weights)
    executor, workers = choose_executor(spec, model, devices, cluster)
    return PreparedFiles(
        *(plan.jobs, options, model, journal, exists),
        lambda show: spec.open_work(model.stack, show, plan.jobs),
        *(settings, plan.masks, plan.unpaired, count),
        executor=executor,
        workers=workers,
    )


def _computed_on(
    model: OpenedModel, devices: Sequence[str], cluster: "Cluster | None", options: FileOptions
) -> OpenedModel:
    """The model as the processes that do the work compute it."""
    if devices:
        return open_on(model, devices, options)
    return model.computed_on("cuda" if cluster.gpus else "cpu") if cluster else model


def _digest_of_pixels(
    options: FileOptions,
    model: OpenedModel,
    pictures: PictureOptions,
    holes: Holes,
    seed: int,
    count: int,
) -> str:
    """Digest of all that decides the pixels of results, but the weights and the files."""
    candidates = {"count": count} if count > 1 else {}
    hole_fields = holes.digest_fields(pictures.frames)
    picture_fields = pictures.digest_fields(settled_format(options, pictures.format, count))
    more = {**picture_fields, **model.precision, **candidates, **hole_fields}
    return options.digest(seed=seed, **more)


def _settled(options: FileOptions, model: OpenedModel) -> FileOptions:
    """The options as a pixel upscaler takes them; those of other models as they are."""
    if not model.is_pixel:
        return options
    from restore.tasks.pixel_upscale import with_scale_of

    return with_scale_of(options, model.stack())


def choose_executor(
    spec: RunSpec, model: OpenedModel, devices: Sequence[str], cluster: "Cluster | None"
) -> tuple[Callable[[Progress], Executor] | None, int]:
    """The executor that does the work, and its number of workers; None if this process does it.

    Raises UsageError if both are given, or if only this process has the model.
    """
    if devices and cluster:
        raise UsageError("--devices is of one machine, and --runner ray places its own workers")
    if not devices and not cluster:
        return None, 1
    pinned = model.pinned
    if pinned is None:
        raise UsageError(f"{model.name} was loaded by its caller, and is in this process alone")
    if cluster:
        from restore.batch.ray_executor import RayExecutor, require

        require()
        executor = RayExecutor(spec, pinned, cluster)
        return lambda show: executor, cluster.workers
    from restore.batch.device_pool import DevicePool

    names = parse_devices(devices)
    return lambda show: DevicePool(spec, pinned, names, show), len(names)


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
    most_pixels: int = 0,
    show: Progress = QUIET,
    stop: Callable[[], str] = lambda: "",
) -> Summary:
    """Do the task of the options with every file; write the results and their report into `out`.

    The arguments and errors are those of `prepare` and `PreparedRun.run`.
    """
    prepared = prepare(
        files,
        options,
        Destination.parse(out) if is_url(out) else Destination(Path(out)),
        lambda: model,
        pictures=pictures,
        holes=holes,
        seed=seed,
        count=count,
        exists=exists,
        devices=devices,
        cluster=cluster,
        most_pixels=most_pixels,
    )
    return prepared.run(show, stop)
