"""A run over files or prompts as one call: what the page and other programs stand on.

files = file_search.find([Path("scans")], Path("out"))
summary = folder.run(files, UpscaleOptions(scale=2), Path("out"), opened("nano"))

The command line does the same run: either goes on where the other stopped.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from restore.batch import jobs, report, views
from restore.batch.choices import PictureOptions
from restore.batch.holes import Holes
from restore.batch.journal import Journal
from restore.batch.loading import Loading, kind_of, named
from restore.batch.orders import Orders
from restore.batch.place import Place
from restore.batch.rows import Row
from restore.batch.run import Limits, Summary, run_all, run_by
from restore.batch.step import Exists
from restore.batch.work import (
    FileOptions,
    Progress,
    formats,
    kept_beside,
    shown,
    told,
)
from restore.checkpoints import file_kinds, manifest, places
from restore.errors import UsageError
from restore.file_search import Found
from restore.options import Text2imgOptions

if TYPE_CHECKING:
    from restore.batch.rays import Cluster
    from restore.tasks.run import Model


class Quiet:
    """Looks on and says nothing."""

    def row(self, row: Row) -> None: ...

    def note(self, text: str) -> None: ...

    def part(self, done: int, of: int, what: str) -> None: ...


QUIET = Quiet()
PICTURES = PictureOptions()


@dataclass(frozen=True)
class Opened:
    """A model for a run.

    stack      loads it at the first call.
    weights    a digest of what it is made of.
    precision  what else decides the pixels.
    loading    the same for workers elsewhere.
    """

    name: str
    stack: "Callable[[], Model]"
    weights: str
    precision: dict[str, object]
    is_pixel: bool = False
    loading: Loading | None = None

    @property
    def made_by(self) -> dict[str, object]:
        """What makes the pictures, as each keeps it."""
        return {"model": self.name, "weights": self.weights, **self.precision}


def opened(name: str, device: str = "auto", dtype: str = "auto") -> Opened:
    """A model by its name or place; nothing of a hub is fetched. Raises ModelError."""
    weights = manifest.find_model(name, offline=True)[1]
    precision: dict[str, object] = {"dtype": dtype}
    if device != "auto":
        precision["device"] = device

    loading = Loading(name, device, dtype, weights)
    file = places.place_of(name)
    is_pixel = file.is_file() and file_kinds.is_pixel(file)
    return Opened(name, cache(loading), weights, precision, is_pixel, loading)


def run(
    files: Sequence[Found],
    options: FileOptions,
    out: Path,
    model: Opened,
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
    """Do the options' task with every file, and write the results and their report into `out`.

    count    candidates of each, kept beside a sheet of them all.
    devices  a process on each does the work, such as ["0", "1"], or ["cpu", "cpu"]; none: this one.
    cluster  Ray does the work, with so many workers.
    show     is told of every row, and of parts of the picture in hand; what its `part` raises as
             CancelledError ends the run, and the picture is left for the next one.
    stop     says why the run is to end before the next file, once it is.
    Raises UsageError, ConfigError, ModelError or OutputError before any work.
    """
    if pictures.frames == "all":
        raise UsageError("frames: all pages of a file are kept by the command line alone")
    from restore.images import encode

    if devices and cluster:
        raise UsageError("--devices is of one machine, and --runner ray places its own workers")
    model = placed(model, devices)
    if cluster and model.loading is None:
        raise UsageError(
            f"--runner ray: {model.name} was loaded by its caller, and is in one place"
        )
    kind = formats(options, pictures.format, pictures.lossless, count)
    beside = kept_beside(options, holes, count)
    planned = jobs.plan(files, out, lambda source: encode.FORMATS[kind(source)].suffix, beside)
    masks, planned = holes.open(planned)
    if model.is_pixel:
        from restore.tasks.pixel_upscale import settled

        options = settled(options, model.stack())
    digest = options.digest(
        seed=seed,
        **pictures.told,
        **model.precision,
        **({"count": count} if count > 1 else {}),
        **holes.told,
    )
    place = Place(out)
    told = place, exists, seed, pictures, holes, masks, count, model.made_by, digest, model.weights
    orders = Orders(options, *told)
    said = options.words, options.task
    journal = Journal(out, digest, model.weights, "", *said, store=place.store)
    return carry_out(
        *(orders, planned, journal, model, devices, cluster, show),
        limits=Limits(stop=stop),
        publish=report.publisher(out),
    )


def placed(model: Opened, devices: Sequence[str]) -> Opened:
    """The model, told to be where the devices are. Raises UsageError if that cannot be."""
    if not devices:
        return model
    assert model.loading
    device = kind_of(devices, model.loading.device)
    precision = {name: value for name, value in model.precision.items() if name != "device"}
    if device != "auto":
        precision["device"] = device
    loading = model.loading.on(device)
    return replace(model, loading=loading, stack=cache(loading), precision=precision)


def carry_out(
    orders: Orders,
    planned: Sequence[jobs.Job],
    journal: Journal,
    model: Opened,
    devices: Sequence[str],
    cluster: "Cluster | None",
    show: Progress,
    *,
    limits: Limits,
    publish: Callable[[Sequence[Row], Row], None],
) -> Summary:
    """Do the jobs in this process, in one a device, or with Ray. Raises as run_all."""
    told = {"exists": orders.exists, "progress": show.row, "limits": limits, "publish": publish}
    if cluster:
        from restore.batch.rays import Rays

        assert model.loading
        rays = Rays(orders, model.loading, cluster)
        return run_by(rays, planned, journal, **told, hands=cluster.workers)
    if devices:
        from restore.batch.crew import Crew

        assert model.loading
        names = named(devices)
        crew = Crew(orders, model.loading, names, show)
        return run_by(crew, planned, journal, **told, hands=len(names))
    with orders.work(model.stack, planned, show.note) as work:
        return run_all(
            planned,
            lambda job, *paths: work(job, show, *paths),
            journal,
            orders.exists,
            show.row,
            limits,
            publish,
        )


def run_words(
    options: Text2imgOptions,
    out: Path,
    model: Opened,
    *,
    seed: int = 0,
    count: int = 1,
    exists: Exists = "skip",
    show: Progress = QUIET,
    stop: Callable[[], str] = lambda: "",
) -> Summary:
    """Make `count` pictures from words, of the seeds from `seed` on; as `run` else."""
    seeds = {f"{own:010}.png": own for own in range(seed, seed + count)}
    planned = [jobs.Job(None, name, out / name) for name in seeds]

    def work(job: jobs.Job, path: Path) -> Row:
        from restore.diffusion import watch
        from restore.images import encode, memmap
        from restore.tasks.run import restore

        own, stack = seeds[job.key], model.stack()
        with memmap.into(out), watch.watching(show.part, *stack.parts):
            result = restore(None, options, stack, own)
        encode.encode(result, path, about=told(options, own, model.made_by))
        views.keep(out, job.key, shown(result))
        return {"seed": own, "size_out": result.size, "warnings": list(result.warnings)}

    journal = Journal(
        out,
        options.digest(**model.precision),
        model.weights,
        words=options.words,
        task=options.task,
    )
    limits = Limits(stop=stop)
    return run_all(planned, work, journal, exists, show.row, limits, report.publisher(out))
