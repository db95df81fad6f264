"""A run over files or prompts as one call: what the page and other programs stand on.

files = file_search.find([Path("scans")], Path("out"))
summary = folder.run(files, UpscaleOptions(scale=2), Path("out"), opened("nano"))

The command line does the same run: either goes on where the other stopped.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from restore.batch import jobs, report, views
from restore.batch.choices import PictureOptions
from restore.batch.holes import Holes
from restore.batch.journal import Journal
from restore.batch.place import Place
from restore.batch.rates import Rate
from restore.batch.rows import Row
from restore.batch.run import Exists, Limits, Summary, run_all
from restore.batch.work import (
    FileOptions,
    FileWork,
    Progress,
    Settings,
    formats,
    kept_beside,
    reading_for,
    shown,
    told,
)
from restore.checkpoints import file_kinds, manifest, places
from restore.errors import UsageError
from restore.file_search import Found
from restore.options import Text2imgOptions

if TYPE_CHECKING:
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
    """

    name: str
    stack: "Callable[[], Model]"
    weights: str
    precision: dict[str, object]
    is_pixel: bool = False

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

    @cache
    def stack() -> "Model":
        from restore.checkpoints.devices import load

        return load(name, device, dtype, offline=True)

    file = places.place_of(name)
    is_pixel = file.is_file() and file_kinds.is_pixel(file)
    return Opened(name, stack, weights, precision, is_pixel)


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
    show: Progress = QUIET,
    stop: Callable[[], str] = lambda: "",
) -> Summary:
    """Do the options' task with every file, and write the results and their report into `out`.

    count  candidates of each, kept beside a sheet of them all.
    show   is told of every row, and of parts of the picture in hand; what its `part` raises as
           CancelledError ends the run, and the picture is left for the next one.
    stop   says why the run is to end before the next file, once it is.
    Raises UsageError, ConfigError, ModelError or OutputError before any work.
    """
    if pictures.frames == "all":
        raise UsageError("frames: all pages of a file are kept by the command line alone")
    from restore.images import encode

    kind = formats(options, pictures.format, pictures.lossless, count)
    how = reading_for(options, holes, pictures.reading)
    beside = kept_beside(options, holes, count)
    planned = jobs.plan(files, out, lambda source: encode.FORMATS[kind(source)].suffix, beside)
    masks, planned = holes.open(planned)
    if model.is_pixel:
        from restore.tasks.pixel_upscale import settled

        options = settled(options, model.stack())
    pixels = options.digest(
        seed=seed,
        **pictures.told,
        **model.precision,
        **({"count": count} if count > 1 else {}),
        **holes.told,
    )
    journal = Journal(out, pixels, model.weights, words=options.words, task=options.task)
    rate = Rate(options, model.stack, model.made_by, count, show.note)
    settings = Settings(Place(out), seed, exists, how, pictures.writing, model.made_by)
    with FileWork(
        planned, options, settings, holes=holes, masks=masks, kind=kind, rate=rate
    ) as work:
        return run_all(
            planned,
            lambda job, *paths: work(job, show, *paths),
            journal,
            exists,
            show.row,
            Limits(stop=stop),
            report.publisher(out),
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
