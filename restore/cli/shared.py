"""What the commands over many pictures share: options, work on files or prompts, progress."""

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from restore.batch import jobs, report, views
from restore.batch.dry_run import foretell
from restore.batch.journal import Journal, Row
from restore.batch.place import Place
from restore.batch.rates import Rate
from restore.batch.run import Exists, Limits, Summary, refuse_existing, run_all
from restore.batch.work import (
    FileOptions,
    FileWork,
    Holes,
    Progress,
    Settings,
    formats,
    kept_beside,
    reading_for,
    shown,
    told,
)
from restore.cli.folder import Folder
from restore.cli.hint import first_use
from restore.cli.model import Model
from restore.cli.pictures import SHORT, Pictures
from restore.cli.progress import progress
from restore.cli.said import Said
from restore.cli.settings import LARGEST_SEED
from restore.cli.signals import Stop
from restore.errors import ImageError, OutputError, UsageError, counted, printable
from restore.options import Text2imgOptions

if TYPE_CHECKING:
    from restore.images.picture import Reading

GO_ON = "what is finished is kept; run the same command again to go on"
Out = Annotated[
    Path,
    typer.Option("-o", "--out", help="A folder, or for one input a file such as big.jpg."),
]
WRITTEN = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff")  # as -o may end
Prompt = Annotated[str | None, typer.Option(help="What the pictures show.")]
Negative = Annotated[str | None, typer.Option(help="What they shall not show.")]
Sampler = Annotated[str | None, typer.Option(help="ddim, euler, euler_a, dpm++_2m, unipc, ...")]
Guidance = Annotated[
    float | None, typer.Option(help="How much the prompt counts; 1 is the model's plain answer.")
]
FitMask = Annotated[bool, typer.Option("--fit-mask", help="Resize masks of another size.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")]


@dataclass(frozen=True)
class Run:
    """What a command is told beside its task's options."""

    out: Path
    seed: int
    exists: Exists
    model: Model
    said: Said
    pictures: Pictures = Pictures()

    @cached_property
    def place(self) -> Place:
        """Where the results go. Raises UsageError or OutputError."""
        place = Place.of(self.out)
        if place.file and self.out.suffix.casefold() not in WRITTEN:
            told = f"{self.out}: is not a format that is written; use {', '.join(WRITTEN)}"
            raise UsageError(f"{told}, or name a folder")
        _check_writable(place.out)
        return place

    @property
    def format(self) -> str:
        """Of the results, as options or the name of their file say it. Raises UsageError."""
        asked = self.pictures.format
        if not self.place.file:
            return asked
        suffix = self.out.suffix.casefold().removeprefix(".")
        named = SHORT.get(suffix, suffix)
        if asked not in ("auto", named):
            raise UsageError(f"{self.out}: is a {named} by its name, and --format says {asked}")
        return named

    def settled(self, options: FileOptions | Text2imgOptions, weights: str) -> None:
        """Tell those who want to know what was settled before the work."""
        values = options.model_dump(mode="json", exclude_defaults=True, exclude={"task"})
        told = " ".join(f"{name}={value}" for name, value in values.items())
        self.said.detail(f"{options.task}: {told or 'all options as they are by default'}")
        precision = ", ".join(f"{name} {value}" for name, value in self.model.precision.items())
        told = f"model {self.model.model}, weights {weights[:12]}, {precision}"
        self.said.detail(f"{told}, device {self.model.device}, seed {self.seed}")

    def made_by(self, weights: str) -> dict[str, object]:
        """What makes the pictures, as each keeps it."""
        return {"model": self.model.model, "weights": weights, **self.model.precision}


def run_files(
    folder: Folder,
    options: FileOptions,
    run: Run,
    dry_run: bool,
    holes: Holes = Holes(),
    count: int = 1,
) -> None:
    """Do the options' task with every picture that the folder's options name, and exit.

    count  candidates of each, kept beside a sheet of them all.
    """
    run.said.begin()
    place = run.place
    from restore.images import encode

    kind = formats(options, run.format, run.pictures.lossless, count)
    how = reading_for(options, holes, run.pictures.reading)
    planned = jobs.plan(
        folder.find(place.home),
        place.out,
        lambda source: encode.FORMATS[kind(source)].suffix,
        kept_beside(options, holes, count),
        folder.on_collision,
        place.file,
    )
    masks, planned = holes.open(planned)
    unpaired = masks.unused(planned) if masks else []
    planned = [job for job in planned if folder.share.holds(job.key)]
    if run.pictures.frames == "all":
        planned = with_frames(planned, how)
    if run.exists == "error":
        refuse_existing(planned)
    if run.pictures.background is None:
        refuse_transparent(planned, kind, how)
    stack, weights = run.model.open()
    pixel_model = None
    if run.model.is_pixel:
        from restore.tasks.pixel_upscale import settled

        pixel_model = stack()
        options = settled(options, pixel_model)
    pixels = options.digest(
        seed=run.seed,
        **run.pictures.told,
        **run.model.precision,
        **({"count": count} if count > 1 else {}),
        **holes.told,
    )
    ending, words, task = folder.share.ending, options.words, options.task
    journal = Journal(place.out, pixels, weights, ending, words, task, place.home)
    made_by = run.made_by(weights)
    rate = Rate(options, stack, made_by, count, run.said.note)
    if dry_run:
        rows = foretell(
            *(planned, options, masks, unpaired, journal, how),
            rate=rate,
            model=pixel_model,
            say=run.said.line,
        )
        for row in rows:
            run.said.row(row)
        return
    run.settled(options, weights)
    settings = Settings(place, run.seed, run.exists, how, run.pictures.writing, made_by)
    with FileWork(
        planned, options, settings, holes=holes, masks=masks, kind=kind, rate=rate
    ) as work:
        summary = carry_out(planned, work, run, journal, folder.most_failures)
    if holes.find == "propose":
        told = "nothing was filled: look at NAME_overlay.jpg, correct NAME_damage.png, then run"
        masked = planned[0].frames[0] if place.file else place.out
        run.said.line(f"{told} with --damage {printable(str(masked))} and another -o")
    finish(summary, journal, run)


def with_frames(planned: Sequence[jobs.Job], how: "Reading") -> list[jobs.Job]:
    """The jobs, those of files with several frames keeping the second and later ones beside.

    Raises UsageError if a job keeps something else beside already, or if two want one name.
    """
    from restore.images import sandbox

    if any(job.beside for job in planned):
        raise UsageError("--frames all: each picture keeps others beside it already; take first")
    knowing = []
    for job in planned:
        count = 1
        if job.source and not job.skip:
            with suppress(ImageError):  # its row will say so
                count = sandbox.look(job.source, how).frames
        beside = tuple(f"_{frame:03}" for frame in range(2, count + 1))
        knowing.append(replace(job, beside=beside))
    jobs.refuse_collisions(knowing)
    return knowing


def refuse_transparent(
    planned: Sequence[jobs.Job], kind: Callable[[Path], str], how: "Reading"
) -> None:
    """Raise UsageError if a picture is transparent and its result's format cannot be."""
    from restore.images import encode, sandbox

    seen = []
    for job in planned:
        if job.skip or not job.source or encode.FORMATS[kind(job.source)].alpha:
            continue
        if job.source.suffix.casefold() in encode.OPAQUE:
            continue  # the rare one that bears a wrong name is refused in its turn
        with suppress(ImageError):  # its row will say so
            if sandbox.look(job.source, how).has_alpha:
                seen.append(str(job.source))
    if seen:
        more = f" and {len(seen) - 5} more" if len(seen) > 5 else ""
        told = f"{', '.join(seen[:5])}{more}: transparent, which jpeg cannot hold"
        raise UsageError(f"{told}; give a --background such as white, or use --format png")


def run_prompt(options: Text2imgOptions, run: Run, count: int, grid: bool) -> None:
    """Make `count` pictures from words, of the seeds from run.seed on, and exit."""
    if run.seed + count - 1 > LARGEST_SEED:
        raise UsageError(
            f"--seed {run.seed}: {counted(count, 'seed')} from there on do not fit 63 bits"
        )
    run.said.begin()
    place = run.place
    if place.file and count + grid > 1:
        raise UsageError(f"{run.out}: is one file; -n and --grid make more, give -o a folder")
    kind = "png" if run.format == "auto" else run.format
    seeds = {f"{seed:010}.png": seed for seed in range(run.seed, run.seed + count)}
    planned = [jobs.Job(None, name, place.out / (place.file or name)) for name in seeds]
    if run.exists == "error":
        refuse_existing(planned)
    stack, weights = run.model.open()

    @cache
    def warn() -> None:
        from restore.tasks.run import beyond

        for note in beyond(options, None, stack()):
            run.said.note(note)

    def work(job: jobs.Job, show: Progress, path: Path) -> Row:
        from restore.diffusion import watch
        from restore.images import encode, memmap
        from restore.tasks.run import restore

        warn()  # before the first picture, not after the last
        seed = seeds[job.key]
        with memmap.into(place.out), watch.watching(show.part, *stack().parts):
            result = restore(None, options, stack(), seed)
        encode.encode(result, path, kind, about=told(options, seed, run.made_by(weights)))
        views.keep(place.home, job.key, shown(result))
        return {"seed": seed, "size_out": result.size, "warnings": list(result.warnings)}

    pixels = options.digest(**run.model.precision)  # a picture's seed is in its key
    journal = Journal(place.out, pixels, weights, "", options.words, options.task, place.home)
    run.settled(options, weights)
    summary = carry_out(planned, work, run, journal)
    if grid and not summary.failed and not summary.left:
        from restore.images.contact_sheet import write_grid

        rows = [journal.row(job) for job in planned]
        write_grid([journal.output(row) for row in rows], place.out / "grid.png")
    finish(summary, journal, run)


def carry_out(
    planned: Sequence[jobs.Job],
    work: Callable[..., Row],
    run: Run,
    journal: Journal,
    max_failures: int = 0,
) -> Summary:
    """Do the jobs under the eyes of the user, who may stop it."""
    with progress(len(planned), run.said) as show, Stop() as halt:
        try:
            summary = run_all(
                planned,
                lambda job, *paths: work(job, show, *paths),
                journal,
                run.exists,
                show.row,
                Limits(max_failures, lambda: halt.asked),
                report.publisher(run.place.home, journal.ending),
            )
        except KeyboardInterrupt:
            raise typer.Exit(stop(f"stopped; {GO_ON}", halt.exit_code)) from None
    if halt.asked and summary.left:
        tell(summary, journal, run)
        raise typer.Exit(stop(f"stopped; {GO_ON}", halt.exit_code))
    return summary


def finish(summary: Summary, journal: Journal, run: Run) -> None:
    tell(summary, journal, run)
    if summary.left:
        stop(f"ended after {summary.failed} failed; {GO_ON}", 1)
    raise typer.Exit(1 if summary.failed else 0)


def tell(summary: Summary, journal: Journal, run: Run) -> None:
    names = ("done", "finished", "failed", "skipped", "left")
    counts = {name: getattr(summary, name) for name in names}
    said = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    path = journal.path.with_suffix(".html")
    run.said.line(f"{said} in {summary.seconds:.1f} s; report in {printable(str(path))}")
    if summary.done:
        first_use(path, run.said)


def stop(message: str, code: int) -> int:
    for line in message.splitlines():
        print(f"restore: {printable(line)}", file=sys.stderr)
    return code


def check_folder(out: Path) -> None:
    """Raise UsageError or OutputError if `-o` is no folder that may be written."""
    place = Place.of(out)
    if place.file:
        raise UsageError(f"{out}: -o takes a folder here")
    _check_writable(out)


def _check_writable(out: Path) -> None:
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise OutputError(f"{out}: cannot be written: {there} is read-only or no folder")
